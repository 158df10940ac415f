import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from model.encoder import BertEncoder
from model.settings import TrainingSettings
from model.tasks.pretraining import Pretraining
from model.training import optimizer as optimizers
from model.training.loop import loss_of
from model.training.optimizer import Optimizer
from model.training.step import LossScale, TrainingStep
from tests.model import small_examples

TASK = Pretraining()
SETTINGS = TrainingSettings(steps=10, learning_rate=1e-2, warmup_steps=2, weight_decay=0.1)


def changed(**values):
    return dataclasses.replace(SETTINGS, **values)


DECAYED = {
    "embeddings/word",
    "embeddings/position",
    "embeddings/segment",
    *(
        f"layer_{layer}/{name}_kernel"
        for layer in range(2)
        for name in ("qkv", "attention", "inner", "output")
    ),
    "pooler/kernel",
    "masked_lm/kernel",
    "next_sentence/kernel",
}  # fmt: skip


def small_encoder(**overrides):
    return BertEncoder(small_examples.encoder_settings(**overrides))


def test_exactly_the_matrices_are_decayed():
    paths = [variable.path for variable in small_encoder().trainable_variables]
    decayed = {path for path in paths if optimizers.decays(path)}
    assert decayed == DECAYED
    assert len(paths) == len(set(paths))


def test_layer_rates():
    paths = ["bert/embeddings/word", "bert/layer_0/qkv_bias", "bert/layer_1/inner_kernel", "bert/pooler/kernel"]
    assert optimizers.layer_rates(paths, 2, 0.5) == [0.125, 0.25, 0.5, 1.0]
    assert optimizers.layer_rates(paths, 2, 0.5, 3.0) == [0.125, 0.25, 0.5, 3.0]


BIASES = {"qkv_bias", "attention_bias", "inner_bias", "output_bias", "attention_norm_offset", "output_norm_offset"}


@pytest.mark.parametrize(
    ("values", "layers"),
    [
        ({}, {"embeddings/word", "layer_0/qkv_kernel", "layer_1/qkv_kernel"}),
        ({"freeze": 1}, {"layer_1/qkv_kernel"}),
        ({"freeze": 2}, set()),
        ({"tune": "head"}, set()),
        ({"tune": "bias"}, set()),
    ],
)
def test_what_is_trained(values, layers):
    """And no other weight changes in a step."""
    encoder, settings = small_encoder(), changed(**values)
    before = {variable.path: variable.numpy() for variable in encoder.variables}
    optimizers.choose(encoder, settings)
    trained = {variable.path for variable in encoder.trainable_variables}
    matrices = {path for path in trained if path in DECAYED and path.startswith(("layer", "embeddings"))}
    assert matrices >= layers
    assert bool(matrices) == bool(layers)
    assert {path for path in before if path.split("/")[0] not in ("embeddings", "layer_0", "layer_1")} <= trained
    if values == {"tune": "bias"}:
        assert {path for path in trained if path.startswith("layer_0")} == {f"layer_0/{name}" for name in BIASES}
    one_step(encoder, settings, small_examples.batch(8))
    moved = {variable.path for variable in encoder.variables if (variable.numpy() != before[variable.path]).any()}
    assert moved <= trained
    assert {"pooler/kernel", "masked_lm/kernel"} <= moved


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [0.0, 0.5, 0.8, 0.7, 0.1]),
        ({"schedule": "constant"}, [0.0, 0.5, 1.0, 1.0, 1.0]),
        ({"schedule": "one-cycle"}, [0.0, 0.5, 1.0, 0.875, 0.125]),
        ({"schedule": "one-cycle", "warmup_steps": 3, "end_learning_rate": 3e-3}, [0.0, 1 / 3, 2 / 3, 1.0, 0.4]),
        ({"schedule": "polynomial", "schedule_power": 2.0}, [0.0, 0.5, 0.64, 0.49, 0.01]),
        ({"warmup_steps": 0, "end_learning_rate": 5e-3}, [1.0, 0.95, 0.9, 0.85, 0.55]),
    ],
)
def test_learning_rate(settings, expected):
    rates = [float(optimizers.learning_rate(changed(**settings), tf.constant(step))) for step in (0, 1, 2, 3, 9)]
    np.testing.assert_allclose(rates, np.array(expected) * 1e-2, rtol=1e-5)


