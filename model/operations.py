"""The encoder's elementwise parts, written for few passes over memory.

On a CPU these parts, as much as the matmuls, decide the speed of small models.
Everything is stateless and made of core TensorFlow ops: it runs eagerly, in graphs, under XLA and in a SavedModel.

Shapes: N rows (batch * length), H features.
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


@_compiled
def _gelu_tanh_value(x):
    return x * tf.sigmoid(2 * x * (LINEAR + CUBIC * x * x))


@_compiled
def _gelu_tanh_gradient(x, d):
    gate = tf.sigmoid(2 * x * (LINEAR + CUBIC * x * x))
    return d * (gate + 2 * x * gate * (1 - gate) * (LINEAR + 3 * CUBIC * x * x))


@tf.custom_gradient
def _gelu_tanh(x):
    return _gelu_tanh_value(x), lambda d: _gelu_tanh_gradient(x, d)


@_compiled
def _gelu_value(x):
    # Not `1 + erf`: where that cancels, XLA's erf of TensorFlow 2.21 leaves 4e-6 at x = -40.
    return 0.5 * x * tf.math.erfc(x * -math.sqrt(0.5))


@_compiled
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
