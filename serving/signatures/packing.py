"""From strings to the encoder's inputs, inside the graph, with core TensorFlow operations only.

TensorFlow Serving links tf.text's tokenizers but not its trimmers, so cutting and joining is index arithmetic here:
the tokens of all texts lie in one flat vector, and one gather puts each of them, the special tokens and the padding in
place.

Shapes: B batch, L padded length, N tokens in the batch.
"""

import dataclasses
from typing import NamedTuple

import tensorflow as tf

from preprocessing.features import INPUT_IDS, INPUT_MASK, SEGMENT_IDS
from preprocessing.tasks.packing import HEAD_SHARE, MOST_WINDOWS


class Rows(NamedTuple):
    """Texts as slices of one flat vector of token ids: row i is `values[starts[i] : starts[i] + lengths[i]]`."""

    values: tf.Tensor  # int32 [N]
    starts: tf.Tensor  # int32 [B]
    lengths: tf.Tensor  # int32 [B]


@dataclasses.dataclass(frozen=True)
class Packed:
    """`[CLS] A [SEP]` or `[CLS] A [SEP] B [SEP]`, padded."""

    input_ids: tf.Tensor  # int32 [B, L]
    input_mask: tf.Tensor  # int32 [B, L]
    segment_ids: tf.Tensor  # int32 [B, L]
    truncated: tf.Tensor  # bool [B]

    @property
    def features(self) -> dict[str, tf.Tensor]:
        return {INPUT_IDS: self.input_ids, INPUT_MASK: self.input_mask, SEGMENT_IDS: self.segment_ids}


def rows(tokens: tf.RaggedTensor) -> Rows:
    """The rows of int32 [B, (tokens)]."""
    splits = tf.cast(tokens.row_splits, tf.int32)
    return Rows(tokens.values, splits[:-1], splits[1:] - splits[:-1])


def halves(both: Rows) -> tuple[Rows, Rows]:
    """The first and the second half of 2 B rows, without copying a token."""
    (a_starts, b_starts), (a_lengths, b_lengths) = tf.split(both.starts, 2), tf.split(both.lengths, 2)
    return Rows(both.values, a_starts, a_lengths), Rows(both.values, b_starts, b_lengths)


def windows(whole: Rows, capacity: int) -> tuple[Rows, tf.Tensor]:
    """(windows of at most `capacity` tokens, int32 [W] the row of each): what `preprocessing.tasks.packing.windows`
    cuts rows into."""
    counts = tf.clip_by_value((whole.lengths + capacity - 1) // capacity, 1, MOST_WINDOWS)
    row = tf.repeat(tf.range(tf.size(counts)), counts)
    index = tf.range(tf.size(row)) - tf.gather(tf.cumsum(counts, exclusive=True), row)
    lengths, last = tf.gather(whole.lengths, row), tf.gather(counts, row) - 1
    starts = index * tf.maximum(lengths - capacity, 0) // tf.maximum(last, 1)
    return Rows(whole.values, tf.gather(whole.starts, row) + starts, tf.minimum(lengths, capacity)), row


def padded_length(longest: tf.Tensor, lengths: tuple[int, ...]) -> tf.Tensor:
    """The smallest of `lengths` that is not below `longest` (int32 scalar)."""
    choices = tf.constant(lengths, tf.int32)
    return tf.gather(choices, tf.reduce_sum(tf.cast(longest > choices[:-1], tf.int32)))


def cut_longer(a: tf.Tensor, b: tf.Tensor, limit: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Lengths (int32 [B]) after removing tokens one by one from the longer of two, the second at a tie, until both
    together have at most `limit` (google-research/bert's `_truncate_seq_pair`), in closed form."""
    b_cut = tf.minimum(b, tf.maximum(limit - a, limit // 2))
    return tf.minimum(a, limit - b_cut), b_cut


def _source(place: tf.Tensor, a: Rows, kept: tf.Tensor, head_tail: bool) -> tf.Tensor:
    """Where the tokens at `place` (int32 [B, L]) in what is kept (int32 [B]) of each text stand in the flat vector."""
    source = a.starts[:, None] + place
    if not head_tail:
        return source
    return source + tf.where(place < kept[:, None] // HEAD_SHARE, 0, (a.lengths - kept)[:, None])


def pack_single(
    a: Rows, *, lengths: tuple[int, ...], cls_id: int, sep_id: int, pad_id: int, head_tail: bool = False
) -> Packed:
    """`[CLS] A [SEP]`, A cut at its end, or in its middle (`head_tail`), padded to one of `lengths`."""
    kept = tf.minimum(a.lengths, lengths[-1] - 2)
    length = padded_length(tf.reduce_max(kept) + 2, lengths)
    position = tf.range(length)[None, :]
    end = kept[:, None] + 1
    special = tf.shape(a.values)[0]  # index of [CLS]; [SEP] and [PAD] follow it
    index = tf.where(
        position < end, _source(position - 1, a, kept, head_tail), special + 1 + tf.cast(position > end, tf.int32)
    )
    index = tf.where(position == 0, special, index)
    return Packed(
        input_ids=tf.gather(tf.concat([a.values, [cls_id, sep_id, pad_id]], 0), index),
        input_mask=tf.cast(position <= end, tf.int32),
        segment_ids=tf.zeros_like(index),
        truncated=a.lengths > kept,
    )


def pack_pair(
    a: Rows,
    b: Rows,
    *,
    optional: bool,
    lengths: tuple[int, ...],
    cls_id: int,
    sep_id: int,
    pad_id: int,
    head_tail: bool = False,
) -> Packed:
    """`[CLS] A [SEP] B [SEP]`, the longer of both cut as `pack_single` does, padded to one of `lengths`. `a` and `b`
    are rows of the same vector. With `optional`, a B without tokens is none: `[CLS] A [SEP]`."""
    given = tf.cast(b.lengths > 0, tf.int32) if optional else tf.ones_like(b.lengths)
    with_b = cut_longer(a.lengths, b.lengths, lengths[-1] - 3)
    a_kept = tf.where(given > 0, with_b[0], tf.minimum(a.lengths, lengths[-1] - 2))
    b_kept = with_b[1] * given
    total = a_kept + 2 + b_kept + given

    length = padded_length(tf.reduce_max(total), lengths)
    position = tf.range(length)[None, :]
    a_end, b_end, total = a_kept[:, None] + 1, (a_kept + b_kept)[:, None] + 2, total[:, None]
    special = tf.shape(a.values)[0]  # index of [CLS]; [SEP] and [PAD] follow it
    index = tf.where(position < b_end, _source(position - a_end - 1, b, b_kept, head_tail), special + 1)
    index = tf.where(position < a_end, _source(position - 1, a, a_kept, head_tail), index)
    index = tf.where(position == a_end, special + 1, index)
    index = tf.where(position == 0, special, index)
    index = tf.where(position < total, index, special + 2)
    return Packed(
        input_ids=tf.gather(tf.concat([a.values, [cls_id, sep_id, pad_id]], 0), index),
        input_mask=tf.cast(position < total, tf.int32),
        segment_ids=tf.cast((position > a_end) & (position < total), tf.int32),
        truncated=(a.lengths > a_kept) | (b.lengths > b_kept),
    )
