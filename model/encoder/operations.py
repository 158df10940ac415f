"""The encoder's elementwise parts and the cross-entropy over a vocabulary, written for few passes over memory.

On a CPU these parts, as much as the matmuls, decide the speed of small models.
Everything is stateless and made of core TensorFlow ops: it runs eagerly, in graphs, under XLA and in a SavedModel.

Shapes: N rows (batch * length), H features, M rows with a label, V vocabulary.
"""

import math
from collections.abc import Callable

import tensorflow as tf


@tf.custom_gradient
def bias_add(x_NH: tf.Tensor, bias_H: tf.Tensor):
    """`x + bias`, with the bias's gradient as a product with ones: several times faster than TensorFlow's on a CPU."""

    def gradient(d_NH):
        return d_NH, tf.matmul(tf.ones([1, tf.shape(d_NH)[0]], d_NH.dtype), d_NH)[0]

    return tf.nn.bias_add(x_NH, bias_H), gradient


def layer_norm(x_NH: tf.Tensor, scale_H: tf.Tensor, offset_H: tf.Tensor, epsilon: float) -> tf.Tensor:
    """LayerNorm over the last axis, with a gradient in closed form.

    Statistics are computed in float32 whatever the type of `x_NH`; scale and offset are float32. The result has the
    type of `x_NH`. The closed form needs one pass less over memory than what automatic differentiation makes of it.
    """
    dtype = x_NH.dtype

    @tf.custom_gradient
    def normalize(x_NH, scale_H, offset_H):
        x_NH = tf.cast(x_NH, tf.float32)
        centred_NH = x_NH - tf.reduce_mean(x_NH, -1, keepdims=True)
        variance_N1 = tf.reduce_mean(tf.square(centred_NH), -1, keepdims=True)
        inverse_std_N1 = tf.math.rsqrt(variance_N1 + epsilon)
        normal_NH = centred_NH * inverse_std_N1

        def gradient(d_NH):
            d_NH = tf.cast(d_NH, tf.float32)
            d_normal_NH = d_NH * normal_NH
            d_offset_H = tf.reduce_sum(d_NH, 0)
            d_scale_H = tf.reduce_sum(d_normal_NH, 0)
            weight_H1 = scale_H[:, None] / tf.cast(tf.shape(scale_H)[0], tf.float32)
            mean_N1 = tf.matmul(d_NH, weight_H1)
            projection_N1 = tf.matmul(d_normal_NH, weight_H1)
            d_x_NH = inverse_std_N1 * (d_NH * scale_H - mean_N1 - normal_NH * projection_N1)
            return tf.cast(d_x_NH, dtype), d_scale_H, d_offset_H

        return tf.cast(normal_NH * scale_H + offset_H, dtype), gradient

    return normalize(x_NH, scale_H, offset_H)


def gelu_tanh(x: tf.Tensor, training: bool = False) -> tf.Tensor:
    """google-research/bert's GELU, `x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))`.

    Outside of training it is written as TensorFlow writes it, which its graph optimiser fuses with the matmul before.
    In training it is one pass over memory forward and one back, both compiled by XLA, for each shape anew; nothing but
    `x` is kept for the gradient.
    """
    return _gelu_tanh(x) if training else tf.nn.gelu(x, approximate=True)


def gelu(x: tf.Tensor, training: bool = False) -> tf.Tensor:
    """Exact GELU, `x/2 (1 + erf(x / sqrt 2))`; see `gelu_tanh` about `training`."""
    return _gelu(x) if training else tf.nn.gelu(x, approximate=False)


def _compiled(function: Callable) -> Callable:
    return tf.function(function, jit_compile=True, autograph=False)


# sqrt(2/pi) (x + 0.044715 x^3) is x (LINEAR + CUBIC x^2); and (1 + tanh(y)) / 2 = sigmoid(2 y).
LINEAR = math.sqrt(2 / math.pi)
CUBIC = 0.044715 * LINEAR


def _in_float32(function: Callable) -> Callable:
    """Of half precision, computes in float32 and rounds once: TensorFlow 2.21's XLA takes twice as long otherwise."""

    def computed(x, *others):
        if x.dtype.size > 2:
            return function(x, *others)
        return tf.cast(function(*(tf.cast(each, tf.float32) for each in (x, *others))), x.dtype)

    return _compiled(computed)


@_in_float32
def _gelu_tanh_value(x):
    return x * tf.sigmoid(2 * x * (LINEAR + CUBIC * x * x))


@_in_float32
def _gelu_tanh_gradient(x, d):
    gate = tf.sigmoid(2 * x * (LINEAR + CUBIC * x * x))
    return d * (gate + 2 * x * gate * (1 - gate) * (LINEAR + 3 * CUBIC * x * x))


@tf.custom_gradient
def _gelu_tanh(x):
    return _gelu_tanh_value(x), lambda d: _gelu_tanh_gradient(x, d)


