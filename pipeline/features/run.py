"""From tables to files of vectors, and to figures."""

import contextlib
import math
import pathlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from pipeline import terminal
from pipeline.features import files, judging
from pipeline.features.choices import Choice
from pipeline.features.sources import Source
from pipeline.features.vectors import Counted, Encoded, encoded
from preprocessing.errors import InputError, require
from preprocessing.tasks.tables import Row, Table

Tell = Callable[[str], None]
Found = tuple[Choice, dict[str, float]]  # figures of a choice


class Tables:
    """Tables whose rows have been counted; what should be known of them is told."""

    def __init__(self, tables: Sequence[Table], tell: Tell):
        self.tables, self.tell = tables, tell
        self.counts = [Counted.of(table) for table in tables]
        for table, counted in zip(tables, self.counts, strict=True):
            tell(f"{table.told}; {counted.rows:,} rows")
            if counted.aside.count:
                tell(f"{counted.aside.count:,} rows cannot be used and have no vector: {counted.aside}")
            require(counted.rows > 0, f"{table.path}: a table must have usable rows", "none")

    def rows(self, number: int) -> Iterator[Row]:
        return self.tables[number].rows(lambda line, reason: None)  # told above

    def encoded(self, number: int, source: Source, choices: Sequence[Choice], pairs: bool) -> Iterator[Encoded]:
        """The rows of a table by the choices, in order."""
        widths, ask, cut = [choice.width(source.hidden) for choice in choices], source.ask(choices), 0
        with terminal.Progress("Encoding", total=self.counts[number].rows, unit="rows") as progress:
            for part in encoded(self.rows(number), ask, widths, pairs, progress.update):
                cut += part.cut
                yield part
        if cut:
            self.tell(f"{self.tables[number].path}: {cut:,} texts have more tokens than the model takes, and were cut")


def straight(
    tables: Tables,
    source: Source,
    choices: Sequence[Choice],
    output: str | None,
    made: Mapping[str, str],
    pairs: bool,
    labelled: bool,
) -> list[Found]:
    """The first table's vectors, or of pairs their cosines, by the first choice into `output`; with labels, how far
    cosines go with them, by each choice. Raises InputError for a label that is no number."""
    gold = np.array([_number(row) for row in tables.rows(0)]) if labelled else None
    cosines: list[list[np.ndarray]] = [[] for _ in choices]
    with contextlib.ExitStack() as held:
        if output is not None:
            width = None if pairs else choices[0].width(source.hidden)
            add = held.enter_context(_file(output, tables.counts[0], width, made))
        for part in tables.encoded(0, source, choices, pairs):
            if output is not None:
                add([row.line for row in part.rows], part.by_choice[0])
            if labelled:
                for of_choice, values in zip(cosines, part.by_choice, strict=True):
                    of_choice.append(values)
    if gold is None:
        return []
    known = ~np.isnan(gold)
    if not known.all():
        tables.tell(f"{(~known).sum():,} rows have no label and are left out of the correlations")
    return [
        (choice, judging.agreement(np.concatenate(of_choice)[known], gold[known]))
        for choice, of_choice in zip(choices, cosines, strict=True)
    ]


def _file(output, counted, width, made):
    if counted.aside.count and output.endswith(".npy"):
        raise InputError(
            f"{output}: in .npy a vector's place is all that says whose it is, so that each row must have one; write "
            f".parquet, or mend the rows. Received: {counted.aside.count:,} rows without"
        )
    return files.written(output, counted.rows, width, made)


def _number(row: Row) -> float:
    """The label; nan without one."""
    try:
        value = math.nan if row.label is None else float(row.label)
    except ValueError:
        value = math.inf
    if math.isinf(value) or (math.isnan(value) and row.label is not None):
        raise InputError(f"{row.place}: the label of a pair must be a number. Received: {row.label!r}")
    return value


def fitted(
    tables: Tables, source: Source, choices: Sequence[Choice], seed: int
) -> tuple[list[str], list[tuple[Choice, judging.Judged]]]:
    """(the labels, what a logistic regression on each choice comes to): trained on the first table; tested on the
    second or, without one, on a part of the first. The vectors of one choice are in memory, those of all on disk."""
    labels = [[row.label for row in tables.rows(number)] for number in range(len(tables.tables))]
    there = np.array([place for place, label in enumerate(labels[0]) if label is not None], int)
    if missing := len(labels[0]) - len(there):
        tables.tell(f"{missing:,} rows have no label and are left out of the regression")
    names, train, test = judging.numbered([label for label in labels[0] if label is not None], labels[-1])
    rest, taken = np.arange(len(train)), np.arange(len(test))
    if len(labels) == 1:
        rest, taken = judging.parted(train, judging.TESTED_ON, seed)
        test, taken = train[taken], there[taken]
    require(len(test) > 0, "a logistic regression needs rows to be tested on; name a --test", "none")
    tables.tell(f"{len(rest):,} rows of train, {len(test):,} of test, {len(names)} labels")
    if others := int((test == len(names)).sum()):
        tables.tell(f"{others:,} rows of test have none of the labels of train and count as errors")
    found = []
    with tempfile.TemporaryDirectory(prefix="bert-features-") as folder:
        paths = [_stored(tables, number, source, choices, folder) for number in range(len(labels))]
        with terminal.Progress("Regression", total=len(choices), unit="choices") as progress:
            for place, choice in enumerate(choices):
                of_train = np.load(paths[0][place], mmap_mode="r")[there[rest]]
                of_test = np.load(paths[-1][place], mmap_mode="r")[taken]
                found.append((choice, judging.logistic(of_train, train[rest], of_test, test, seed)))
                progress.update(place + 1)
    return names, found


def _stored(tables: Tables, number: int, source: Source, choices: Sequence[Choice], folder: str) -> list[pathlib.Path]:
    """Files of a table's vectors, one for each choice."""
    paths = [pathlib.Path(folder, f"{number}-{place}.npy") for place in range(len(choices))]
    rows = tables.counts[number].rows
    with contextlib.ExitStack() as held:
        each = zip(paths, choices, strict=True)
        adds = [held.enter_context(files.written(path, rows, choice.width(source.hidden))) for path, choice in each]
        for part in tables.encoded(number, source, choices, False):
            for add, vectors in zip(adds, part.by_choice, strict=True):
                add([], vectors)
    return paths
