"""Tables of texts and labels -> files of examples of a classification, with what is to be known of them.

A table is read twice and never held: once for its labels and for texts that train and dev share, once to be written.
"""

import collections
import dataclasses
import hashlib
import itertools
import json
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from preprocessing import features, tfrecord
from preprocessing.errors import InputError, require, require_one_of
from preprocessing.examples import encoding
from preprocessing.features import Long
from preprocessing.storage import write_whole
from preprocessing.tasks.packing import pack
from preprocessing.tasks.tables import Row, Table
from preprocessing.tokenizer import BertTokenizer

MAX_LABELS = 10_000  # more are no labels but texts or ids
MOST_ROWS = 1024  # encoded at once
SHOWN = 3  # places that are told of each kind of fault
VERSION = 1  # of what is written of the same tables


@dataclasses.dataclass
class Split:
    """What is in a file of examples.

    Attributes:
        file: of tf.Examples as `features.classified` says, in the table's order.
        told: how the table was read.
        counts: rows by label.
        unlabelled, unknown: rows of dev without a label, and with one that train does not have.
        cut: rows with more tokens than the model is given.
        tokens: that it is given.
        set_aside: rows that cannot be used.
        places: for each kind of fault, the first places of it and what is wrong.
    """

    file: str
    told: str
    rows: int = 0
    counts: list[int] = dataclasses.field(default_factory=list)
    unlabelled: int = 0
    unknown: int = 0
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
    """The files of a run, and the labels in the order of their numbers. `leaked`: rows of dev whose text, or pair, is
    in train too; `leaked_places`: the first of them."""

    labels: list[str]
    train: Split
    dev: Split
    leaked: int
    leaked_places: list[str]

    def notes(self) -> Iterator[str]:
        """What a person should know of the data, a line each."""
        yield from (self.train.told, self.dev.told)
        for split, name in ((self.train, "train"), (self.dev, "dev")):
            for kind, count, what in (
                ("set_aside", split.set_aside, "rows cannot be used"),
                ("unlabelled", split.unlabelled, "rows have no label and count as errors"),
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
    labels: Sequence[str] | None = None,
    progress: Callable[[int], None] = lambda rows: None,
) -> Prepared:
    """Writes the examples of both tables into `folder`, or finds those that the same tables and settings gave before.

    Args:
        labels: declared, else those of train, sorted.
        progress: called with the number of rows that are written.

    Raises InputError where train has no two classes or a label that is not declared, or a table no usable row. Rows
    that cannot be used are listed in `set_aside.tsv`.
    """
    require_one_of(Long, "long", long)
    require(max_seq_length >= 8, "max_seq_length must be at least 8", max_seq_length)
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    name = fingerprint(train, dev, tokenizer, max_seq_length, long, labels)
    report = folder / f"{name}.json"
    if report.is_file():
        found = json.loads(report.read_text())
        known = Prepared(train=Split(**found.pop("train")), dev=Split(**found.pop("dev")), **found)
        for split in (known.train, known.dev):  # the folder may have been moved
            split.file = str(folder / os.path.basename(split.file))
        if os.path.isfile(known.train.file) and os.path.isfile(known.dev.file):
            return known
    train_split, dev_split = (
        Split(str(folder / f"{name}-{part}.tfrecord"), table.told) for part, table in (("train", train), ("dev", dev))
    )
    dev_texts = collections.Counter(_key(row) for row in dev.rows(_ignored))
    counts, shared = _labels_and_shared(train, dev_texts, labels)
    prepared = Prepared(
        list(labels or sorted(counts)), train_split, dev_split, sum(dev_texts[key] for key in shared), []
    )
    require(
        sum(count > 0 for count in counts.values()) > 1,
        f"{train.path}: training needs at least two classes",
        ", ".join(counts) or "no labelled row",
    )
    if prepared.leaked:
        leaked = (row.place for row in dev.rows(_ignored) if _key(row) in shared)
        prepared.leaked_places = list(itertools.islice(leaked, SHOWN))
    encode = _Encoder(tokenizer, prepared.labels, max_seq_length, long == "head-tail")
    scratch = folder / f"{name}-set_aside.tsv"
    with scratch.open("w") as aside:
        for split, table in ((train_split, train), (dev_split, dev)):
            encode.write(split, table, split is train_split, aside, progress)
            require(split.rows > 0, f"{table.path}: a table must have usable rows", _first(split) or "none")
    write_whole(json.dumps(dataclasses.asdict(prepared)), report)
    return prepared


