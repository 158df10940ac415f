"""Token files of a large corpus, written anew by groups of slots: so many that a pool reads a few files, not all.

Each worker spills documents of every slot, so with T tokens there are some T files and T pools, and T² readings. A
group gathers its slots from all files once; what a pool reads afterwards does not grow with the corpus. Here slots may
also be finer, `splits` for each: a pool is never smaller than a slot, so that memory stays bounded.
"""

import uuid
from collections.abc import Iterable, Iterator

import numpy as np
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from preprocessing.examples import spilling, token_store
from preprocessing.examples.spilling import SLOTS
from preprocessing.examples.token_store import TokenizedDocuments

GROUPS = 256
_SLOTS_OF_GROUP = SLOTS // GROUPS
MANY_FILES = 64  # fewer are read by each pool as they are
_FILE_TOKENS = 16_000_000  # some, of one file of a group: they take 64 MB


def regroup(paths: Iterable[str], group: int, splits: int, folder: str) -> Iterator[str]:
    """Writes the documents of one group, out of all token files, into files of its own; gives their names."""
    own = range(group * _SLOTS_OF_GROUP, (group + 1) * _SLOTS_OF_GROUP)
    held: list[TokenizedDocuments] = []
    tokens = 0
    for path in paths:
        for documents in spilling.read_slots(path, own):
            held.append(documents)
            tokens += len(documents.tokens)
        if tokens >= _FILE_TOKENS:
            yield _write(held, group, splits, folder)
            held, tokens = [], 0
    if held:
        yield _write(held, group, splits, folder)


def _write(held: list[TokenizedDocuments], group: int, splits: int, folder: str) -> str:
    slots = spilling.slot_of(np.concatenate([part.ids for part in held]), splits) - _first(group, splits)
    order = np.argsort(slots, kind="stable")
    path = FileSystems.join(folder, f"group-{group:03d}-{uuid.uuid4().hex}")
    with FileSystems.create(path, compression_type=CompressionTypes.UNCOMPRESSED) as handle:
        spilling.write_slots(handle, token_store.merge(held, order), slots[order], _SLOTS_OF_GROUP * splits)
    return path


def read(files: list[list[str]], slots: np.ndarray, splits: int) -> Iterator[TokenizedDocuments]:
    """The documents of the slots (ascending, fine) in the `files` of each group."""
    groups = slots // (_SLOTS_OF_GROUP * splits)
    for group in np.unique(groups).tolist():
        own = slots[groups == group] - _first(group, splits)
        for path in files[group]:
            yield from spilling.read_slots(path, own, _SLOTS_OF_GROUP * splits)


def _first(group: int, splits: int) -> int:
    return group * _SLOTS_OF_GROUP * splits
