"""Tables of texts and labels -> files of examples, with what is to be known of them.

A table is read twice and never held: once for its labels and for texts that train and dev share, once to be written.
"""

import collections
import dataclasses
import itertools
import json
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from preprocessing import features, tfrecord
from preprocessing.errors import require, require_one_of
from preprocessing.examples import encoding
from preprocessing.features import Long
from preprocessing.storage import write_whole
from preprocessing.tasks.labelling import Labelling, Score
from preprocessing.tasks.leakage import Ids, Leakage
from preprocessing.tasks.leakage import key as leakage_key
from preprocessing.tasks.packing import pack, pack_apart, pack_windows
from preprocessing.tasks.splits import SHOWN, Split, earlier, fingerprint, ignored
from preprocessing.tasks.tables import Row, Table
from preprocessing.tokenizer import BertTokenizer

MOST_ROWS = 1024  # encoded at once
VERSION = 2  # of what is written of the same tables


@dataclasses.dataclass
class TableSplit(Split):
    """What is in a file of examples of a table.

    Attributes:
        texts: how many rows of the table they are of; fewer, where a text has several windows.
        counts: texts by label.
        unlabelled, unknown: rows without a label, which train has for a teacher alone, and rows of dev with one that
            train does not have.
    """

    texts: int = 0
    counts: list[int] = dataclasses.field(default_factory=list)
    unlabelled: int = 0
    unknown: int = 0


@dataclasses.dataclass
class Prepared:
    """The files of a run, and the labels in the order of their numbers. `leaked`: rows of dev whose text, or pair, is
    in train too; `leaked_places`: the first of them; `mean`, `scale`, `least` and `most` of train's scores."""

    labels: list[str]
    train: TableSplit
    dev: TableSplit
    leaked: int
    leaked_places: list[str]
    mean: float = 0.0
    scale: float = 1.0
    least: float = 0.0
    most: float = 1.0

    def notes(self) -> Iterator[str]:
        """What a person should know of the data, a line each."""
        yield from (self.train.told, self.dev.told)
        for split, name, counted in (
            (self.train, "train", "are learned from the teacher alone"),
            (self.dev, "dev", "count as errors"),
        ):
            for kind, count, what in (
                ("set_aside", split.set_aside, "rows cannot be used"),
                ("repeated", split.repeated, "rows have the id of a row before them"),
                ("unlabelled", split.unlabelled, f"rows have no label and {counted}"),
                ("unknown", split.unknown, "rows have a label that train does not have and count as errors"),
            ):
                if count:
                    yield f"{name}: {count:,} {what}: {'; '.join(split.places[kind])}"
        if self.leaked:
            yield (
                f"{self.leaked:,} rows of dev have the text of a row of train, so that dev flatters: "
                f"{'; '.join(self.leaked_places)}"
            )
        for alike in _alike(self.labels):
            yield f"labels that differ by case or blanks alone are different classes: {', '.join(map(repr, alike))}"
        if empty := [label for label, count in zip(self.labels, self.train.counts, strict=True) if not count]:
            yield f"train has no row of {', '.join(map(repr, empty[:SHOWN]))}{_more(len(empty) - SHOWN)}"


def prepare(
    train: Table,
    dev: Table,
    tokenizer: BertTokenizer,
    folder: str | os.PathLike,
    *,
    max_seq_length: int,
    long: Long = "cut",
    labelling: Labelling,
    apart: bool = False,
    unlabelled: bool = False,
    progress: Callable[[int], None] = lambda rows: None,
) -> Prepared:
    """Writes the examples of both tables into `folder`, or finds those that the same tables and settings gave before.

    Args:
        labelling: what labels become.
        apart: whether each text of a pair is encoded by itself.
        unlabelled: whether rows of train without a label are kept, for a teacher to say what they are.
        progress: called with the number of rows that are written.

    Raises InputError where the labelling does, or a table has no usable row. Rows that cannot be used are listed in
    `set_aside.tsv`.
    """
    require_one_of(Long, "long", long)
    require(max_seq_length >= 8, "max_seq_length must be at least 8", max_seq_length)
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    more = ["apart"] * apart + ["unlabelled"] * unlabelled
    stated = (labelling.stated, *more) if more else labelling.stated
    name = fingerprint(train, dev, tokenizer, VERSION, max_seq_length, long, stated)
    report = folder / f"{name}.json"
    if known := earlier(report, Prepared, TableSplit):
        return known
    train_split, dev_split = (
        TableSplit(str(folder / f"{name}-{part}.tfrecord"), table.told)
        for part, table in (("train", train), ("dev", dev))
    )
    leakage = Leakage(_key(row) for row in dev.rows(ignored))
    for row in train.rows(ignored):
        labelling.learn(row)
        if row.label is not None:
            leakage.see(_key(row))
    labelling.learned(train.path)
    prepared = Prepared(labelling.labels, train_split, dev_split, leakage.rows, [])
    if isinstance(labelling, Score):
        for figure in ("mean", "scale", "least", "most"):
            setattr(prepared, figure, getattr(labelling, figure))
    if prepared.leaked:
        leaked = (row.place for row in dev.rows(ignored) if _key(row) in leakage)
        prepared.leaked_places = list(itertools.islice(leaked, SHOWN))
    encode = _Encoder(tokenizer, labelling, max_seq_length, long, apart, unlabelled)
    scratch = folder / f"{name}-set_aside.tsv"
    with scratch.open("w") as aside:
        for split, table in ((train_split, train), (dev_split, dev)):
            encode.write(split, table, split is train_split, aside, progress)
            require(split.rows > 0, f"{table.path}: a table must have usable rows", _first(split) or "none")
    write_whole(json.dumps(dataclasses.asdict(prepared)), report)
    return prepared


