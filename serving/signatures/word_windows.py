"""What the encoder makes of words, however many a text has: windows of word pieces, and each word in the one that
answers it. The rule is that of `preprocessing.tasks.word_windows`, in the graph.

Shapes: B batch, M words and N pieces of all texts, W windows, L their padded length.
"""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from preprocessing.tasks.word_windows import rule
from preprocessing.tokenizer.normalization import row_ids
from serving.signatures.base import TextEncoder
from serving.signatures.packing import Rows

TOKENS_AT_ONCE = 8192  # with padding: bounds memory, however long a text is


class Places(NamedTuple):
    """The windows as rows of pieces, and for each word, in order, its window and its place there, int32 [M]."""

    windows: Rows
    window: tf.Tensor
    position: tf.Tensor


def places(texts: Rows, words: tf.Tensor, text_of: tf.Tensor, capacity: int) -> Places:
    """Windows of up to `capacity` pieces.

    Args:
        texts: the pieces of each text, one text behind the other.
        words: int32 [M], the place of each word's first piece among all pieces, ascending.
        text_of: int32 [M], the text of each.
    """
    step, own = rule(capacity)
    counts = 1 + tf.maximum(-((capacity - texts.lengths) // step), 0)
    first = tf.cumsum(counts, exclusive=True)  # window of each text
    rows = row_ids(tf.concat([[0], tf.cumsum(counts)], 0))
    begin = (tf.range(tf.size(rows)) - tf.gather(first, rows)) * step
    kept = tf.minimum(capacity, tf.gather(texts.lengths, rows) - begin)
    windows = Rows(texts.values, tf.gather(texts.starts, rows) + begin, kept)
    piece = words - tf.gather(texts.starts, text_of)
    number = tf.clip_by_value((piece - own) // step, 0, tf.gather(counts, text_of) - 1)
    return Places(windows, tf.gather(first, text_of) + number, piece - number * step + 1)


def answered(
    encoder: TextEncoder, found: Places, lengths: tuple[int, ...], head: Callable[[tf.Tensor], tf.Tensor], size: int
) -> tf.Tensor:
    """float32 [M, size]: `head` of the last layer's output at each word, a few windows at a time."""
    total = tf.size(found.windows.starts)
    longest = tf.reduce_max(found.windows.lengths)

    def some(begin, count, parts):
        end = tf.minimum(begin + tf.maximum(TOKENS_AT_ONCE // (longest + 2), 1), total)
        windows = Rows(found.windows.values, found.windows.starts[begin:end], found.windows.lengths[begin:end])
        packed = encoder.pack_rows(windows, lengths=lengths)
        words = slice(*tf.unstack(tf.searchsorted(found.window, tf.stack([begin, end]))))
        only = (found.window[words] - begin) * tf.shape(packed.input_ids)[1] + found.position[words]
        states = encoder.encode(packed, only=tf.cast(only, tf.int64))["sequence_output"]
        return end, count + 1, parts.write(count, head(states))

    parts = tf.TensorArray(tf.float32, 0, dynamic_size=True, infer_shape=False, element_shape=[None, size])
    # Once at least: of an empty batch, too, there is something to join.
    _, _, parts = tf.while_loop(lambda begin, count, parts: (begin < total) | (count == 0), some, (0, 0, parts))
    return tf.ensure_shape(parts.concat(), [None, size])
