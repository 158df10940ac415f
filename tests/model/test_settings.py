import dataclasses

import pytest

from model import settings
from model.settings import EncoderSettings, TrainingSettings
from preprocessing.errors import InputError


@pytest.mark.parametrize(
    ("name", "layers", "hidden", "heads"),
    [
        ("tiny", 2, 128, 2),
        ("mini", 4, 256, 4),
        ("small", 4, 512, 8),
        ("medium", 8, 512, 8),
        ("base", 12, 768, 12),
        ("large", 24, 1024, 16),
    ],
)
def test_named_sizes_are_the_released_ones(name, layers, hidden, heads):
    size = settings.NAMED[name]()
    assert (size.num_layers, size.hidden_size, size.num_heads) == (layers, hidden, heads)
    assert size.intermediate_size == 4 * hidden
    assert size.head_size == 64
    assert settings.NAMED[name](vocab_size=99) == dataclasses.replace(size, vocab_size=99)


def test_base_is_the_default():
    assert EncoderSettings() == settings.base()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("vocab_size", 0),
        ("hidden_size", 100),  # not a multiple of 12 heads
        ("num_layers", -1),
        ("max_positions", 0),
        ("activation", "relu"),
        ("dropout", 1.0),
        ("attention_dropout", -0.1),
        ("layer_norm_epsilon", 0.0),
    ],
)
def test_bad_values_are_named(field, value):
    with pytest.raises(InputError, match=f"{field}.*Received: {value!r}"):
        EncoderSettings(**{field: value})


@pytest.mark.parametrize(
    ("values", "compiled"),
    [
        ({}, True),
        ({"buckets": (8, 16)}, False),  # each length would be compiled anew
        ({"buckets": (8, 16), "xla": True}, True),
        ({"xla": False}, False),
    ],
)
def test_a_gpu_compiles_one_shape_by_default(values, compiled):
    assert TrainingSettings(**values).compiled(on_gpus=True) == compiled
    assert TrainingSettings(**values).compiled(on_gpus=False) == bool(values.get("xla"))
