"""Products of float32 rows with matrices stored as int8.

Each column of a matrix has a scale of its own, and so has each row of what it is multiplied with, which is rounded when
it comes, from its least number to its greatest: a row's answer does not depend on the rows beside it, and nothing is
calibrated. The sums of products are whole numbers, worked out by the one quantised product that TensorFlow has for
float32 results on x86 CPUs (oneDNN's), of unsigned by signed bytes.

Shapes: R rows, K inputs, N outputs.
"""

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf
from tensorflow.core.framework.attr_value_pb2 import AttrValue

# What TensorFlow's graph optimizer makes of QuantizedMatMulWithBiasAndDequantize where oneDNN is on, which it is by
# default on CPUs with VNNI alone. Named itself it works on all, and packs a variable once, too, not a constant alone,
# of which each graph has a copy. TensorFlow 2.16, 2.20 and 2.21 were tried.
OPERATION = "_MklQuantizedMatMulWithBiasAndDequantize"
# Of a matrix's numbers: CPUs without VNNI add products in pairs, as int16, and 2 * 255 * 64 is the most that fits.
LARGEST = 64
STEPS = 255  # from a row's least number to its greatest
LEAST_STEP = 1e-30  # its reciprocal is a number, too: of rows whose numbers are all the same


def rounded(matrix: np.ndarray, axis: int, largest: int) -> tuple[np.ndarray, np.ndarray]:
    """(int8 of the same shape, float32 scales that keep `axis` as 1): `values * scales` is the matrix again, as nearly
    as whole numbers from -`largest` to `largest` allow."""
    scales = np.abs(matrix).max(axis, keepdims=True).astype(np.float32) / largest
    scales = np.where(scales > 0, scales, np.float32(1))
    return np.rint(matrix / scales).astype(np.int8), scales


class Kernel:
    """A matrix [K, N] as int8, in `variable`, which must not change: TensorFlow packs it for the product once, and not
    at each call. `store` makes the variable of the values. Called with rows and a bias it is `rows @ matrix + bias`, of
    the rows rounded too. Eagerly the same whole numbers are multiplied as float64.
    """

    def __init__(self, matrix: np.ndarray, store: Callable[[np.ndarray], tf.Variable] = tf.Variable):
        self.values, self.scales = rounded(matrix, 0, LARGEST)
        self.variable = store(self.values)
        self._sums_1N = self.matrix.sum(0, keepdims=True)

    @property
    def matrix(self) -> np.ndarray:
        """What the stored numbers stand for, float32 [K, N]."""
        return self.values * self.scales

    def __call__(self, x_RK: tf.Tensor, bias_N: tf.Tensor | None) -> tf.Tensor:
        least_R1 = tf.reduce_min(x_RK, -1, keepdims=True)
        range_R1 = tf.reduce_max(x_RK, -1, keepdims=True) - least_R1
        step_R1 = tf.maximum(range_R1 / STEPS, LEAST_STEP)
        # The nearest whole number: counted from half a step below the least, and truncated.
        bytes_RK = tf.cast((x_RK - (least_R1 - step_R1 / 2)) * (1 / step_R1), tf.uint8)
        product_RN = self._reference(bytes_RK) if tf.executing_eagerly() else self._product(bytes_RK)
        # What counting from the least number left out, in the form that TensorFlow's graph optimizer makes one pass of.
        left_out_RN = tf.matmul(least_R1, self._sums_1N)
        left_out_RN = left_out_RN if bias_N is None else tf.nn.bias_add(left_out_RN, bias_N)
        return left_out_RN + step_R1 * (product_RN * self.scales[0])

    def _product(self, bytes_RK):
        a, b = tf.bitcast(bytes_RK, tf.quint8), tf.bitcast(self.variable, tf.qint8)
        bias = tf.zeros([self.values.shape[1]])
        # Of a, b and the sums: these mean that a byte is the number that it is.
        ranges = [tf.constant(bound) for bound in (0.0, 255.0, -127.0, 127.0, 0.0, 1.0)]
        types = {"T1": a.dtype, "T2": b.dtype, "Tbias": bias.dtype, "Toutput": tf.float32}
        texts = {"input_quant_mode": b"SCALED", "_kernel": b"QuantizedMklOp"}
        attributes = {name: AttrValue(type=dtype.as_datatype_enum) for name, dtype in types.items()}
        attributes |= {name: AttrValue(s=text) for name, text in texts.items()}
        inputs, graph = [a, b, bias, *ranges], tf.compat.v1.get_default_graph()
        return graph.create_op(OPERATION, inputs, [tf.float32], name="product", attrs=attributes).outputs[0]

    def _reference(self, bytes_RK):
        return tf.cast(tf.matmul(tf.cast(bytes_RK, tf.float64), tf.cast(self.variable, tf.float64)), tf.float32)


class Table:
    """Word embeddings [V, H] as int8 with a scale for each word. `variables` hold them."""

    def __init__(self, table: keras.Variable, store: Callable[[np.ndarray], tf.Variable]):
        self.variables = [store(part) for part in rounded(table.numpy(), 1, 127)]

    def lookup(self, ids: tf.Tensor) -> tf.Tensor:
        """float32 [..., H]"""
        values, scales = (tf.gather(variable, ids) for variable in self.variables)
        return tf.cast(values, tf.float32) * scales

    def whole(self) -> tf.Tensor:
        """float32 [V, H]"""
        values, scales = self.variables
        return tf.cast(values, tf.float32) * scales
