import numpy as np
import pytest
import tensorflow as tf

from model.encoder import BertEncoder
from model.tasks import pretraining
from model.tasks.pretraining import filled_masks
from preprocessing import features
from tests.model import small_examples
from tests.model.encoder.test_operations import negative_log_likelihood


def test_masked_loss_counts_weighted_predictions_only():
    encoder, batch = BertEncoder(small_examples.encoder_settings()), small_examples.batch(4)
    outputs = pretraining.encoder_outputs(encoder, batch)
    total, _ = pretraining.masked_lm(encoder, outputs, batch)
    changed = batch | {
        features.MASKED_LM_IDS: tf.where(batch[features.MASKED_LM_WEIGHTS] > 0, batch[features.MASKED_LM_IDS], 1)
    }
    assert float(total) == float(pretraining.masked_lm(encoder, outputs, changed)[0])
    nothing = batch | {features.MASKED_LM_WEIGHTS: tf.zeros_like(batch[features.MASKED_LM_WEIGHTS])}
    assert float(pretraining.masked_lm(encoder, outputs, nothing)[0]) == 0.0


def test_losses_at_the_predicted_positions_are_those_of_the_whole():
    encoder = BertEncoder(small_examples.encoder_settings())
    batch = small_examples.batch(5)
    outputs = pretraining.encoder_outputs(encoder, batch)
    whole = encoder(batch)
    np.testing.assert_allclose(outputs["pooled_output"], whole["pooled_output"], atol=1e-6)
    logits = encoder.masked_lm(whole["sequence_output"], batch[features.MASKED_LM_POSITIONS]).numpy()
    labels = batch[features.MASKED_LM_IDS].numpy().reshape(-1)
    nll, _ = negative_log_likelihood(logits.reshape(-1, small_examples.VOCAB), labels)
    found, _ = pretraining.masked_lm(encoder, outputs, batch)
    np.testing.assert_allclose(found, (nll * batch[features.MASKED_LM_WEIGHTS].numpy().reshape(-1)).sum(), rtol=1e-5)


def test_baselines():
    found = pretraining.baselines(np.array([0, 3, 1]))
    assert found["commonest_token_accuracy"] == 0.75
    assert found["unigram_loss"] == pytest.approx(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25)))


def test_a_masked_position_beyond_the_mask_is_shown_as_nothing():
    batch = small_examples.examples(1)
    batch[features.MASKED_LM_POSITIONS][0, 0] = small_examples.LENGTH - 1
    batch[features.INPUT_MASK][0, -1] = 0
    tokens = [f"t{i}" for i in range(small_examples.VOCAB)]
    shown = filled_masks(batch, np.zeros([1, small_examples.PREDICTIONS], int), tokens)
    assert len(shown.split()) == batch[features.INPUT_MASK].sum()
