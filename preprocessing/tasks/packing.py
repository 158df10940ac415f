"""Texts as an encoder takes them, `[CLS] A [SEP]` or `[CLS] A [SEP] B [SEP]`: the same ids as a served model makes of
the same texts, which packs them in its graph (`serving.signatures.packing`).

Shapes: B rows, L max_seq_length, N tokens of all rows.
"""

from collections.abc import Sequence

import numpy as np

from preprocessing.features import INPUT_IDS, INPUT_MASK, SEGMENT_IDS, TEXT_MASK
from preprocessing.tokenizer import BertTokenizer

MOST_WINDOWS = 64  # of one text: what there is more is seen in part
HEAD_SHARE = 4  # of what is kept of a text, its head has one part in so many (128 of 510: Sun et al. 2019)


def pack(
    tokenizer: BertTokenizer, first: Sequence[str], second: Sequence[str] | None, length: int, head_tail: bool
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """(int64 [B, L] by feature name, bool [B]: which rows are cut).

    Args:
        second: of pairs. An empty one leaves `[CLS] A [SEP]`.
        head_tail: a text that is too long loses its middle, not its end.
    """
    values, starts, lengths = _tokens(tokenizer, list(first) + list(second or ()))
    rows = len(first)
    none = np.zeros(rows, np.int64)
    a, b = (starts[:rows], lengths[:rows]), (starts[rows:], lengths[rows:]) if second else (none, none)
    return _laid_out(tokenizer, values, a, b, length, head_tail)


def pack_apart(
    tokenizer: BertTokenizer, first: Sequence[str], second: Sequence[str], length: int
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """What `pack` gives of pairs each text of which is encoded by itself: their tokens in turn, [B, 2 L], as
    `features.COMPARED` has them."""
    both = [pack(tokenizer, texts, None, length, False) for texts in (first, second)]
    ids, mask = (
        np.stack([arrays[name] for arrays, _ in both], 2).reshape(len(first), 2 * length)
        for name in (INPUT_IDS, INPUT_MASK)
    )
    seen = np.repeat(np.maximum(*(arrays[INPUT_MASK] for arrays, _ in both)), 2, axis=1)
    arrays = {INPUT_IDS: ids, INPUT_MASK: seen, SEGMENT_IDS: np.zeros_like(ids), TEXT_MASK: mask}
    return arrays, both[0][1] | both[1][1]


def pack_windows(
    tokenizer: BertTokenizer, texts: Sequence[str], length: int
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """(int64 [W, L] by feature name of the windows of each text in turn, int64 [W] the text of each, bool [B]: which
    texts are longer than a window)."""
    values, starts, lengths = _tokens(tokenizer, texts)
    row, start, kept = windows(lengths, length - 2)
    none = np.zeros_like(row)
    arrays, _ = _laid_out(tokenizer, values, (starts[row] + start, kept), (none, none), length, False)
    return arrays, row, lengths > length - 2


def windows(lengths: np.ndarray, capacity: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(int64 [W] which row, where it begins there, its tokens): as few windows of `capacity` tokens as a row needs, the
    first at its beginning, the last at its end, all about as far apart; at most MOST_WINDOWS, with gaps then."""
    counts = np.clip(-(-lengths // capacity), 1, MOST_WINDOWS)
    row = np.repeat(np.arange(len(lengths)), counts)
    index = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    starts = index * np.maximum(lengths[row] - capacity, 0) // np.maximum(counts[row] - 1, 1)
    return row, starts, np.minimum(lengths[row], capacity)


def _tokens(tokenizer: BertTokenizer, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(ids of all texts, int64 [N]; where those of each begin; how many they are)"""
    tokens = tokenizer.tokenize(list(texts))
    splits = tokens.row_splits.numpy()
    return tokens.values.numpy().astype(np.int64), splits[:-1], np.diff(splits)


def _laid_out(tokenizer, values, first, second, length: int, head_tail: bool):
    """Of texts as (starts, lengths) in `values`; what `pack` returns."""
    (a_start, a), (b_start, b) = first, second
    rows = len(a)
    given = (b > 0).astype(np.int64)
    a_kept, b_kept = _cut_longer(a, b, length - 3)
    a_kept = np.where(given, a_kept, np.minimum(a, length - 2))

    ids = np.full((rows, length), tokenizer.pad_id, np.int64)
    segments = np.zeros_like(ids)
    position = np.arange(length)
    ids[:, 0] = tokenizer.cls_id
    for start, whole, kept, offset, there in (
        (a_start, a, a_kept, np.ones(rows, np.int64), np.ones(rows, bool)),
        (b_start, b, b_kept, a_kept + 2, given > 0),
    ):
        place = position - offset[:, None]  # of the token in what is kept of its text
        head = kept // HEAD_SHARE if head_tail else kept
        source = start[:, None] + place + np.where(place < head[:, None], 0, (whole - kept)[:, None])
        inside = (place >= 0) & (place < kept[:, None])
        ids[inside] = values[source[inside]]
        at = np.flatnonzero(there)
        ids[at, (offset + kept)[at]] = tokenizer.sep_id
    total = a_kept + 2 + b_kept + given
    mask = (position < total[:, None]).astype(np.int64)
    segments[(position >= (a_kept + 2)[:, None]) & (mask > 0)] = 1
    return {INPUT_IDS: ids, INPUT_MASK: mask, SEGMENT_IDS: segments}, (a > a_kept) | (b > b_kept)


def _cut_longer(a: np.ndarray, b: np.ndarray, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """Lengths after removing tokens one by one from the longer of two, the second at a tie, until both fit."""
    b_cut = np.minimum(b, np.maximum(limit - a, limit // 2))
    return np.minimum(a, limit - b_cut), b_cut
