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
from preprocessing.tasks.splits import SHOWN, Split, earlier, fingerprint, ignored
from preprocessing.tasks.squad import Question, Questions
from preprocessing.tasks.windows import WindowRules
from preprocessing.tokenizer import BertTokenizer

MOST_QUESTIONS = 512  # encoded at once
VERSION = 1  # of what is written of the same files


@dataclasses.dataclass
class QuestionSplit(Split):
    """What is in a file of examples, `features.ANSWERED`, which are windows; `cut` are questions with more tokens than
    a window has room for.

    Attributes:
        answered: windows that hold an answer.
        questions: of them all; `impossible` of these have no answer.
        moved: answers that are not where the file says, but elsewhere in the context.
    """

    answered: int = 0
    questions: int = 0
    impossible: int = 0
    moved: int = 0


@dataclasses.dataclass
class Prepared:
    """The files of a run. `leaked`: questions of dev that train asks of the same context; `leaked_places`: the first of
    them."""

    train: QuestionSplit
    dev: QuestionSplit
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
    if known := earlier(report, Prepared, QuestionSplit):
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
    known = {hash((question.question, question.context)) for question in train.rows(ignored)}
    return (question for question in dev.rows(ignored) if hash((question.question, question.context)) in known)


def write(
    questions: Questions,
    file: str,
    tokenizer: BertTokenizer,
    rules: WindowRules,
    aside: TextIO,
    progress: Callable[[int], None] = lambda questions: None,
) -> QuestionSplit:
    """Writes the examples, and into `aside` what cannot be used. Raises InputError where no question is usable."""
    split = QuestionSplit(file, questions.told)
    set_aside = split.aside(questions.path, aside)
    usable = _with_answers(split, questions.rows(set_aside), set_aside)
    with split.written() as stream:
        while chunk := list(itertools.islice(usable, MOST_QUESTIONS)):
            stream.write(tfrecord.frame(_serialized(split, chunk, tokenizer, rules, set_aside)))
            progress(split.questions)
    first = next((place for places in split.places.values() for place in places), "none")
    require(split.questions > 0, f"{questions.path}: there must be usable questions", first)
    return split


def _with_answers(
    split: QuestionSplit, questions: Iterable[Question], set_aside: squad.SetAside
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
