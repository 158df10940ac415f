import numpy as np
import pytest
import tensorflow as tf

from model import losses, metrics
from model.encoder import BertEncoder
from preprocessing import features
from tests.model import small_examples


def reference(logits, labels):
    """Negative log likelihood in float64, straight from its definition."""
    logits = logits.astype(np.float64)
    shifted = logits - logits.max(axis=-1, keepdims=True)
    log_shares = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return -np.take_along_axis(log_shares, labels[:, None], axis=-1)[:, 0], np.exp(log_shares)


@pytest.mark.parametrize("spread", [1.0, 30.0])
def test_cross_entropy_and_its_gradient(spread):
    random = np.random.default_rng(0)
    logits, labels = random.normal(size=(7, 11)).astype(np.float32) * spread, random.integers(0, 11, 7)
    weights = random.random(7).astype(np.float32)
    variable = tf.constant(logits)
    with tf.GradientTape() as tape:
        tape.watch(variable)
        nll, right = losses.cross_entropy(variable, tf.constant(labels, tf.int32))
        loss = tf.reduce_sum(nll * weights)
    expected, shares = reference(logits, labels)
    np.testing.assert_allclose(nll, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(right, logits.argmax(-1) == labels)
    expected_gradient = (shares - np.eye(11)[labels]) * weights[:, None]
    np.testing.assert_allclose(tape.gradient(loss, variable), expected_gradient, atol=1e-6)


def test_cross_entropy_of_a_hopeless_label_is_finite():
    nll, _ = losses.cross_entropy(tf.constant([[500.0, 0.0]]), tf.constant([1]))
    assert float(nll[0]) == 500.0


def test_masked_loss_counts_weighted_predictions_only():
    batch = small_examples.batch(4)
    logits = tf.random.stateless_normal([4, small_examples.PREDICTIONS, small_examples.VOCAB], [1, 2])
    total, _ = losses.masked_lm(logits, batch)
    changed = batch | {
        features.MASKED_LM_IDS: tf.where(batch[features.MASKED_LM_WEIGHTS] > 0, batch[features.MASKED_LM_IDS], 1)
    }
    assert float(total) == float(losses.masked_lm(logits, changed)[0])
    nothing = batch | {features.MASKED_LM_WEIGHTS: tf.zeros_like(batch[features.MASKED_LM_WEIGHTS])}
    assert float(losses.masked_lm(logits, nothing)[0]) == 0.0


def test_filling_examples_do_not_count():
    batch = small_examples.batch(4)
    filled = {name: tf.pad(value, [[0, 2], [0, 0]]) for name, value in batch.items()}
    logits = tf.random.stateless_normal([6, 2], [1, 2])
    for found, expected in zip(
        losses.next_sentence(logits, filled), losses.next_sentence(logits[:4], batch), strict=True
    ):
        np.testing.assert_allclose(found, expected)


def test_outputs_at_the_predicted_positions_are_those_of_the_whole():
    encoder = BertEncoder(small_examples.encoder_settings())
    batch = small_examples.batch(5)
    outputs, logits = losses.outputs_and_logits(encoder, batch)
    whole = encoder(batch)
    np.testing.assert_allclose(outputs["pooled_output"], whole["pooled_output"], atol=1e-6)
    expected = encoder.masked_lm(whole["sequence_output"], batch[features.MASKED_LM_POSITIONS])
    np.testing.assert_allclose(logits, expected, atol=1e-6)


def test_baselines():
    found = metrics.baselines(np.array([0, 3, 1]))
    assert found["commonest_token_accuracy"] == 0.75
    assert found["unigram_loss"] == pytest.approx(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25)))
