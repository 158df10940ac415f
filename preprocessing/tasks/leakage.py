"""What rows have in common, in memory of some nine bytes a row, however long the texts are."""

import bisect
import hashlib
from array import array
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np


def key(text: str) -> int:
    """64 bits of a hash: two of a million different texts have the same one once in some ten million times."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


class Leakage:
    """Which of dev's keys train has, too."""

    def __init__(self, dev: Iterable[int]):
        keys, counts = np.unique(np.fromiter(dev, np.uint64), return_counts=True)
        self._keys, self._counts = array("Q", keys.tobytes()), counts
        self._seen = np.zeros(len(keys), bool)

    def see(self, key: int) -> None:
        """One of train's."""
        place = self._place(key)
        if place is not None:
            self._seen[place] = True

    def __contains__(self, key: int) -> bool:
        """Whether it is of dev and was seen in train."""
        place = self._place(key)
        return place is not None and bool(self._seen[place])

    @property
    def rows(self) -> int:
        """How many of dev have a key of train."""
        return int(self._counts[self._seen].sum())

    def _place(self, key: int) -> int | None:
        place = bisect.bisect_left(self._keys, key)
        return place if place < len(self._keys) and self._keys[place] == key else None


class Ids:
    """Which rows have the id of a row before them."""

    def __init__(self):
        self._keys = array("Q")

    def see(self, row: Any) -> None:
        if row.id is not None:
            self._keys.append(key(row.id))

    @property
    def repeated(self) -> int:
        return len(self._keys) - len(np.unique(self._keys))

    def places(self, rows: Iterable[Any]) -> Iterator[str]:
        """Where they stand. `rows`: those that were seen, once more."""
        keys, counts = np.unique(self._keys, return_counts=True)
        several, seen = set(keys[counts > 1].tolist()), set()
        for row in rows if several else ():
            name = row.id and key(row.id)
            if name in seen:
                yield f"{row.place} {row.id!r}"
            elif name in several:
                seen.add(name)