@_in_float32
def _gelu_value(x):
    # Not `1 + erf`: where that cancels, XLA's erf of TensorFlow 2.21 leaves 4e-6 at x = -40.
    return 0.5 * x * tf.math.erfc(x * -math.sqrt(0.5))


@_in_float32
def _gelu_gradient(x, d):
    density = math.sqrt(0.5 / math.pi) * tf.exp(-0.5 * x * x)
    return d * (0.5 * (1 + tf.math.erf(x * math.sqrt(0.5))) + x * density)


@tf.custom_gradient
def _gelu(x):
    return _gelu_value(x), lambda d: _gelu_gradient(x, d)


def dropout(x: tf.Tensor, rate: float, seed: tf.Tensor, residual: tf.Tensor | None = None) -> tf.Tensor:
    """Dropout as a pure function of `seed` (int32 [2]): the same seed drops the same elements. Adds `residual`, if any.

    One compiled pass over memory forward and one back, which decides about each element anew; nothing is kept.
    """
    if rate == 0:
        return x if residual is None else x + residual

    @tf.custom_gradient
    def drop(x):
        return _dropped(x, rate, seed), lambda d: _dropped(d, rate, seed)

    @tf.custom_gradient
    def drop_and_add(x, residual):
        return _dropped(x, rate, seed) + residual, lambda d: (_dropped(d, rate, seed), d)

    return drop(x) if residual is None else drop_and_add(x, residual)


@_compiled
def _dropped(x, rate, seed):
    """An element is kept if the hash of its number and the seed is high: two rounds of a 32-bit mixer whose every input
    bit changes each output bit with probability 1/2 (the finalizer form of MurmurHash3), one half of the seed each."""
    seed = tf.bitcast(seed, tf.uint32)
    words = tf.reshape(tf.range(tf.size(x, tf.int64)), tf.shape(x))
    words = tf.cast(words, tf.uint32) + seed[0] * 0x9E3779B9
    for addend in (seed[1], tf.constant(0, tf.uint32)):
        words = tf.bitwise.bitwise_xor(words, tf.bitwise.right_shift(words, tf.constant(16, tf.uint32))) * 0x85EBCA6B
        words = tf.bitwise.bitwise_xor(words, tf.bitwise.right_shift(words, tf.constant(13, tf.uint32))) * 0xC2B2AE35
        words = tf.bitwise.bitwise_xor(words, tf.bitwise.right_shift(words, tf.constant(16, tf.uint32))) + addend
    kept = words >= tf.constant(round(rate * 2**32), tf.uint32)
    return tf.where(kept, x * tf.cast(1 / (1 - rate), x.dtype), tf.zeros([], x.dtype))


def cross_entropy(
    x_MH: tf.Tensor, table_VH: tf.Tensor, bias_V: tf.Tensor, labels_M: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """(negative log likelihoods, 1 where the label's logit is the greatest, of equal ones the first), both float32 [M],
    of the logits `x @ table.T + bias`.

    On a CPU the passes over [M, V] cost as much as the matmuls. So the softmax, which the gradient needs anyway, gives
    the loss as well (its greatest value is `1 / sum(exp(logits - greatest logit))`), and is neither scaled by the
    gradient of the loss nor relieved of the labels: both are done to its small products.
    """

    @tf.custom_gradient
    def compute(x_MH, table_VH, bias_V):
        dtype = x_MH.dtype
        table_VH = tf.cast(table_VH, dtype)
        logits_MV = tf.nn.bias_add(tf.cast(tf.matmul(x_MH, table_VH, transpose_b=True), tf.float32), bias_V)
        shares_MV = tf.nn.softmax(logits_MV)
        best_M = tf.argmax(logits_MV, axis=-1, output_type=labels_M.dtype)
        greatest_M, share_M, label_M = (
            tf.gather(values_MV, at_M, batch_dims=1)
            for values_MV, at_M in ((logits_MV, best_M), (shares_MV, best_M), (logits_MV, labels_M))
        )
        nll_M = greatest_M - tf.math.log(share_M) - label_M
        right_M = tf.cast(best_M == labels_M, tf.float32)

        def gradient(d_nll_M, _):
            d_M1, shares = d_nll_M[:, None], tf.cast(shares_MV, dtype)
            d_bias_V = tf.matmul(d_M1, shares_MV, transpose_a=True)[0]
            d_bias_V = tf.tensor_scatter_nd_sub(d_bias_V, labels_M[:, None], d_nll_M)
            at_label_MH = tf.gather(table_VH, labels_M)
            d_x_MH = tf.cast(d_M1, dtype) * (tf.matmul(shares, table_VH) - at_label_MH)
            scaled_MH = tf.cast(d_M1, dtype) * x_MH
            d_table_VH = tf.cast(tf.matmul(shares, scaled_MH, transpose_a=True), tf.float32)
            d_table_VH = tf.tensor_scatter_nd_sub(d_table_VH, labels_M[:, None], tf.cast(scaled_MH, tf.float32))
            return d_x_MH, d_table_VH, d_bias_V

        return (nll_M, right_M), gradient

    return compute(x_MH, table_VH, bias_V)
