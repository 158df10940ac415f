"""What is told about a model: sums over batches, the figures made of them, and what needs no model at all."""

import math

import numpy as np
import tensorflow as tf

from model import losses
from preprocessing import features

# The sums over a batch, in the order in which they stand in its vector.
SUMS = ("masked_nll", "masked_weight", "masked_right", "next_nll", "next_right", "examples", "tokens")


def batch_sums(encoder, outputs, batch) -> tf.Tensor:
    """[len(SUMS)] float32 of a batch, from the encoder's outputs (`losses.encoder_outputs`)."""
    masked_nll, masked_right = losses.masked_lm(encoder, outputs, batch)
    next_nll, next_right = tf.constant(0.0), tf.constant(0.0)
    if encoder.next_sentence is not None:
        next_nll, next_right = losses.next_sentence(encoder.next_sentence(outputs["pooled_output"]), batch)
    return tf.stack(
        [
            masked_nll,
            tf.reduce_sum(batch[features.MASKED_LM_WEIGHTS]),
            masked_right,
            next_nll,
            next_right,
            tf.reduce_sum(losses.real_examples(batch)),
            tf.cast(tf.reduce_sum(batch[features.INPUT_MASK]), tf.float32),
        ]
    )


def figures(sums: np.ndarray, next_sentence: bool = True) -> dict[str, float]:
    """Losses in nats and accuracies from the sums [len(SUMS)] over any number of batches; nan where there is none."""
    total = dict(zip(SUMS, np.asarray(sums, np.float64).tolist(), strict=True))
    predictions, examples = total["masked_weight"] or math.nan, total["examples"] or math.nan
    result = {
        "masked_lm_loss": total["masked_nll"] / predictions,
        "masked_lm_accuracy": total["masked_right"] / predictions,
    }
    if next_sentence:
        result["next_sentence_loss"] = total["next_nll"] / examples
        result["next_sentence_accuracy"] = total["next_right"] / examples
    return result


def baselines(counts: np.ndarray) -> dict[str, float]:
    """What a model must beat, from how often each token [V] is a held-out label.

    `unigram_loss`: the loss, in nats, of predicting the held-out distribution itself, that is its entropy.
    `commonest_token_accuracy`: the accuracy of always saying the commonest token.
    """
    shares = counts[counts > 0] / max(counts.sum(), 1)
    return {
        "unigram_loss": float(-(shares * np.log(shares)).sum()),
        "commonest_token_accuracy": float(shares.max(initial=0.0)),
    }
