"""Tokenized documents as flat arrays, in memory and as bytes.

A corpus of tokenized documents never travels through Beam's shuffle: workers write it to temporary files, cut by
slot (a hash of the document's id), and only references to byte ranges are grouped. So no runner's memory holds it.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from preprocessing.corpus.documents import ID_TYPE

_HEADER = np.dtype("<i8")

Ints = npt.NDArray[np.integer]


@dataclasses.dataclass(frozen=True)
class TokenizedDocuments:
    """D documents of S sentences of T tokens, flat.

    ids [D] (16 bytes each); sentence_counts int32 [D], summing to S; sentence_lengths int32 [S], each positive, summing
    to T; tokens int32 [T].
    """

    ids: npt.NDArray[np.void]
    sentence_counts: Ints
    sentence_lengths: Ints
    tokens: Ints

    def token_counts(self) -> Ints:
        """Tokens of each document, int64 [D]."""
        ends = np.concatenate([[0], np.cumsum(self.sentence_lengths, dtype=np.int64)])
        return np.diff(ends[np.concatenate([[0], np.cumsum(self.sentence_counts, dtype=np.int64)])])

    def runs(self, labels: Ints) -> Iterator[tuple[int, "TokenizedDocuments"]]:
        """(label, documents) of each run of equal labels [D]."""
        if not len(labels):
            return
        sentence_ends = np.concatenate([[0], np.cumsum(self.sentence_counts, dtype=np.int64)])
        token_ends = np.concatenate([[0], np.cumsum(self.sentence_lengths, dtype=np.int64)])
        starts = [0, *(np.flatnonzero(labels[1:] != labels[:-1]) + 1).tolist()]
        for start, end in zip(starts, [*starts[1:], len(labels)], strict=True):
            first, last = sentence_ends[start], sentence_ends[end]
            yield (
                int(labels[start]),
                TokenizedDocuments(
                    self.ids[start:end],
                    self.sentence_counts[start:end],
                    self.sentence_lengths[first:last],
                    self.tokens[token_ends[first] : token_ends[last]],
                ),
            )

    def to_bytes(self) -> bytes:
        header = np.array([len(self.ids), len(self.sentence_lengths), len(self.tokens)], _HEADER)
        arrays = (a.astype("<i4", copy=False) for a in (self.sentence_counts, self.sentence_lengths, self.tokens))
        return b"".join([header.tobytes(), self.ids.tobytes(), *(a.tobytes() for a in arrays)])


def merge(parts: Sequence[TokenizedDocuments], order: Ints) -> TokenizedDocuments:
    """The documents of the parts, numbered from the first of the first part on, in the given order."""
    sentences, tokens = [], []
    for part in parts:
        counts = part.token_counts()
        sentences += _rows(part.sentence_lengths, part.sentence_counts)
        tokens += _rows(part.tokens, counts)
    at = order.tolist()
    return TokenizedDocuments(
        np.concatenate([part.ids for part in parts])[order],
        np.concatenate([part.sentence_counts for part in parts])[order],
        np.concatenate([np.zeros(0, np.int32), *(sentences[row] for row in at)]),
        np.concatenate([np.zeros(0, np.int32), *(tokens[row] for row in at)]),
    )


def _rows(values: npt.NDArray, lengths: Ints) -> list[npt.NDArray]:
    """Rows of a ragged array given as flat values and row lengths."""
    ends = np.cumsum(lengths, dtype=np.int64).tolist()
    return [values[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)] if ends else []


def concatenate(parts: Sequence[TokenizedDocuments]) -> TokenizedDocuments:
    """All documents of the parts, in order."""
    fields = [field.name for field in dataclasses.fields(TokenizedDocuments)]
    return TokenizedDocuments(*(np.concatenate([getattr(part, name) for part in parts]) for name in fields))


def from_bytes(data: bytes) -> Iterable[TokenizedDocuments]:
    """What `to_bytes` wrote, once or several times in a row."""
    at = 0

    def take(dtype, count):
        nonlocal at
        values = np.frombuffer(data, dtype, count, at)
        at += values.nbytes
        return values

    while at < len(data):
        documents, sentences, tokens = take(_HEADER, 3)
        yield TokenizedDocuments(
            take(ID_TYPE, documents), take("<i4", documents), take("<i4", sentences), take("<i4", tokens)
        )


class Pool:
    """Documents among which random next sentences are drawn: unique, in the order of their ids, whatever the order in
    which they came.

    `sentence_ends` int64 [S + 1]: sentence s is `tokens[sentence_ends[s]:sentence_ends[s + 1]]`. `first_sentence` and
    `end_sentence` int64 [D] delimit the sentences of each document.
    """

    def __init__(self, documents: TokenizedDocuments):
        self.ids, first = np.unique(documents.ids, return_index=True)
        self.duplicates = len(documents.ids) - len(self.ids)
        ends = np.cumsum(documents.sentence_counts, dtype=np.int64)
        self.end_sentence = ends[first]
        self.first_sentence = self.end_sentence - documents.sentence_counts[first]
        self.sentence_ends = np.concatenate([[0], np.cumsum(documents.sentence_lengths, dtype=np.int64)])
        self.tokens = documents.tokens
        self.token_counts = self.sentence_ends[self.end_sentence] - self.sentence_ends[self.first_sentence]

    def __len__(self) -> int:
        return len(self.ids)
