"""Files of questions -> files of examples of their windows, with what is to be known of them.

As google-research/bert's `run_squad.py` makes them for training: the first answer counts, a window that does not hold
all of it has none. Its tokens are those that share a character with it.
"""

import dataclasses
import itertools
import json
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import TextIO

import numpy as np

from preprocessing import features, tfrecord
from preprocessing.errors import require
from preprocessing.examples import encoding
from preprocessing.storage import write_whole
from preprocessing.tasks import squad, windows
from preprocessing.tasks.examples import fingerprint
from preprocessing.tasks.squad import Question, Questions
from preprocessing.tasks.windows import WindowRules
from preprocessing.tokenizer import BertTokenizer

MOST_QUESTIONS = 512  # encoded at once
SHOWN = 3  # places that are told of each kind of fault
VERSION = 1  # of what is written of the same files


@dataclasses.dataclass
class Split:
    """What is in a file of examples.

    Attributes:
        file: of tf.Examples as `features.ANSWERED` says, in the order of the questions.
        told: how the questions were read.
        rows: windows; `answered` of these hold an answer.
        questions: of them all; `impossible` of these have no answer.
        moved: answers that are not where the file says, but elsewhere in the context.
        cut: questions with more tokens than a window has room for.
        tokens: of all windows.
        set_aside: questions that cannot be used.
        places: for each kind of fault, the first places of it and what is wrong.
    """

    file: str
    told: str
    rows: int = 0
    answered: int = 0
    questions: int = 0
    impossible: int = 0
    moved: int = 0
    cut: int = 0
    tokens: int = 0
    set_aside: int = 0
    places: dict[str, list[str]] = dataclasses.field(default_factory=dict)

    def tell(self, kind: str, place: str) -> None:
        shown = self.places.setdefault(kind, [])
        if len(shown) < SHOWN:
            shown.append(place)


@dataclasses.dataclass
class Prepared:
    """The files of a run. `leaked`: questions of dev that train asks of the same context; `leaked_places`: the first of
    them."""

    train: Split
    dev: Split
    leaked: int
    leaked_places: list[str]

    def notes(self) -> Iterator[str]:
        """What a person should know of the data, a line each."""
        for name, split in (("train", self.train), ("dev", self.dev)):
            yield split.told
            for kind, count, what in (
                ("set_aside", split.set_aside, "questions cannot be used"),
                ("moved", split.moved, "answers are not where the file says, but elsewhere in the context"),
            ):
                if count:
                    yield f"{name}: {count:,} {what}: {'; '.join(split.places[kind])}"
        if self.leaked:
            yield (
                f"{self.leaked:,} questions of dev are asked of the same context in train, so that dev flatters: "
                f"{'; '.join(self.leaked_places)}"
            )


def prepare(
    train: Questions,
    dev: Questions,
    tokenizer: BertTokenizer,
    folder: str | os.PathLike,
    rules: WindowRules,
    progress: Callable[[int], None] = lambda questions: None,
) -> Prepared:
    """Writes the examples of both files into `folder`, or finds those that the same files and rules gave before.

    `progress` is called with the number of questions that are written. Raises InputError where a file has no usable
    question. Those that cannot be used are listed in `set_aside.tsv`.
    """
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    name = fingerprint(train, dev, tokenizer, VERSION, dataclasses.astuple(rules))
    report = folder / f"{name}.json"
    if report.is_file():
        found = json.loads(report.read_text())
        known = Prepared(train=Split(**found.pop("train")), dev=Split(**found.pop("dev")), **found)
        for split in (known.train, known.dev):  # the folder may have been moved
            split.file = str(folder / os.path.basename(split.file))
        if os.path.isfile(known.train.file) and os.path.isfile(known.dev.file):
            return known
    with (folder / f"{name}-set_aside.tsv").open("w") as aside:
        of_train, of_dev = (
            write(questions, str(folder / f"{name}-{part}.tfrecord"), tokenizer, rules, aside, progress)
            for part, questions in (("train", train), ("dev", dev))
        )
    places = [question.place for question in _leaked(train, dev)]
    prepared = Prepared(of_train, of_dev, len(places), places[:SHOWN])
    write_whole(json.dumps(dataclasses.asdict(prepared)), report)
    return prepared


def _leaked(train: Questions, dev: Questions) -> Iterator[Question]:
    known = {hash((question.question, question.context)) for question in train.rows(_ignored)}
    return (question for question in dev.rows(_ignored) if hash((question.question, question.context)) in known)


def _ignored(line: int, reason: str) -> None:
    """For the passes beside the one that tells."""


