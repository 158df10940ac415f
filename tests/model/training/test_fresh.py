"""Informed fresh weights: where heads look before they have learned anything, and what the model answers then."""

import numpy as np
import pytest

from model import checkpoints
from model.encoder import BertEncoder
from model.settings import TrainingSettings, tiny
from model.tasks.pretraining import Pretraining
from model.training import fresh, train
from model.training.evaluation import Evaluation
from preprocessing import batches, features
from preprocessing.errors import InputError
from tests.model import small_examples


def attentions(encoder, length=64):
    ids = np.random.default_rng(0).integers(5, encoder.settings.vocab_size, (4, length))
    batch = {features.INPUT_IDS: ids, features.INPUT_MASK: np.ones_like(ids), features.SEGMENT_IDS: np.zeros_like(ids)}
    return encoder(batch, attentions=True)["attentions"][0].numpy()


def test_heads_go_outwards_in_turn():
    assert fresh.places(2, 2) == [[-1, 1], [-2]]
    assert fresh.places(6, 4) == [[-1, 1, -2, 2], [-3, 3]]
    assert fresh.places(1, 3) == [[-1, 1, -2]]


@pytest.mark.parametrize("changed", [{}, {"initializer_range": 0.06}, {"num_heads": 8, "hidden_size": 256}])
def test_each_head_looks_at_its_place_from_the_first_step(changed):
    encoder = BertEncoder(tiny(vocab_size=200, **changed))
    before = attentions(encoder)
    fresh.look_at_neighbours(encoder)
    after = attentions(encoder)
    for head, offset in enumerate(fresh.places(2, encoder.settings.num_heads)[0]):
        inner = np.arange(8, 56)
        assert before[:, head, inner, inner + offset].mean() < 0.03  # of 64
        means = [after[:, head, inner, inner + offset + beside].mean() for beside in range(-4, 5)]
        assert np.argmax(means) == 4
        assert means[4] > 0.4


def test_heads_without_room_for_a_wave_are_refused():
    with pytest.raises(InputError, match=r"needs heads of two values or more\. Received: 1"):
        fresh.look_at_neighbours(BertEncoder(tiny(vocab_size=50, hidden_size=8, num_heads=8, intermediate_size=8)))


def test_first_answers_are_the_shares_of_the_words(tmp_path):
    path = small_examples.write(tmp_path / "a.tfrecord", small_examples.examples(400))
    examples = batches.open_examples([path], features.MASKED_PAIRS)
    encoder = BertEncoder(small_examples.encoder_settings())
    figures = Evaluation(Pretraining(), encoder, examples, 32)
    before = figures()
    fresh.inform(encoder, examples, None)
    after = figures()
    assert after["masked_lm_loss"] == pytest.approx(after["unigram_loss"], abs=0.1)
    assert after["masked_lm_loss"] < before["masked_lm_loss"] - 0.05
    assert np.exp(encoder.masked_lm.output_bias.numpy()).sum() == pytest.approx(1, abs=1e-5)


def test_a_checkpoint_to_begin_with_has_its_own_weights(tmp_path):
    path = small_examples.write(tmp_path / "a.tfrecord", small_examples.examples(20))
    first = BertEncoder(small_examples.encoder_settings())
    checkpoints.save(first, str(tmp_path / "first"))
    settings = TrainingSettings(steps=1, batch_size=4, learning_rate=1e-9, warmup_steps=0, initial_weights="informed")
    results = [
        train(first.settings, settings, task=Pretraining(), train_files=[path], output=str(tmp_path / name), init=init)
        for name, init in (("on", str(tmp_path / "first")), ("new", None))
    ]
    positions = [result.encoder.embeddings.position.numpy() for result in results]
    np.testing.assert_allclose(positions[0], first.embeddings.position.numpy(), atol=1e-6)
    assert np.abs(positions[1] - positions[0]).max() > 1e-3
