"""A layer in parts that are worked out side by side (Megatron-LM, Shoeybi et al. 2019, arXiv 1909.08053, section 3, on
the cores of one machine).

A part has some of a layer's heads and some of its inner units, with their share of each matrix: it needs nothing of the
other parts, and the sums of what all give are what the layer gives. TensorFlow works operations out at once that do not
wait for each other; a product of few rows, split among threads, takes as long as on one of them.

Shapes: R rows, H hidden, N heads, D = H / N, F inner, P parts.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np
import tensorflow as tf

from model.encoder.layers import TransformerLayer

# What of a layer is cut.
NAMES = ("qkv_kernel", "qkv_bias", "attention_kernel", "inner_kernel", "inner_bias", "output_kernel")


class Matrix(Protocol):
    """A stored matrix."""

    def __call__(self, x: tf.Tensor, bias: tf.Tensor | None, /) -> tf.Tensor:
        """`x @ matrix + bias`"""


@dataclasses.dataclass(frozen=True)
class Dense:
    """A Matrix of a variable."""

    kernel: tf.Variable

    def __call__(self, x, bias):
        product = tf.matmul(x, tf.cast(self.kernel, x.dtype))
        # In the form that TensorFlow's graph optimizer fuses.
        return product if bias is None else tf.nn.bias_add(product, tf.cast(bias, x.dtype))


@dataclasses.dataclass(frozen=True)
class Part:
    """`qkv` is [H, 3 H / P], `attention` [H / P, H], `inner` [H, F / P] and `output` [F / P, H]. The biases of
    `attention` and `output` are added once, not by each part."""

    qkv: Matrix
    qkv_bias: tf.Variable
    attention: Matrix
    inner: Matrix
    inner_bias: tf.Variable
    activation: Callable[[tf.Tensor], tf.Tensor]
    output: Matrix


def count(most: int, heads: int, inner: int) -> int:
    """The greatest number of equal parts, `most` at most, that so many heads and inner units can be cut into."""
    return max(number for number in range(1, most + 1) if heads % number == 0 and inner % number == 0)


def cut(
    layer: TransformerLayer,
    number: int,
    matrix: Callable[[str, np.ndarray], Matrix],
    vector: Callable[[str, np.ndarray], tf.Variable],
    folded: bool = False,
) -> Iterator[Part]:
    """The parts, of which there are so many. `matrix` and `vector` store values, under a name. `folded`: of exact GELU,
    `x/2 (1 + erf(x / sqrt 2))`, the constant factors are in what comes before and after, two passes over memory less.
    """
    factor, activation = (np.float32(0.5**0.5), _folded_gelu) if folded else (np.float32(1), layer.activation)
    hidden, inner = layer.settings.hidden_size, layer.settings.intermediate_size
    for place in range(number):
        # Columns of query, key and value of the same heads; rows of what they give.
        heads, units = (slice(place * size // number, (place + 1) * size // number) for size in (hidden, inner))

        def kept(store, name, values, place=place):
            return store(f"{getattr(layer, name).path}/{place}", np.ascontiguousarray(values))

        qkv, bias = (
            values.reshape(*values.shape[:-1], 3, hidden)[..., heads].reshape(*values.shape[:-1], -1)
            for values in (layer.qkv_kernel.numpy(), layer.qkv_bias.numpy())
        )
        yield Part(
            kept(matrix, "qkv_kernel", qkv),
            kept(vector, "qkv_bias", bias),
            kept(matrix, "attention_kernel", layer.attention_kernel.numpy()[heads]),
            kept(matrix, "inner_kernel", layer.inner_kernel.numpy()[:, units] * factor),
            kept(vector, "inner_bias", layer.inner_bias.numpy()[units] * factor),
            activation,
            kept(matrix, "output_kernel", layer.output_kernel.numpy()[units] * factor),
        )


def _folded_gelu(x):
    return x * (1 + tf.math.erf(x))
