import keras
import numpy as np
import pytest
import tensorflow as tf

from model.encoder import BertEncoder
from model.encoder.heads import ALL_HEADS, LABELS
from model.encoder.smaller import Kept, smaller, spread
from preprocessing.errors import InputError
from preprocessing.features import INPUT_IDS, INPUT_MASK, SEGMENT_IDS
from tests.model import small_examples

TOKENS = [0, 1, 2, 3, 4, 9, 11, 30, 39]


@pytest.fixture(scope="module")
def whole():
    """Every head, and no array of zeros or ones."""
    keras.utils.set_random_seed(1)
    labelled = [
        head.with_labels(3) if any(LABELS in array.axes for array in head.arrays) else head for head in ALL_HEADS
    ]
    encoder = BertEncoder(small_examples.encoder_settings(num_layers=4), labelled)
    for weight in encoder.weights:
        weight.assign(keras.random.normal(weight.shape))
    return encoder


def test_tokens_that_are_kept_mean_what_they_meant(whole):
    small = smaller(whole, Kept(tokens=TOKENS))
    ids = np.random.default_rng(2).integers(0, len(TOKENS), (3, 8))
    mask = np.arange(8) < [[8], [5], [1]]
    inputs = [{INPUT_IDS: of, INPUT_MASK: mask, SEGMENT_IDS: ids % 2} for of in (ids, np.array(TOKENS)[ids])]
    ours, theirs = (of({name: tf.constant(values, tf.int32) for name, values in given.items()})
                    for of, given in zip((small, whole), inputs, strict=True))  # fmt: skip
    assert small.settings.vocab_size == len(TOKENS)
    positions = tf.constant([[0, 3]] * 3)
    for head in whole.described_heads:
        states = "sequence_output" if head.over == "tokens" else "pooled_output"
        asked = [positions] if head.over == "tokens" else []
        answers = [getattr(of, head.name)(found[states], *asked) for of, found in ((small, ours), (whole, theirs))]
        expected = tf.gather(answers[1], TOKENS, axis=-1) if head.name == "masked_lm" else answers[1]
        np.testing.assert_allclose(answers[0], expected, atol=1e-4, err_msg=head.name)


def test_layers_are_taken_in_their_order(whole):
    assert spread(6, 3) == [0, 3, 5]
    assert spread(12, 6) == [0, 2, 4, 7, 9, 11]  # as Hugging Face's DistilBERT began
    assert spread(12, 4) == [0, 4, 7, 11]
    assert spread(3, 2) == [0, 2]
    assert spread(6, 3, last=False) == [0, 2, 4]
    assert spread(12, 4, last=False) == [0, 3, 6, 9]
    small = smaller(whole, Kept([2, 0]))
    assert small.heads == whole.heads
    for layer, source in zip(small.transformer_layers, (2, 0), strict=True):
        theirs = whole.transformer_layers[source].weights
        assert all(np.array_equal(ours, of) for ours, of in zip(layer.weights, theirs, strict=True))
    for name in ("embeddings", "pooler", *whole.heads):
        pairs = zip(getattr(small, name).weights, getattr(whole, name).weights, strict=True)
        assert all(np.array_equal(ours, theirs) for ours, theirs in pairs)


@pytest.mark.parametrize("layers", [[4], [], [-1]])
def test_layers_must_be_there(whole, layers):
    with pytest.raises(InputError, match="layers must be of the checkpoint's, 0 to 3"):
        smaller(whole, Kept(layers))
    with pytest.raises(InputError, match=r"there must be from 1 to 4 layers.*Received: 5"):
        spread(4, 5)


def test_tokens_must_be_there(whole):
    for tokens in ([], [1, 1], [2, 1], [-1, 3]):
        with pytest.raises(InputError, match="tokens must be ids, ascending"):
            Kept(tokens=tokens)
    with pytest.raises(InputError, match=r"tokens must be of the model's 40 embeddings\. Received: 40"):
        smaller(whole, Kept(tokens=[0, 40]))