def _ignored(line: int, reason: str) -> None:
    """For the passes that come before the one that tells."""


def _first(split: Split) -> str:
    return next((place for places in split.places.values() for place in places), "")


def _labels_and_shared(train, dev_texts, declared) -> tuple[collections.Counter[str], set[bytes]]:
    """(train's rows by label, the texts of dev that train has)"""
    counts: collections.Counter[str] = collections.Counter(dict.fromkeys(declared or (), 0))
    shared = set()
    for row in train.rows(_ignored):
        if row.label is None:
            continue
        if declared is not None and row.label not in counts:
            raise InputError(
                f"{row.place}: a label must be one of those declared ({_some(declared)}). Received: {row.label!r}"
            )
        counts[row.label] += 1
        if len(counts) > MAX_LABELS:
            raise InputError(
                f"{row.place}: more than {MAX_LABELS:,} different labels; name the column of the labels with --label"
            )
        if (key := _key(row)) in dev_texts:
            shared.add(key)
    return counts, shared


def _key(row: Row) -> bytes:
    return hashlib.blake2b(f"{row.text}\0{row.second or ''}".encode(), digest_size=12).digest()


def _alike(labels: Iterable[str]) -> list[list[str]]:
    groups = collections.defaultdict(list)
    for label in labels:
        groups["".join(label.split()).casefold()].append(label)
    return [group for group in groups.values() if len(group) > 1]


def _some(items: Sequence[str]) -> str:
    return f"{', '.join(items[:5])}{_more(len(items) - 5)}"


def _more(count: int) -> str:
    return f" and {count} more" if count > 0 else ""


def fingerprint(train, dev, tokenizer, *settings) -> str:
    """Of what examples are made from: two files, with what was found of them, a tokenizer, settings."""
    rules = (tokenizer.lower_case, tokenizer.longest_word, sorted(tokenizer.added.items()))
    digest = hashlib.sha256(repr((VERSION, rules, settings, train.told, dev.told)).encode())
    digest.update("\n".join(tokenizer.vocab).encode())
    for table in (train, dev):
        with open(table.path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        digest.update(b"\0")
    return digest.hexdigest()[:16]


class _Encoder:
    """Writes the rows of tables as examples."""

    def __init__(self, tokenizer: BertTokenizer, labels: list[str], length: int, head_tail: bool):
        self._numbers = {label: number for number, label in enumerate(labels)}
        self._pack = lambda first, second: pack(tokenizer, first, second, length, head_tail)

    def write(self, split: Split, table: Table, training: bool, aside, progress) -> None:
        """Writes the split's file and fills in what is in it."""
        split.counts = [0] * len(self._numbers)

        def set_aside(line: int, reason: str) -> None:
            split.set_aside += 1
            split.tell("set_aside", f"{table.path}:{line} {reason}")
            aside.write(f"{table.path}\t{line}\t{reason}\n")

        scratch = f"{split.file}.{os.getpid()}.tmp"
        rows = self._numbered(split, table, training, set_aside)
        with open(scratch, "wb") as file:
            while chunk := list(itertools.islice(rows, MOST_ROWS)):
                file.write(tfrecord.frame(self._encoded(split, chunk)))
                split.rows += len(chunk)
                progress(split.rows)
        os.replace(scratch, split.file)

    def _numbered(self, split, table, training, set_aside) -> Iterator[tuple[Row, int]]:
        """Rows with the numbers of their labels."""
        for row in table.rows(set_aside):
            number = self._numbers.get(row.label, len(self._numbers))
            if number < len(self._numbers):
                split.counts[number] += 1
            elif training:  # what is declared has been checked
                set_aside(row.line, "has no label")
                continue
            elif row.label is None:
                split.unlabelled += 1
                split.tell("unlabelled", row.place)
            else:
                split.unknown += 1
                split.tell("unknown", f"{row.place} {row.label!r}")
            yield row, number

    def _encoded(self, split: Split, chunk: list[tuple[Row, int]]) -> list[bytes]:
        rows = [row for row, _ in chunk]
        pairs = rows[0].second is not None
        arrays, cut = self._pack([row.text for row in rows], [row.second or "" for row in rows] if pairs else None)
        split.cut += int(cut.sum())
        split.tokens += int(arrays[features.INPUT_MASK].sum())
        return encoding.serialize(arrays | {features.LABEL_IDS: np.array([[number] for _, number in chunk])})