class Reference:
    """The update rules in float64, from the papers."""

    def __init__(self, settings, value):
        self.settings, self.value = settings, value.astype(np.float64)
        self.first = self.second = np.zeros_like(self.value)

    def apply(self, gradient, step, decayed):
        settings = self.settings
        rate = settings.learning_rate * (step / 2 if step < 2 else 1 - step / settings.steps)
        if settings.optimizer == "sgd":
            update = gradient
        else:
            self.first = settings.beta_1 * self.first + (1 - settings.beta_1) * gradient
            self.second = settings.beta_2 * self.second + (1 - settings.beta_2) * gradient**2
            first, second = self.first, self.second
            if settings.bias_correction:
                first = first / (1 - settings.beta_1 ** (step + 1))
                second = second / (1 - settings.beta_2 ** (step + 1))
            update = first / (np.sqrt(second) + settings.epsilon)
        if decayed:
            update = update + settings.weight_decay * self.value
        if settings.optimizer == "lamb" and decayed:
            thirds = 3 if self.value.shape[1] == 3 * self.value.shape[0] else 1  # query, key and value
            update = np.concatenate(
                [
                    part * np.linalg.norm(value) / np.linalg.norm(part)
                    for value, part in zip(*(np.split(x, thirds, axis=1) for x in (self.value, update)), strict=True)
                ],
                axis=1,
            )
        self.value = self.value - rate * update


@pytest.mark.parametrize("bias_correction", [False, True])
@pytest.mark.parametrize("name", ["adamw", "lamb", "sgd"])
def test_update_rules(name, bias_correction):
    settings = changed(optimizer=name, bias_correction=bias_correction, epsilon=1e-3)
    encoder = small_encoder()
    variables = [encoder.embeddings.segment, encoder.layer_0.qkv_kernel, encoder.pooler.bias, encoder.layer_0.qkv_bias]
    encoder.pooler.bias.assign(np.linspace(-1, 1, 16))  # the other bias begins at 0, as they do
    encoder.layer_0.qkv_kernel.assign(encoder.layer_0.qkv_kernel * np.repeat([1.0, 2.0, 3.0], 16))
    optimizer = Optimizer(settings, variables, layers=2)
    references = [Reference(settings, variable.numpy()) for variable in variables]
    apply = tf.function(optimizer.apply)
    random = np.random.default_rng(0)
    for step in range(6):
        gradients = [random.normal(size=variable.shape) for variable in variables]
        apply([tf.constant(g, tf.float32) for g in gradients], tf.constant(step), tf.constant(0.5), tf.constant(True))
        for reference, gradient, decayed in zip(references, gradients, (True, True, False, False), strict=True):
            reference.apply(0.5 * gradient, step, decayed)
    for variable, reference in zip(variables, references, strict=True):
        np.testing.assert_allclose(variable.numpy(), reference.value, rtol=1e-5, atol=2e-6)


def one_step(encoder, settings, batch, step=3):
    optimizer = Optimizer(settings, encoder.trainable_variables, 2)
    run = TrainingStep(settings, TASK, encoder, optimizer, 1)
    result = tf.function(run)(batch, tf.constant(step), tf.constant(1.0))
    return dict(zip(run.names, result.numpy().tolist(), strict=True))


def test_gradients_against_differences_in_a_direction():
    """SGD's step is the gradient: along it, the loss must fall as fast as its square says."""
    settings = changed(optimizer="sgd", learning_rate=1e-3, warmup_steps=0, weight_decay=0.0, clip_norm=0.0)
    encoder = small_encoder(dropout=0.0, attention_dropout=0.0, initializer_range=0.3)
    batch = small_examples.batch(8)

    first = one_step(encoder, settings, batch, step=0)
    second = one_step(encoder, settings, batch, step=0)
    norms = (first["gradient_norm"] + second["gradient_norm"]) / 2
    assert loss_of(TASK, first) - loss_of(TASK, second) == pytest.approx(1e-3 * norms**2, rel=0.02)


def test_recomputing_changes_no_gradient():
    """With dropout: what is computed again must drop the same elements."""
    weights = []
    for recompute in (False, True):
        settings = changed(optimizer="sgd", learning_rate=1.0, clip_norm=0.0, recompute=recompute)
        keras.utils.set_random_seed(5)
        encoder = small_encoder(dropout=0.3, attention_dropout=0.3)
        one_step(encoder, settings, small_examples.batch(8))
        weights.append(encoder.get_weights())
    for kept, recomputed in zip(*weights, strict=True):
        np.testing.assert_allclose(recomputed, kept, atol=1e-6)


