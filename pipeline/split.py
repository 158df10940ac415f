"""Which documents are held out: a pure function of their content, so none stands on both sides, however often the
corpus is re-ordered, re-sharded or extended."""

from typing import Protocol

NAMES = ("train", "eval")


class _HasId(Protocol):
    id: bytes


def partition(document: _HasId, num_partitions: int, eval_share: float) -> int:
    """Index into NAMES, for beam.Partition; the id is a uniform hash of the content."""
    return int(int.from_bytes(document.id[:8], "big") < eval_share * 2**64)