def write(
    questions: Questions,
    file: str,
    tokenizer: BertTokenizer,
    rules: WindowRules,
    aside: TextIO,
    progress: Callable[[int], None] = lambda questions: None,
) -> Split:
    """Writes the examples, and into `aside` what cannot be used. Raises InputError where no question is usable."""
    split = Split(file, questions.told)

    def set_aside(line: int, reason: str) -> None:
        split.set_aside += 1
        split.tell("set_aside", f"{questions.path}:{line} {reason}")
        aside.write(f"{questions.path}\t{line}\t{' '.join(reason.split())}\n")

    scratch = f"{file}.{os.getpid()}.tmp"
    usable = _with_answers(split, questions.rows(set_aside), set_aside)
    with open(scratch, "wb") as stream:
        while chunk := list(itertools.islice(usable, MOST_QUESTIONS)):
            stream.write(tfrecord.frame(_serialized(split, chunk, tokenizer, rules, set_aside)))
            progress(split.questions)
    os.replace(scratch, file)
    first = next((place for places in split.places.values() for place in places), "none")
    require(split.questions > 0, f"{questions.path}: there must be usable questions", first)
    return split


def _with_answers(
    split: Split, questions: Iterable[Question], set_aside: squad.SetAside
) -> Iterator[tuple[Question, int, int]]:
    """(question, where its answer begins and ends in the context); -1 where it has none."""
    for question in questions:
        if not question.answers:
            yield question, -1, -1
        elif (start := squad.located(question.context, answer := question.answers[0])) is None:
            set_aside(question.line, f"the answer {answer.text[:40]!r} is not in its context (id {question.id[:40]})")
        else:
            if answer.start not in (None, start):
                split.moved += 1
                split.tell("moved", f"{question.place} from {answer.start} to {start}")
            yield question, start, start + len(answer.text)


def _serialized(split, chunk, tokenizer, rules, set_aside) -> list[bytes]:
    """Of the windows of some questions."""
    texts: dict[str, int] = {}  # a context has many questions
    for question, _, _ in chunk:
        texts.setdefault(question.context, len(texts))
    contexts = tokenizer.tokenize_with_offsets(list(texts))
    splits = contexts.ids.row_splits.numpy()
    char_starts, char_ends = contexts.char_starts.values.numpy(), contexts.char_ends.values.numpy()
    kept, answers = [], []
    for question, start, end in chunk:
        row = texts[question.context]
        first, last = _tokens(start, end, *(ends[splits[row] : splits[row + 1]] for ends in (char_starts, char_ends)))
        if start >= 0 and first > last:
            set_aside(question.line, f"its answer has no token (id {question.id[:40]})")
            continue
        kept.append(question)
        answers.append((first, last))
        split.impossible += start < 0
    if not kept:
        return []
    ids = tokenizer.tokenize([question.question for question in kept])
    asked = ids.row_splits.numpy()
    rows = np.array([texts[question.context] for question in kept])
    found = windows.cut(np.diff(asked), np.diff(splits)[rows], rules)
    arrays = windows.pack(
        found,
        (ids.values.numpy(), asked[:-1]),
        (contexts.ids.values.numpy(), splits[:-1][rows]),
        rules.max_seq_length,
        (tokenizer.cls_id, tokenizer.sep_id, tokenizer.pad_id),
    )
    positions = _positions(found, np.array(answers))
    split.questions += len(kept)
    split.rows += len(found.rows)
    split.answered += int((positions[:, 0] > 0).sum())
    split.cut += int((np.diff(asked) > found.kept).sum())
    split.tokens += int(arrays[features.INPUT_MASK].sum())
    places = {features.START_POSITIONS: positions[:, :1], features.END_POSITIONS: positions[:, 1:]}
    return encoding.serialize(arrays | places)


def _tokens(start: int, end: int, char_starts: np.ndarray, char_ends: np.ndarray) -> tuple[int, int]:
    """The first and the last token of a context that share a character with its part from `start` to `end`; the first
    is behind the last where none does."""
    first = int(np.searchsorted(char_ends, start, "right"))
    return first, int(np.searchsorted(char_starts, end, "left")) - 1


def _positions(found: windows.Windows, answers: np.ndarray) -> np.ndarray:
    """int64 [W, 2]: the answer's first and last position in each window, 0 where not all of it is in it. `answers`: the
    same among the context's tokens, [B, 2], the first behind the last or -1 where there is none."""
    first, last = answers[found.rows].T - found.starts
    inside = (first >= 0) & (last < found.lengths) & (first <= last)
    offset = found.kept[found.rows] + 2
    return np.where(inside, np.stack([first, last]) + offset, 0).T.astype(np.int64)