def _first(split: Split) -> str:
    return next((place for places in split.places.values() for place in places), "")


def _key(row: Row) -> int:
    return leakage_key(f"{row.text}\0{row.second or ''}")


def _alike(labels: Iterable[str]) -> list[list[str]]:
    groups = collections.defaultdict(list)
    for label in labels:
        groups["".join(label.split()).casefold()].append(label)
    return [group for group in groups.values() if len(group) > 1]


def _more(count: int) -> str:
    return f" and {count} more" if count > 0 else ""


class _Encoder:
    """Writes the rows of tables as examples."""

    def __init__(
        self, tokenizer: BertTokenizer, labelling: Labelling, length: int, long: Long, apart: bool, kept: bool
    ):
        self._tokenizer, self._labelling, self._length, self._long = tokenizer, labelling, length, long
        self._apart, self._kept = apart, kept

    def write(self, split: TableSplit, table: Table, training: bool, aside, progress) -> None:
        """Writes the split's file and fills in what is in it."""
        split.counts = [0] * len(self._labelling.labels)
        rows, ids = self._targets(split, table, training, split.aside(table.path, aside)), Ids()
        with split.written() as file:
            while chunk := list(itertools.islice(rows, MOST_ROWS)):
                for row, _ in chunk:
                    ids.see(row)
                file.write(tfrecord.frame(self._encoded(split, chunk)))
                split.texts += len(chunk)
                progress(split.texts)
        split.compare(ids, table.rows(ignored))

    def _targets(self, split, table, training, set_aside) -> Iterator[tuple[Row, Sequence[float]]]:
        """Rows with what their labels become."""
        for row in table.rows(set_aside):
            target, fault = self._labelling.target(row)
            taught = fault == "unlabelled" and self._kept
            if target is None or (training and fault and not taught):
                # What is declared has been checked, so that training lacks no label that is there.
                set_aside(row.line, fault if target is None else "has no label")
                continue
            for number in self._labelling.counted(target):
                split.counts[number] += 1
            if fault == "unlabelled":
                split.unlabelled += 1
                split.tell(fault, row.place)
            elif fault == "unknown":
                split.unknown += 1
                split.tell(fault, f"{row.place} {row.label!r}")
            yield row, target

    def _encoded(self, split: TableSplit, chunk: list[tuple[Row, Sequence[float]]]) -> list[bytes]:
        rows = [row for row, _ in chunk]
        pairs = rows[0].second is not None
        texts, row = [row.text for row in rows], np.arange(len(rows))
        if self._long == "windows" and not pairs:
            arrays, row, cut = pack_windows(self._tokenizer, texts, self._length)
        elif self._apart:
            arrays, cut = pack_apart(self._tokenizer, texts, [row.second or "" for row in rows], self._length)
        else:
            second = [row.second or "" for row in rows] if pairs else None
            arrays, cut = pack(self._tokenizer, texts, second, self._length, self._long == "head-tail")
        split.rows += len(row)
        split.cut += int(cut.sum())
        split.tokens += int(arrays[features.INPUT_MASK].sum())
        kind = np.int64 if self._labelling.feature == features.LABEL_IDS else np.float32
        targets = np.array([target for _, target in chunk], kind)
        return encoding.serialize(arrays | {self._labelling.feature: targets[row]})
