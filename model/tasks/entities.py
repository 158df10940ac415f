"""Entities from the numbers of tags, in the graph: the reading of `preprocessing.tags`.

Shapes: M words, C tags.
"""

from typing import NamedTuple

import tensorflow as tf

from preprocessing.tags import Reading


class Runs(NamedTuple):
    """Of each word: whether an entity begins with it; the last word of the entity, if it is in one, and of itself else,
    int32; and the number of its type, int32, -1 outside of entities."""

    begins: tf.Tensor
    last: tf.Tensor
    type: tf.Tensor


def runs(reading: Reading, tags: tf.Tensor, is_first: tf.Tensor) -> Runs:
    """Of words one sentence behind the other.

    Args:
        tags: int32 [M], the numbers of their tags.
        is_first: bool [M], of which a sentence begins.
    """
    types = tf.gather(tf.constant(reading.type_of, tf.int32), tags)
    goes_on, is_open = (tf.gather(tf.constant(table), tags) for table in (reading.goes_on, reading.is_open))
    after_open = tf.concat([[False], is_open[:-1]], 0)[: tf.size(tags)]
    type_before = tf.concat([[-1], types[:-1]], 0)[: tf.size(tags)]
    goes_on &= after_open & (types == type_before) & ~is_first
    run = tf.cumsum(tf.cast(~goes_on, tf.int32)) - 1
    last = tf.gather(tf.math.segment_max(tf.range(tf.size(tags)), run), run)
    return Runs(~goes_on & (types >= 0), last, types)
