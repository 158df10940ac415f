"""Low-rank adapters of query and value."""

import numpy as np
import pytest
import tensorflow as tf

from model import checkpoints
from model.checkpoints.names import arrays_of
from model.training import optimizer as optimizers
from tests.model import small_examples

RANK, ALPHA = 3, 6.0
LAYER = "bert/encoder/layer_1/attention/self"


def adapted(above=0, **options):
    """(an encoder whose adapters say something, the same before they did)"""
    encoder = small_examples.encoder(dropout=0.0, attention_dropout=0.0, **options)
    before = arrays_of(encoder)
    encoder.adapt(RANK, ALPHA, above)
    random = np.random.default_rng(0)
    for layer in encoder.transformer_layers[above:]:
        for up in (layer.adapters.query_up, layer.adapters.value_up):
            up.assign(random.normal(size=up.shape))
    return encoder, before


def test_at_first_nothing_changes():
    encoder = small_examples.encoder(dropout=0.0)
    batch = small_examples.batch(4)
    before = encoder(batch)["sequence_output"].numpy()
    encoder.adapt(RANK, ALPHA)
    np.testing.assert_array_equal(encoder(batch)["sequence_output"], before)
    assert len(encoder.variables) == len({variable.path for variable in encoder.variables})


@pytest.mark.parametrize("options", [{}, {"positions": [[0, 5]] * 4}, {"training": True}, {"recompute": True}], ids=str)
def test_what_is_saved_answers_alike_and_has_none(options, tmp_path):
    """Wherever the last layer is worked out."""
    encoder, _ = adapted()
    checkpoints.save(encoder, tmp_path)
    plain, batch = checkpoints.load(tmp_path), small_examples.batch(4)
    assert [weight.path for weight in plain.weights] == [
        weight.path for weight in encoder.weights if not weight.path.endswith(("_up", "_down"))
    ]
    options = {name: tf.constant(value) if name == "positions" else value for name, value in options.items()}
    expected, found = (model(batch, **options)["sequence_output"] for model in (encoder, plain))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_of_a_kernel_query_and_value_change_by_the_scaled_product():
    encoder, before = adapted(above=1)
    after, adapters = arrays_of(encoder), encoder.transformer_layers[1].adapters
    changed = {name for name, array in after.items() if (array != before[name]).any()}
    assert changed == {f"{LAYER}/query/kernel", f"{LAYER}/value/kernel"}
    product = adapters.query_down.numpy() @ adapters.query_up.numpy() * ALPHA / RANK
    np.testing.assert_allclose(after[f"{LAYER}/query/kernel"], before[f"{LAYER}/query/kernel"] + product, atol=1e-6)


@pytest.mark.parametrize(("freeze", "layers"), [(0, {0, 1}), (1, {1}), (2, set())])
def test_only_they_are_trained_in_the_layers_that_are_not_frozen(freeze, layers):
    encoder = small_examples.encoder()
    there = {variable.path for variable in encoder.variables}
    settings = optimizers.TrainingSettings(tune="lora", freeze=freeze, lora_rank=RANK)
    optimizers.choose(encoder, settings)
    trained = {variable.path for variable in encoder.trainable_variables}
    names = ("query_down", "query_up", "value_down", "value_up")
    assert trained - there == {f"layer_{layer}/{name}" for layer in layers for name in names}
    assert {path.split("/")[0] for path in trained & there} == {"pooler", "masked_lm", "next_sentence"}
    optimizer = optimizers.Optimizer(settings, encoder.trainable_variables, 2)
    assert len(optimizer.slots) == 2 * len(trained)
    rates = dict(zip(trained, optimizers.layer_rates(list(trained), 2, 0.5), strict=True))
    assert {rates[f"layer_{layer}/query_up"] for layer in layers} <= {0.25, 0.5}
