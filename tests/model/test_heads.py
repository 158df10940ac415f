"""The pretraining heads, against the formulas written out in NumPy."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from model.encoder import BertEncoder
from model.settings import EncoderSettings

SETTINGS = EncoderSettings(
    vocab_size=30, hidden_size=8, num_layers=1, num_heads=2, intermediate_size=16, max_positions=16
)


@pytest.fixture(scope="module")
def encoder():
    keras.utils.set_random_seed(0)
    encoder = BertEncoder(SETTINGS)
    random = np.random.default_rng(0)
    for weight in encoder.weights:
        weight.assign(random.normal(size=weight.shape))
    return encoder


def gelu_tanh(x):
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def test_masked_lm_reads_the_chosen_positions_and_is_tied(encoder):
    head = encoder.masked_lm
    sequence = np.random.default_rng(1).normal(size=(2, 5, 8)).astype(np.float32)
    positions = np.array([[4, 0, 0], [1, 2, 3]])
    logits = head(sequence, positions)
    x = np.stack([row[chosen] for row, chosen in zip(sequence, positions, strict=True)]).astype(np.float64)
    x = gelu_tanh(x @ head.kernel.numpy() + head.bias.numpy())
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-12)
    x = x * head.norm_scale.numpy() + head.norm_offset.numpy()
    expected = x @ encoder.embeddings.word.numpy().T + head.output_bias.numpy()
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(logits[0, 1], logits[0, 2])


def test_the_tied_table_is_not_a_weight_of_the_head(encoder):
    assert {weight.name for weight in encoder.masked_lm.weights} == {
        "kernel",
        "bias",
        "norm_scale",
        "norm_offset",
        "output_bias",
    }
    assert sum(weight is encoder.embeddings.word for weight in encoder.weights) == 1


def test_next_sentence_is_a_product_with_the_pooled_output(encoder):
    pooled = np.random.default_rng(2).normal(size=(4, 8)).astype(np.float32)
    head = encoder.next_sentence
    expected = pooled @ head.kernel.numpy().T + head.bias.numpy()
    np.testing.assert_allclose(head(pooled), expected, rtol=1e-5, atol=1e-5)


def test_unknown_numbers_of_rows_and_predictions(encoder):
    @tf.function(input_signature=[tf.TensorSpec([None, None, 8], tf.float32), tf.TensorSpec([None, None], tf.int32)])
    def logits(sequence, positions):
        return encoder.masked_lm(sequence, positions)

    for batch, length, predictions in ((1, 3, 1), (3, 7, 4), (2, 4, 0)):
        sequence = tf.random.normal([batch, length, 8])
        positions = tf.random.uniform([batch, predictions], 0, length, tf.int32)
        assert logits(sequence, positions).shape == (batch, predictions, 30)
