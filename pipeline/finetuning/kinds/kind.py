"""What a model is fine-tuned for, as everything around it sees it: an object with these members.

`bert finetune`, `bert evaluate` and `bert predict` take what stands in `pipeline.finetuning.kinds.ALL` and know no kind
by name. A kind is read before TensorFlow is imported, so what needs TensorFlow it imports where it is called.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from model.settings import Pooling, TaskSettings

if TYPE_CHECKING:  # they import TensorFlow
    from model.tasks.task import Task
    from pipeline.finetuning.planning import Options
    from preprocessing.tasks.tables import Columns
    from preprocessing.tokenizer import BertTokenizer

# Options of those whose task can be learned from a teacher: see `model.tasks.taught`.
OF_TEACHER = dict.fromkeys(("teacher", "temperature", "soft", "untaught"))
SetAside = Callable[[int, str], None]  # (line, reason)
# What a served model says of a row: its outputs by name, arrays without the axis of the batch, or numbers, or bytes.
Answer = Mapping[str, Any]


class Row(Protocol):
    """What is asked at once, with its label or labels where it has any, and whatever else its kind needs."""

    @property
    def file(self) -> str: ...

    @property
    def line(self) -> int:
        """That on which it begins, from 1."""

    @property
    def place(self) -> str:
        """`file:line`"""

    @property
    def id(self) -> str | None:
        """What the row is called where it was read."""

    @property
    def more(self) -> Mapping[str, str | None]:
        """Values by name of the columns that were asked for as `columns.more`."""


class Source(Protocol):
    """A file that has been opened and found to be one of the kind's."""

    @property
    def path(self) -> str: ...

    @property
    def told(self) -> str:
        """What was found or guessed of it, a line for people."""

    def rows(self, set_aside: SetAside, /) -> Iterator[Any]:
        """Its usable rows, in order; those that are not go to `set_aside`. Each call begins anew."""


class Split(Protocol):
    """A file of examples. `rows`: how many; `tokens`: that the model sees of them."""

    @property
    def file(self) -> str: ...

    @property
    def rows(self) -> int: ...

    @property
    def tokens(self) -> int: ...


class Prepared(Protocol):
    """The files that training reads."""

    __dataclass_fields__: ClassVar[dict[str, Any]]  # it is told as JSON

    @property
    def train(self) -> Split: ...

    @property
    def dev(self) -> Split: ...

    def notes(self) -> Iterator[str]:
        """What a person should know of the data, a line each."""


@dataclasses.dataclass(frozen=True)
class Calibration:
    """What dev has decided after training.

    Attributes:
        settings: with what was chosen, as they are stored with the model.
        chosen: it, by name.
        before, after: figures of dev that show what it does.
        figures: those that only the answers before it can give.
        draw: writes plots of it into a folder.
    """

    settings: TaskSettings
    chosen: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    before: Mapping[str, float] = dataclasses.field(default_factory=dict)
    after: Mapping[str, float] = dataclasses.field(default_factory=dict)
    figures: Mapping[str, float] = dataclasses.field(default_factory=dict)
    draw: Callable[[pathlib.Path], None] = lambda folder: None


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What is told of one answer. `cost`: None where it is right, else the more the worse; `text`: what was asked;
    `more`: JSON values by name, beside gold and answer."""

    gold: Any
    answer: Any
    cost: float | None
    text: str
    more: Mapping[str, Any]


class Judge(Protocol):
    """Answers compared with labels. Memory does not grow with the rows."""

    def add(self, row: Any, answer: Answer) -> Verdict: ...

    def merge(self, other: Any) -> None:
        """Adds what another judge of the same model's answers has seen; pickled, it may come from another process."""

    def figures(self) -> dict[str, float]:
        """Over all that was added."""

    def details(self) -> dict[str, Any]:
        """More of them, JSON values by name: each label's F1, say."""

    def notes(self) -> Iterator[str]:
        """What a person should know: labels that the model does not have, that it has learned nothing."""

    def lines(self) -> Iterator[str]:
        """The details for people."""

    def draw(self, folder: pathlib.Path) -> None:
        """Writes its plots."""


def first_figure(kind: "Kind", figures: Iterable[str]) -> str:
    """The first of the kind's figures that is among these: what a model is judged by."""
    found = set(figures)
    return next(name for name in kind.figures if name in found)


class Kind(Protocol):
    """One kind of fine-tuning."""

    @property
    def name(self) -> str:
        """Of `--task`, and the `kind` of its settings."""

    @property
    def title(self) -> str:
        """Of its report."""

    @property
    def figures(self) -> Mapping[str, str]:
        """Titles of the figures on dev, the judge's and the calibration's; there may be fewer. By the first
        that there is, or that of `--watch` if it is among them, the best of several seeds is chosen; the pipeline's
        gate looks at the first."""

    @property
    def watched(self) -> Sequence[str]:
        """The held-out figures of its task of which `--watch` may name one, the first by default."""

    @property
    def defaults(self) -> Mapping[str, Any]:
        """The settings of `planning.Options` that it takes beside those of every kind, or that are others for it."""

    @property
    def pooling(self) -> Pooling | None:
        """What a text's vector is where neither user nor checkpoint says it; None where there is no such vector."""

    @property
    def chosen(self) -> str:
        """What its calibration chooses, for a sentence that begins with it."""

    @property
    def signatures(self) -> Sequence[str]:
        """Names of those that answer it."""

    @property
    def calibrates_on(self) -> str | None:
        """The signature whose answers its calibration reads, where it is not that which answers a source."""

    def row(self) -> type:
        """The dataclass of its rows, whose fields are strings, numbers, None, tuples, mappings of these, and more such
        dataclasses."""

    def source(self, path: str, columns: "Columns") -> Source:
        """Opens a file. `columns.labelled`: whether rows must have labels. Imports no TensorFlow. Raises InputError."""

    def prepare(
        self,
        train: Any,
        dev: Any,
        tokenizer: "BertTokenizer",
        folder: pathlib.Path,
        options: "Options",
        progress: Callable[[int], None],
    ) -> Any:
        """Writes the Prepared files into `folder`, or finds those of the same sources and settings. Raises InputError,
        also where dev has no row that could be answered rightly."""

    def task(self, prepared: Any, options: "Options") -> "Task":
        """What training is handed."""

    def settings(self, prepared: Any, train: Any, options: "Options") -> TaskSettings:
        """What is stored with the model, before its calibration."""

    def told(self, prepared: Any, options: "Options") -> Iterator[str]:
        """How much there is to learn from, lines for people: rows, the share that is cut, labels."""

    def signature(self, source: Any) -> str:
        """That which answers the rows of a source."""

    def inputs(self, signature: str, rows: Sequence[Any]) -> dict[str, Any]:
        """Rows as the inputs of a signature, by name: lists of texts, or arrays."""

    def size(self, row: Any) -> int:
        """Its number of characters; rows of like size are asked together."""

    def labels(self, row: Any) -> Sequence[str]:
        """What it is, to tell the figures of each apart."""

    def said(self, row: Any, answer: Answer) -> dict[str, Any]:
        """An answer as the JSON object that `bert predict` writes."""

    def calibrated(self, settings: Any, answered: Iterable[tuple[Row, Answer]]) -> Calibration:
        """Chooses on the answers to dev that a model with `settings` gives. A kind that chooses nothing leaves them
        unread: then nothing is asked."""

    def judge(self) -> Judge: ...

    def sections(self, prepared: Any, metrics: Mapping[str, Any]) -> Iterator[str]:
        """Lines of the report in Markdown, between the figures and the data."""