def test_gradients_are_those_of_the_plain_loss():
    """The step's sparse embedding gradient, one-pass loss and chosen positions against the loss as one would write
    it, differentiated by TensorFlow."""
    settings = changed(optimizer="sgd", learning_rate=1.0, warmup_steps=0, weight_decay=0.0, clip_norm=0.0)
    encoder = small_encoder(dropout=0.0, attention_dropout=0.0, initializer_range=0.3)
    batch = small_examples.batch(8)
    weights = batch["masked_lm_weights"]
    cross_entropy = tf.nn.sparse_softmax_cross_entropy_with_logits
    with tf.GradientTape() as tape:
        outputs = encoder(batch)
        masked = cross_entropy(
            batch["masked_lm_ids"], encoder.masked_lm(outputs["sequence_output"], batch["masked_lm_positions"])
        )
        following = cross_entropy(batch["next_sentence_labels"][:, 0], encoder.next_sentence(outputs["pooled_output"]))
        loss = tf.reduce_sum(weights * masked) / (tf.reduce_sum(weights) + 1e-5) + tf.reduce_mean(following)
    expected = tape.gradient(loss, [variable.value for variable in encoder.trainable_variables])
    before = [variable.numpy() for variable in encoder.trainable_variables]
    one_step(encoder, settings, batch, step=0)
    for variable, old, gradient in zip(encoder.trainable_variables, before, expected, strict=True):
        gradient = tf.convert_to_tensor(gradient).numpy()
        np.testing.assert_allclose(old - variable.numpy(), gradient, atol=2e-6, err_msg=variable.path)


def test_clipping_bounds_the_step():
    settings = changed(optimizer="sgd", learning_rate=1.0, warmup_steps=0, weight_decay=0.0, clip_norm=0.01)
    encoder = small_encoder()
    before = [variable.numpy() for variable in encoder.trainable_variables]
    norm = one_step(encoder, settings, small_examples.batch(8), step=0)["gradient_norm"]
    moved = sum(
        np.square(old - new.numpy()).sum() for old, new in zip(before, encoder.trainable_variables, strict=True)
    )
    assert norm > 0.01
    assert np.sqrt(moved) == pytest.approx(0.01, rel=1e-3)


def test_a_step_that_is_not_finite_changes_nothing():
    encoder = small_encoder()
    encoder.pooler.bias.assign(np.full(16, np.nan))
    before = [variable.numpy() for variable in encoder.trainable_variables]
    result = one_step(encoder, SETTINGS, small_examples.batch(8))
    assert result["good"] == 0.0
    for old, new in zip(before, encoder.trainable_variables, strict=True):
        np.testing.assert_array_equal(old, new.numpy())


def test_accumulation_gives_the_step_of_the_whole_batch():
    results = []
    for parts in (1, 4):
        encoder = small_encoder(dropout=0.0, attention_dropout=0.0)
        random = np.random.default_rng(0)
        for variable in encoder.trainable_variables:
            variable.assign(random.normal(size=variable.shape) * 0.1)
        settings = changed(optimizer="sgd", learning_rate=1.0, warmup_steps=0, accumulate=parts, batch_size=8)
        sums = one_step(encoder, settings, small_examples.batch(8), step=0)
        results.append((sums, [variable.numpy() for variable in encoder.trainable_variables]))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-5)
    for whole, parts in zip(results[0][1], results[1][1], strict=True):
        np.testing.assert_allclose(whole, parts, atol=1e-6)


def test_accumulation_of_batches_whose_length_is_known_late():
    """As with length buckets."""
    signature = {
        name: tf.TensorSpec([8, None], tf.float32 if value.dtype == tf.float32 else tf.int32)
        for name, value in small_examples.batch(8).items()
    }
    sums = []
    for parts in (1, 2):
        keras.utils.set_random_seed(5)
        encoder = small_encoder(dropout=0.0, attention_dropout=0.0)
        settings = changed(accumulate=parts, batch_size=8)
        step = TrainingStep(settings, TASK, encoder, Optimizer(settings, encoder.trainable_variables, 2), 1)
        run = tf.function(step, input_signature=[signature, tf.TensorSpec([], tf.int32), tf.TensorSpec([], tf.float32)])
        sums.append(run(small_examples.batch(8), 3, 1.0).numpy())
    np.testing.assert_allclose(sums[0], sums[1], rtol=1e-5)


def test_float16_halves_its_scale_after_a_bad_step():
    scale = LossScale("float16")
    start = float(scale.value())
    scale.update(tf.constant(False))
    assert float(scale.value()) == start / 2
    scale.good_steps.assign(LossScale.GROW_AFTER - 1)
    scale.update(tf.constant(True))
    assert float(scale.value()) == start
