"""Words given as they are -> word pieces in windows of a model's length, `[CLS] pieces [SEP]`: the same as a served
model makes of the same words in its graph (`serving.signatures.word_windows`).

A word's first piece stands for it. A word of which nothing is left when it is cleaned is one [UNK], so that it keeps
its place. What is longer than a window lies in several, of which neighbours share a quarter; the half of that quarter
that is nearer to a window's end is its neighbour's, so that each word is answered once and sees what is around it.

Shapes: B sentences, M words and N pieces of all of them, W windows, L max_seq_length.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from preprocessing.features import INPUT_IDS, INPUT_MASK, SEGMENT_IDS
from preprocessing.tokenizer import BertTokenizer

SHARED = 4  # neighbouring windows have one part in so many of their pieces in common


def rule(capacity: int) -> tuple[int, int]:
    """Of windows that hold so many pieces: (how far one begins behind the other, how many pieces behind its beginning
    those begin that are its own, but for the first one)."""
    shared = capacity // SHARED
    return capacity - shared, shared // 2


@dataclasses.dataclass(frozen=True)
class Pieces:
    """The pieces of sentences, one behind the other: int64 ids [N]; which are first in their word, bool [N]; how many a
    sentence has, int64 [B]; and how many words were left without a piece of their own, [B]."""

    ids: np.ndarray
    is_first: np.ndarray
    lengths: np.ndarray
    removed: np.ndarray


def pieces(tokenizer: BertTokenizer, sentences: Sequence[Sequence[str]]) -> Pieces:
    """Of sentences that have words."""
    tokens = tokenizer.tokenize([word for sentence in sentences for word in sentence])
    counts = np.diff(tokens.row_splits.numpy())  # of each word
    kept = np.maximum(counts, 1)
    begins = np.cumsum(kept) - kept
    ids = np.full(kept.sum(), tokenizer.unk_id, np.int64)
    places = np.repeat(begins, counts) + np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    ids[places] = tokens.values.numpy()
    is_first = np.zeros(len(ids), bool)
    is_first[begins] = True
    words = np.cumsum([0, *map(len, sentences)])[:-1]
    return Pieces(ids, is_first, np.add.reduceat(kept, words), np.add.reduceat(counts == 0, words, dtype=np.int64))


@dataclasses.dataclass(frozen=True)
class Windows:
    """Int64 features [W, L] by name; the sentence of each, [W]; and for each place of a window the word that it
    answers, by its number among all, -1 where there is none, [W, L]."""

    features: dict[str, np.ndarray]
    sentences: np.ndarray
    words: np.ndarray


def pack(tokenizer: BertTokenizer, of: Pieces, length: int) -> Windows:
    capacity = length - 2
    step, own = rule(capacity)
    counts = 1 + np.maximum(-((capacity - of.lengths) // step), 0)
    rows = np.repeat(np.arange(len(counts)), counts)
    number = np.arange(len(rows)) - (np.cumsum(counts) - counts)[rows]
    kept = np.minimum(capacity, of.lengths[rows] - number * step)[:, None]
    position = np.arange(length)
    piece = (number * step)[:, None] + position - 1  # of its sentence
    inside = (position > 0) & (position <= kept)
    source = ((np.cumsum(of.lengths) - of.lengths)[rows][:, None] + piece)[inside]

    ids = np.full((len(rows), length), tokenizer.pad_id, np.int64)
    ids[:, 0] = tokenizer.cls_id
    ids[inside] = of.ids[source]
    ids[np.arange(len(rows)), kept[:, 0] + 1] = tokenizer.sep_id
    mask = (position <= kept + 1).astype(np.int64)
    words = np.full(ids.shape, -1, np.int64)
    words[inside] = np.where(of.is_first, np.cumsum(of.is_first) - 1, -1)[source]
    owner = np.clip((piece - own) // step, 0, (counts - 1)[rows][:, None])
    words[owner != number[:, None]] = -1
    return Windows({INPUT_IDS: ids, INPUT_MASK: mask, SEGMENT_IDS: np.zeros_like(ids)}, rows, words)
