"""Layers in parts: how many there are, and that together they are the layer."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from model.encoder.layers import TransformerLayer
from preprocessing.errors import InputError
from serving.settings import ExportSettings
from serving.signatures import parts
from tests.serving import small_model


@pytest.mark.parametrize(
    ("most", "heads", "inner", "expected"),
    [(2, 12, 3072, 2), (1, 12, 3072, 1), (2, 3, 3072, 1), (2, 2, 15, 1), (8, 12, 3072, 6), (64, 16, 4096, 16)],
)
def test_they_are_equal_and_as_many_as_can_be(most, heads, inner, expected):
    assert parts.count(most, heads, inner) == expected


def test_a_part_has_its_heads_and_units_of_each_matrix():
    layer = small_model.encoder().layer_0
    hidden, inner = layer.settings.hidden_size, layer.settings.intermediate_size
    kept = {}

    def store(name, values):
        kept[name] = values
        return tf.Variable(values)

    found = list(parts.cut(layer, 2, lambda name, values: parts.Dense(store(name, values)), store))
    assert len(found) == 2
    assert len(kept) == 2 * len(parts.NAMES)
    assert sum(values.size for values in kept.values()) == sum(
        getattr(layer, name).numpy().size for name in parts.NAMES
    )
    qkv = layer.qkv_kernel.numpy()
    for place, part in enumerate(found):
        half = slice(place * hidden // 2, (place + 1) * hidden // 2)
        of_each = [qkv[:, what * hidden : (what + 1) * hidden][:, half] for what in range(3)]
        np.testing.assert_array_equal(part.qkv.kernel, np.concatenate(of_each, 1))
    x = tf.constant(np.random.default_rng(0).normal(size=(5, inner)).astype(np.float32))
    whole = tf.matmul(x, layer.output_kernel.value)
    halves = tf.split(x, 2, 1)
    added = sum(part.output(half, None) for part, half in zip(found, halves, strict=True))
    np.testing.assert_allclose(added, whole, rtol=1e-5, atol=1e-5)


def test_exact_gelu_with_its_factors_in_the_matrices_around_it_is_the_same():
    layer = TransformerLayer(dataclasses.replace(small_model.encoder().settings, activation="gelu"))
    layer.inner_bias.assign(tf.linspace(-1.0, 1.0, layer.settings.intermediate_size))
    x = tf.random.stateless_normal([5, layer.settings.hidden_size], [0, 1])
    plain, folded = (
        sum(
            part.output(part.activation(part.inner(x, part.inner_bias)), None)
            for part in parts.cut(
                layer, 2, lambda _, values: parts.Dense(tf.Variable(values)), lambda _, values: tf.Variable(values), how
            )
        )
        for how in (False, True)
    )
    np.testing.assert_allclose(folded, plain, rtol=1e-5, atol=1e-6)
    assert np.abs(plain).max() > 0.1


def test_a_number_that_cannot_be_is_refused():
    with pytest.raises(InputError, match=r"parts must be from 1 to 64\. Received: 0"):
        ExportSettings(parts=0)
