"""Tokenized documents as flat arrays, in memory and as bytes.

A corpus of tokenized documents never travels through Beam's shuffle: workers write it to temporary files, cut by
slot (a hash of the document's id), and only references to byte ranges are grouped. So no runner's memory holds it.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

ID_BYTES = 16
ID_TYPE = np.dtype((np.void, ID_BYTES))
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

    def take(self, order: Ints) -> "TokenizedDocuments":
        """The documents of the given rows, in that order."""
        return TokenizedDocuments(
            self.ids[order],
            self.sentence_counts[order],
            take_ragged(self.sentence_lengths, self.sentence_counts, order),
            take_ragged(self.tokens, self.token_counts(), order),
        )

    def runs(self, labels: Ints) -> Iterator[tuple[int, slice, "TokenizedDocuments"]]:
        """(label, rows, documents) of each run of equal labels [D]."""
        if not len(labels):
            return
        sentence_ends = np.concatenate([[0], np.cumsum(self.sentence_counts, dtype=np.int64)])
        token_ends = np.concatenate([[0], np.cumsum(self.sentence_lengths, dtype=np.int64)])
        starts = np.flatnonzero(np.diff(labels, prepend=labels[0] - 1)).tolist()
        for start, end in zip(starts, [*starts[1:], len(labels)], strict=True):
            first, last = sentence_ends[start], sentence_ends[end]
            yield (
                int(labels[start]),
                slice(start, end),
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


def take_ragged(values: npt.NDArray, lengths: Ints, order: Ints) -> npt.NDArray:
    """Rows `order` of a ragged array given as flat values and row lengths, flat."""
    starts = np.cumsum(lengths, dtype=np.int64) - lengths
    taken = lengths[order].astype(np.int64)
    shift = np.repeat(starts[order] - (np.cumsum(taken) - taken), taken)
    return values[shift + np.arange(len(shift))]


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
