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


@pytest.mark.parametrize("spread", [1.0, 10.0])
def test_cross_entropy_and_its_gradients(spread):
    random = np.random.default_rng(0)
    x, table, bias = (random.normal(size=size).astype(np.float32) for size in ((7, 5), (11, 5), (11,)))
    x *= spread
    labels, weights = random.integers(0, 11, 7), random.random(7).astype(np.float32)
    labels[1] = labels[0]  # their gradients must add up
    variables = [tf.constant(value) for value in (x, table, bias)]
    with tf.GradientTape() as tape:
        tape.watch(variables)
        nll, right = losses.cross_entropy(*variables, tf.constant(labels, tf.int32))
        loss = tf.reduce_sum(nll * weights)
    logits = x.astype(np.float64) @ table.T + bias
    expected, shares = reference(logits, labels)
    np.testing.assert_allclose(nll, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(right, logits.argmax(-1) == labels)
    d_logits = (shares - np.eye(11)[labels]) * weights[:, None]
    for found, expected in zip(
        tape.gradient(loss, variables), (d_logits @ table, d_logits.T @ x, d_logits.sum(0)), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_of_equal_logits_only_one_is_right():
    """In bfloat16 many are equal."""
    _, right = losses.cross_entropy(tf.ones([4, 1]), tf.ones([4, 1]), tf.zeros(4), tf.range(4))
    np.testing.assert_array_equal(right, [1, 0, 0, 0])


def test_no_figures_where_nothing_was_counted():
    assert all(np.isnan(value) for value in metrics.figures(np.zeros(len(metrics.SUMS))).values())


def test_cross_entropy_of_a_hopeless_label_is_finite():
    nll, _ = losses.cross_entropy(tf.constant([[500.0]]), tf.constant([[1.0], [0.0]]), tf.zeros(2), tf.constant([1]))
    assert float(nll[0]) == 500.0


def test_masked_loss_counts_weighted_predictions_only():
    encoder, batch = BertEncoder(small_examples.encoder_settings()), small_examples.batch(4)
    outputs = losses.encoder_outputs(encoder, batch)
    total, _ = losses.masked_lm(encoder, outputs, batch)
    changed = batch | {
        features.MASKED_LM_IDS: tf.where(batch[features.MASKED_LM_WEIGHTS] > 0, batch[features.MASKED_LM_IDS], 1)
    }
    assert float(total) == float(losses.masked_lm(encoder, outputs, changed)[0])
    nothing = batch | {features.MASKED_LM_WEIGHTS: tf.zeros_like(batch[features.MASKED_LM_WEIGHTS])}
    assert float(losses.masked_lm(encoder, outputs, nothing)[0]) == 0.0


def test_filling_examples_do_not_count():
    batch = small_examples.batch(4)
    filled = {name: tf.pad(value, [[0, 2], [0, 0]]) for name, value in batch.items()}
    logits = tf.random.stateless_normal([6, 2], [1, 2])
    for found, expected in zip(
        losses.next_sentence(logits, filled), losses.next_sentence(logits[:4], batch), strict=True
    ):
        np.testing.assert_allclose(found, expected)


def test_losses_at_the_predicted_positions_are_those_of_the_whole():
    encoder = BertEncoder(small_examples.encoder_settings())
    batch = small_examples.batch(5)
    outputs = losses.encoder_outputs(encoder, batch)
    whole = encoder(batch)
    np.testing.assert_allclose(outputs["pooled_output"], whole["pooled_output"], atol=1e-6)
    logits = encoder.masked_lm(whole["sequence_output"], batch[features.MASKED_LM_POSITIONS]).numpy()
    labels = batch[features.MASKED_LM_IDS].numpy().reshape(-1)
    nll, _ = reference(logits.reshape(-1, small_examples.VOCAB), labels)
    found, _ = losses.masked_lm(encoder, outputs, batch)
    np.testing.assert_allclose(found, (nll * batch[features.MASKED_LM_WEIGHTS].numpy().reshape(-1)).sum(), rtol=1e-5)


def test_baselines():
    found = metrics.baselines(np.array([0, 3, 1]))
    assert found["commonest_token_accuracy"] == 0.75
    assert found["unigram_loss"] == pytest.approx(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25)))
