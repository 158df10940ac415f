"""Phrases that are masked whole, as ERNIE 1.0 does it (Sun et al. 2019, arXiv 1904.09223): a list of them, and where
they stand in rows of token ids.

A phrase is known by its pieces and stands between borders of words. At each word the longest that begins there counts,
and of two that overlap the first. One look through a row costs by what stands in it, hardly by how long the list is.

Shapes: N examples, L length, K phrases of n pieces.
"""

import collections
import dataclasses
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from preprocessing import storage
from preprocessing.errors import InputError
from preprocessing.examples import counter_random

SET_ASIDE = "phrases_set_aside.jsonl"  # beside what was made
LONGEST = 63  # pieces: the lengths of the phrases that begin with a token are the bits of one number

Ints = npt.NDArray[np.integer]
Bools = npt.NDArray[np.bool_]


@dataclasses.dataclass(frozen=True)
class _Alike:
    """Phrases of one length: `pieces` int32 [K, n], in the order of their `hashes` uint64 [K]."""

    pieces: Ints
    hashes: npt.NDArray[np.uint64]


class Phrases:
    """Finds phrases, each given as its token ids (1 to LONGEST of them)."""

    def __init__(self, phrases: Iterable[Sequence[int]], vocab_size: int):
        by_length = collections.defaultdict(set)
        for phrase in phrases:
            by_length[len(phrase)].add(tuple(phrase))
        self._begins = np.zeros(vocab_size, np.uint64)
        self._alike = []  # longest first
        for length in sorted(by_length, reverse=True):
            pieces = np.array(sorted(by_length[length]), np.int32)
            hashes = _hashes(pieces)
            order = np.argsort(hashes, kind="stable")
            self._alike.append(_Alike(pieces[order], hashes[order]))
            self._begins[pieces[:, 0]] |= np.uint64(1 << length)

    def lengths(self, input_ids: Ints, starts: Bools, inside: Bools) -> npt.NDArray[np.int64]:
        """[N, L]: how many pieces the phrase has that begins there, 0 where none does. `starts`: a word begins there;
        `inside`: a word goes on there."""
        found = np.zeros(input_ids.shape, np.int64)
        row, column = np.nonzero(starts & (self._begins[input_ids] > 0))
        begins = self._begins[input_ids[row, column]]
        after = np.pad(inside, ((0, 0), (0, 1)))
        for alike in self._alike:
            length = alike.pieces.shape[1]
            ends = column + length
            at = np.flatnonzero((begins >> np.uint64(length) & np.uint64(1)) > 0)
            at = at[ends[at] <= input_ids.shape[1]]
            at = at[~after[row[at], ends[at]]]
            windows = input_ids[row[at, None], column[at, None] + np.arange(length)]
            place = np.minimum(np.searchsorted(alike.hashes, _hashes(windows)), len(alike.hashes) - 1)
            at = at[(alike.pieces[place] == windows).all(axis=1)]
            found[row[at], column[at]] = length
            begins[at] = 0  # a shorter one does not count
        free = np.zeros(len(input_ids), np.int64)  # from which column on no phrase stands yet
        for here in np.flatnonzero(found.any(axis=0)):
            found[free > here, here] = 0
            free = np.maximum(free, here + found[:, here])
        return found


def inside(lengths: npt.NDArray[np.int64]) -> Bools:
    """[N, L]: whether a phrase, of those that `Phrases.lengths` gave, goes on there."""
    edges = np.zeros((len(lengths), lengths.shape[1] + 1), np.int8)
    row, column = np.nonzero(lengths > 1)
    edges[row, column + 1] = 1
    edges[row, column + lengths[row, column]] = -1
    return np.cumsum(edges, axis=1)[:, :-1] > 0


def _hashes(pieces: Ints) -> npt.NDArray[np.uint64]:
    """Of rows of token ids [M, n]."""
    places = np.arange(1, pieces.shape[1] + 1, dtype=np.uint64)
    return np.bitwise_xor.reduce(counter_random.bits(pieces.astype(np.uint64), places), axis=1)


@dataclasses.dataclass(frozen=True)
class PhraseList:
    """A file of phrases: the token ids of each that can be used; how many `lines` it has, blank ones aside, and which
    of them were `set_aside` (file, line, reason, text)."""

    pieces: list[tuple[int, ...]]
    lines: int
    set_aside: list[dict[str, Any]]

    def report(self) -> dict[str, int]:
        return {"phrase_lines": self.lines, "phrase_lines_set_aside": len(self.set_aside)}

    def told(self) -> Iterator[str]:
        """In words, with the first line set aside."""
        if self.set_aside:
            first = self.set_aside[0]
            yield (
                f"{len(self.set_aside):,} of {self.lines:,} lines of the list of phrases are set aside; the first is "
                f"{first['file']}:{first['line']}: {first['reason']}"
            )

    def write_set_aside(self, path: str) -> None:
        """A line of JSON for each, as that of the corpus has it."""
        storage.write_whole("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in self.set_aside), path)

    def fingerprint(self) -> str:
        """Of the phrases, whatever their order."""
        return f"{counter_random.named_key(*sorted(self.pieces)):016x}"


def read(path: str) -> bytes:
    """The file of a list. Raises InputError where it cannot be read."""
    try:
        return storage.read(path)
    except OSError as error:
        raise InputError(f"{path}: the list of phrases cannot be read ({error.strerror or error})") from error


def load(path: str, tokenizer, longest: int = LONGEST) -> PhraseList:
    """Reads a list: UTF-8, a phrase a line, tokenized as all text is (`tokenizer`: a BertTokenizer). A line without
    pieces, with a word that the vocabulary does not know, with more than `longest` pieces, or with those of an earlier
    line, is set aside. Raises InputError where none is left."""
    longest = min(longest, LONGEST)
    numbers, texts = [], []
    set_aside: list[dict[str, Any]] = []

    def refuse(number: int, reason: str, text: str) -> None:
        set_aside.append({"file": path, "line": number, "reason": reason, "text": text[:1000]})

    for number, line in enumerate(read(path).removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        try:
            text = line.decode().strip()
        except UnicodeDecodeError:
            refuse(number, "not UTF-8", line.decode(errors="backslashreplace"))
            continue
        if text:
            numbers.append(number)
            texts.append(text)
    lines = len(texts) + len(set_aside)
    earlier: dict[tuple[int, ...], int] = {}
    rows = tokenizer.tokenize(texts)
    ends = np.cumsum(rows.row_lengths().numpy()).tolist()
    flat = rows.values.numpy().tolist()
    for number, text, (start, end) in zip(numbers, texts, itertools.pairwise([0, *ends]), strict=True):
        pieces = tuple(flat[start:end])
        if not pieces:
            refuse(number, "nothing is left of it when it is tokenized", text)
        elif tokenizer.unk_id in pieces:
            refuse(number, "a word of it is [UNK] to the vocabulary", text)
        elif len(pieces) > longest:
            refuse(number, f"{len(pieces)} pieces, more than the {longest} that can be masked together", text)
        elif pieces in earlier:
            refuse(number, f"the pieces of line {earlier[pieces]}", text)
        else:
            earlier[pieces] = number
    set_aside.sort(key=lambda row: row["line"])
    if not earlier:
        reason = f"line {set_aside[0]['line']}: {set_aside[0]['reason']}" if set_aside else "no line"
        raise InputError(
            f"{path}: a list of phrases must have one, a line each, that can be masked. Received: {reason}"
        )
    return PhraseList(list(earlier), lines, set_aside)
