"""The elementwise parts against plain formulas, values and gradients, in float64 where the operation allows it."""

import math

import numpy as np
import pytest
import tensorflow as tf

from model.encoder import operations


def numeric_gradient(function, x, upstream, step=1e-3):
    gradient = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[index] += step
        down[index] -= step
        gradient[index] = ((function(up) - function(down)) * upstream).sum() / (2 * step)
    return gradient


def layer_norm(x, scale, offset):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12) * scale + offset


def test_layer_norm_and_its_gradient():
    random = np.random.default_rng(0)
    x, upstream = random.normal(2, 3, (4, 6)), random.normal(size=(4, 6))
    scale, offset = random.normal(size=6), random.normal(size=6)
    tensors = [tf.constant(value, tf.float32) for value in (x, scale, offset)]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        y = operations.layer_norm(*tensors, 1e-12)
    np.testing.assert_allclose(y, layer_norm(x, scale, offset), atol=1e-5)
    d_x, d_scale, d_offset = tape.gradient(y, tensors, tf.constant(upstream, tf.float32))
    np.testing.assert_allclose(d_x, numeric_gradient(lambda v: layer_norm(v, scale, offset), x, upstream), atol=1e-4)
    np.testing.assert_allclose(
        d_scale, numeric_gradient(lambda v: layer_norm(x, v, offset), scale, upstream), atol=1e-4
    )
    np.testing.assert_allclose(d_offset, upstream.sum(0), atol=1e-5)


def gelu_tanh(x):
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def gelu(x):
    return np.vectorize(lambda value: value * 0.5 * (1 + math.erf(value / math.sqrt(2))))(x)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("operation", "reference"), [(operations.gelu_tanh, gelu_tanh), (operations.gelu, gelu)])
def test_gelu_and_its_gradient(operation, reference, training):
    x = np.concatenate([np.linspace(-6, 6, 97), [-40.0, 40.0]])
    upstream = np.random.default_rng(0).normal(size=x.shape)
    tensor = tf.constant(x, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(tensor)
        y = operation(tensor, training)
    np.testing.assert_allclose(y, reference(x), atol=2e-6)
    expected = (reference(x + 1e-4) - reference(x - 1e-4)) / 2e-4 * upstream
    np.testing.assert_allclose(tape.gradient(y, tensor, tf.constant(upstream, tf.float32)), expected, atol=1e-5)


@pytest.mark.parametrize("dtype", [tf.float32, tf.bfloat16])
@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_dropout_drops_its_share_and_keeps_the_expectation(rate, dtype):
    x = tf.ones([301, 333], dtype)
    y = tf.cast(operations.dropout(x, rate, tf.constant([3, 4])), tf.float32).numpy()
    assert np.mean(y == 0) == pytest.approx(rate, abs=0.005)
    assert y.mean() == pytest.approx(1, abs=0.01)
    assert len(np.unique(y)) == 2
    # No structure along either axis.
    assert (y == 0).mean(0).std() < 2.5 * math.sqrt(rate * (1 - rate) / 301)
    assert (y == 0).mean(1).std() < 2.5 * math.sqrt(rate * (1 - rate) / 333)


def test_dropout_is_the_same_eagerly_in_graphs_and_under_xla():
    x, seed = tf.ones([7, 9]), tf.constant([5, 6])
    eager = operations.dropout(x, 0.3, seed)
    for jit in (False, True):
        compiled = tf.function(lambda x, seed: operations.dropout(x, 0.3, seed), jit_compile=jit)
        np.testing.assert_array_equal(compiled(x, seed), eager)


def test_dropout_gradient_is_its_mask():
    x, seed = tf.random.normal([20, 30]), tf.constant([1, 1])
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        y = operations.dropout(x, 0.4, seed)
        added = operations.dropout(x, 0.4, seed, 2 * x)
    np.testing.assert_allclose(tape.gradient(y, x) * x, y, rtol=1e-6)
    np.testing.assert_allclose(added, y + 2 * x, rtol=1e-6)
    np.testing.assert_allclose(tape.gradient(added, x), tape.gradient(y, x) + 2, rtol=1e-6)


def test_masks_of_different_seeds_and_neighbours_are_unrelated():
    def dropped(seed):
        return (operations.dropout(tf.ones([300_000]), 0.1, tf.constant(seed)).numpy() == 0).astype(np.float64)

    mask = dropped([3, 7])
    others = [dropped([3, 8]), dropped([4, 7]), dropped([7, 3]), *(np.roll(mask, by) for by in (1, 2, 16, 256, 4096))]
    for other in others:
        assert abs(np.corrcoef(mask, other)[0, 1]) < 5 / math.sqrt(300_000)  # five standard deviations


def test_rate_zero_is_the_identity():
    x = tf.ones([2, 2])
    assert operations.dropout(x, 0.0, None) is x


def negative_log_likelihood(logits, labels):
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
        nll, right = operations.cross_entropy(*variables, tf.constant(labels, tf.int32))
        loss = tf.reduce_sum(nll * weights)
    logits = x.astype(np.float64) @ table.T + bias
    expected, shares = negative_log_likelihood(logits, labels)
    np.testing.assert_allclose(nll, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(right, logits.argmax(-1) == labels)
    d_logits = (shares - np.eye(11)[labels]) * weights[:, None]
    for found, expected in zip(
        tape.gradient(loss, variables), (d_logits @ table, d_logits.T @ x, d_logits.sum(0)), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_of_equal_logits_only_one_is_right():
    """In bfloat16 many are equal."""
    _, right = operations.cross_entropy(tf.ones([4, 1]), tf.ones([4, 1]), tf.zeros(4), tf.range(4))
    np.testing.assert_array_equal(right, [1, 0, 0, 0])


def test_cross_entropy_of_a_hopeless_label_is_finite():
    nll, _ = operations.cross_entropy(
        tf.constant([[500.0]]), tf.constant([[1.0], [0.0]]), tf.zeros(2), tf.constant([1])
    )
    assert float(nll[0]) == 500.0
