"""The embedded server's process."""

import tensorflow as tf


def test_float32_products_keep_all_digits(toy_server):
    """On a GPU, where TensorFlow rounds their factors to TF32 otherwise: answers are then not those of the export."""
    assert not tf.config.experimental.tensor_float_32_execution_enabled()
