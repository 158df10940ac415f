"""Part of a large dev, on which the best model is chosen while training goes on."""

import hashlib
import heapq
import os
import pathlib
from collections.abc import Iterator

from preprocessing import tfrecord


def sampled(file: str, count: int) -> str:
    """A file of examples beside `file` with `count` of its own, in their order. Which these are depends on what is in
    the examples alone; memory is that of their hashes."""
    path = pathlib.Path(file)
    target = path.with_name(f"{path.stem}-{count}{path.suffix}")
    if not target.exists():
        hashes = ((hashlib.blake2b(record, digest_size=12).digest(), place) for place, record in _records(file))
        chosen = {place for _, place in heapq.nsmallest(count, hashes)}
        scratch = target.with_name(f"{target.name}.{os.getpid()}.tmp")
        with scratch.open("wb") as stream:
            for place, record in _records(file):
                if place in chosen:
                    stream.write(tfrecord.frame([record]))
        scratch.replace(target)
    return str(target)


def _records(file: str) -> Iterator[tuple[int, bytes]]:
    with open(file, "rb") as stream:
        yield from enumerate(tfrecord.records(stream))
