"""Texts as an encoder takes them, `[CLS] A [SEP]` or `[CLS] A [SEP] B [SEP]`: the same ids as a served model makes of
the same texts, which packs them in its graph (`serving.signatures.packing`).

Shapes: B rows, L max_seq_length, N tokens of all rows.
"""

from collections.abc import Sequence

import numpy as np

from preprocessing.features import INPUT_IDS, INPUT_MASK, SEGMENT_IDS
from preprocessing.tokenizer import BertTokenizer

HEAD_SHARE = 4  # of what is kept of a text, its head has one part in so many (128 of 510: Sun et al. 2019)


def pack(
    tokenizer: BertTokenizer, first: Sequence[str], second: Sequence[str] | None, length: int, head_tail: bool
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """(int64 [B, L] by feature name, bool [B]: which rows are cut).

    Args:
        second: of pairs. An empty one leaves `[CLS] A [SEP]`.
        head_tail: a text that is too long loses its middle, not its end.
    """
    tokens = tokenizer.tokenize(list(first) + list(second or ()))
    values, splits = tokens.values.numpy().astype(np.int64), tokens.row_splits.numpy()
    starts, lengths = splits[:-1], np.diff(splits)
    rows = len(first)
    a, a_start = lengths[:rows], starts[:rows]
    b, b_start = (lengths[rows:], starts[rows:]) if second else (np.zeros_like(a), np.zeros_like(a))
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
