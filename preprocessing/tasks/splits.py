"""What the files of examples of every kind of task have in common: what is told of one, how they are found again."""

import contextlib
import dataclasses
import hashlib
import itertools
import json
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO, TextIO, TypeVar

from preprocessing import storage
from preprocessing.tasks.leakage import Ids
from preprocessing.tokenizer import BertTokenizer

SHOWN = 3  # places that are told of each kind of fault
Prepared = TypeVar("Prepared")


@dataclasses.dataclass
class Split:
    """What is in a file of examples.

    Attributes:
        file: of tf.Examples, in the order of its source.
        told: how that was read.
        rows: how many examples.
        cut: what has more tokens than the model is given at once.
        tokens: that it is given.
        set_aside: what cannot be used.
        repeated: what has the id of something before it.
        places: for each kind of fault, the first places of it and what is wrong.
    """

    file: str
    told: str
    rows: int = 0
    cut: int = 0
    tokens: int = 0
    set_aside: int = 0
    repeated: int = 0
    places: dict[str, list[str]] = dataclasses.field(default_factory=dict)

    def tell(self, kind: str, place: str) -> None:
        shown = self.places.setdefault(kind, [])
        if len(shown) < SHOWN:
            shown.append(place)

    def aside(self, path: str, listed: TextIO) -> Callable[[int, str], None]:
        """What is called with (line, reason) of whatever in `path` cannot be used: it counts and lists it."""

        def set_aside(line: int, reason: str) -> None:
            self.set_aside += 1
            self.tell("set_aside", f"{path}:{line} {reason}")
            listed.write(f"{path}\t{line}\t{' '.join(reason.split())}\n")

        return set_aside

    def compare(self, ids: Ids, rows: Iterable[Any]) -> None:
        """Notes which of the rows, whose ids were seen, have one twice."""
        self.repeated = ids.repeated
        for place in itertools.islice(ids.places(rows), SHOWN):
            self.tell("repeated", place)

    @contextlib.contextmanager
    def written(self) -> Iterator[BinaryIO]:
        """Its file, which gets its name when it is whole."""
        scratch = f"{self.file}.{os.getpid()}.tmp"
        with open(scratch, "wb") as stream:
            yield stream
        os.replace(scratch, self.file)


def ignored(line: int, reason: str) -> None:
    """For the passes beside the one that tells."""


def fingerprint(train, dev, tokenizer: BertTokenizer, *settings) -> str:
    """Of all that decides the examples of two sources, which have a `path` and what is `told` of them."""
    rules = (tokenizer.lower_case, tokenizer.longest_word, sorted(tokenizer.added.items()))
    digest = hashlib.sha256(repr((rules, settings, train.told, dev.told)).encode())
    digest.update("\n".join(tokenizer.vocab).encode())
    for source in (train, dev):
        with open(storage.local(source.path), "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        digest.update(b"\0")
    return digest.hexdigest()[:16]


def earlier(report: pathlib.Path, prepared: type[Prepared], split: type[Split]) -> Prepared | None:
    """What an earlier run has prepared and told in `report`; None where not all of it is there."""
    if not report.is_file():
        return None
    found = json.loads(report.read_text())
    for part in ("train", "dev"):
        found[part] = split(**found[part])
        found[part].file = str(report.parent / os.path.basename(found[part].file))  # the folder may have been moved
        if not os.path.isfile(found[part].file):
            return None
    return prepared(**found)
