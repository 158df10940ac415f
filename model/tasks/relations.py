"""How like the tokens of a text are to each other in a layer: what a student of any width can learn from its teacher.

Those of MiniLMv2 (Wang et al. 2021, arXiv 2012.15828): the queries of all attention heads are laid side by side and cut
anew into relation heads, as many of the student's as of the teacher's; in each, the scaled products of a token's query
with those of all tokens make a distribution. Keys and values alike. What follows them in the student's last layer is
not taught so.

Shapes: B batch, L length, N attention heads, D = H / N, S relation heads.
"""

import math
from collections.abc import Sequence

import tensorflow as tf

from model.encoder.bert import MASKED_SCORE


def divergence(ours: Sequence[tf.Tensor], theirs: Sequence[tf.Tensor], mask_BL: tf.Tensor, heads: int) -> tf.Tensor:
    """Of each token's relations in a student from those in its teacher, in nats: mean over the relation heads, sum over
    queries, keys and values. float32 [B, L]; what it is for padding means nothing, but is finite.

    Args:
        ours, theirs: query, key and value of a layer, [B, N, L, D] each (`BertEncoder`'s `projections`).
        mask_BL: 1 = real token.
        heads: S, by which both widths can be divided.
    """
    mask_B11L = (1 - tf.cast(mask_BL, tf.float32))[:, None, None, :] * MASKED_SCORE
    total_BL = tf.zeros(tf.shape(mask_BL))
    for pair in zip(ours, theirs, strict=True):
        of_student_BSLL, of_teacher_BSLL = (_relations(values_BNLD, mask_B11L, heads) for values_BNLD in pair)
        each_BSL = tf.reduce_sum(tf.exp(of_teacher_BSLL) * (of_teacher_BSLL - of_student_BSLL), -1)
        total_BL += tf.reduce_mean(each_BSL, 1)
    return total_BL


def _relations(values_BNLD: tf.Tensor, mask_B11L: tf.Tensor, heads: int) -> tf.Tensor:
    """Logarithms of probabilities, float32 [B, S, L, L], from a token to all."""
    batch, length = tf.shape(values_BNLD)[0], tf.shape(values_BNLD)[2]
    size = values_BNLD.shape[1] * values_BNLD.shape[3] // heads
    values_BLND = tf.transpose(tf.cast(values_BNLD, tf.float32), [0, 2, 1, 3])
    values_BSLX = tf.transpose(tf.reshape(values_BLND, [batch, length, heads, size]), [0, 2, 1, 3])
    scores_BSLL = tf.matmul(values_BSLX, values_BSLX, transpose_b=True) / math.sqrt(size)
    return tf.nn.log_softmax(scores_BSLL + mask_B11L)
