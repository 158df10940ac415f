"""Rows of a table -> vectors, in order, by a few thousand rows at a time, whatever the table.

Shapes: N rows, D numbers of a vector.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from pipeline.features.sources import Ask
from pipeline.finetuning.places import Places
from preprocessing.tasks.tables import Row, Table

FLOATS = 1 << 24  # of vectors that are held at once
MOST_ROWS = 4096  # that are held at once, so that texts of like length are encoded together
BATCH, CHARACTERS = 64, 16_384  # texts that are encoded at once, and what they may have together as they are padded


@dataclasses.dataclass
class Counted:
    """What is in a table. `aside`: rows that cannot be used, and why."""

    rows: int = 0
    aside: Places = dataclasses.field(default_factory=Places)

    @classmethod
    def of(cls, table: Table) -> "Counted":
        found = cls()

        def set_aside(line: int, reason: str) -> None:
            found.aside.add(f"{table.path}:{line} {reason}")

        found.rows = sum(1 for _ in table.rows(set_aside))
        return found


@dataclasses.dataclass(frozen=True)
class Encoded:
    """Rows with what was made of them by each choice: vectors float32 [N, D], of pairs the cosine [N]; and how many of
    their texts were cut."""

    rows: Sequence[Row]
    by_choice: Sequence[np.ndarray]
    cut: int


def encoded(
    rows: Iterable[Row], ask: Ask, widths: Sequence[int], pairs: bool, progress: Callable[[int], None]
) -> Iterator[Encoded]:
    """All rows in order. `widths`: D of each choice; `progress` is called with the number of rows that are done."""
    most = max(BATCH, min(MOST_ROWS, FLOATS // (sum(widths) * (1 + pairs))))
    rows, done = iter(rows), 0
    while held := list(itertools.islice(rows, most)):
        texts = [row.text for row in held]
        if pairs:
            texts += [row.second or "" for row in held]
        vectors = [np.empty((len(texts), width), np.float32) for width in widths]
        cut = 0
        for places in _batches(texts):
            found, truncated = ask([texts[place] for place in places])
            cut += int(truncated.sum())
            for array, values in zip(vectors, found, strict=True):
                array[places] = values
            done += len(places)
            progress(done // (1 + pairs))
        if pairs:
            vectors = [cosine(*np.split(array, 2)) for array in vectors]
        yield Encoded(held, vectors, cut)


def _batches(texts: Sequence[str]) -> Iterator[list[int]]:
    """Places of the texts, the longest first, so that what does not fit into memory is met at once."""
    places: list[int] = []
    for place in sorted(range(len(texts)), key=lambda place: -len(texts[place])):
        if len(places) == BATCH or (places and (len(places) + 1) * len(texts[places[0]]) > CHARACTERS):
            yield places
            places = []
        places.append(place)
    yield places


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """float32 [N] of [N, D] twice; 0 where a vector is 0."""
    a, b = a.astype(float), b.astype(float)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return ((a * b).sum(1) / np.where(lengths > 0, lengths, 1)).astype(np.float32)
