"""The two pretraining losses, as sums, so that parts of a batch (devices, accumulation) can be added up.

The loss of a batch is `masked nll / (weights + 1e-5) + next-sentence nll / examples` (google-research/bert,
`run_pretraining.py`), where all four sums go over the whole batch.

Legend: B batch, L length, P predictions, V vocabulary.
"""

import tensorflow as tf

from preprocessing import features

# Added to the number of predictions, so that a batch without any has loss 0.
NO_PREDICTIONS = 1e-5


def masked_lm(logits_BPV: tf.Tensor, batch) -> tuple[tf.Tensor, tf.Tensor]:
    """(summed negative log likelihood, number predicted rightly), each weighted by `masked_lm_weights`."""
    labels_BP, weights_BP = batch[features.MASKED_LM_IDS], batch[features.MASKED_LM_WEIGHTS]
    nll_BP = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels_BP, logits=logits_BPV)
    # A label whose logit is the greatest; unlike argmax over the vocabulary this is one cheap pass.
    label_logits_BP = tf.gather(tf.stop_gradient(logits_BPV), labels_BP, batch_dims=2)
    right_BP = tf.cast(label_logits_BP >= tf.reduce_max(tf.stop_gradient(logits_BPV), axis=-1), tf.float32)
    return tf.reduce_sum(weights_BP * nll_BP), tf.reduce_sum(weights_BP * right_BP)


def next_sentence(logits_B2: tf.Tensor, batch) -> tuple[tf.Tensor, tf.Tensor]:
    """(summed negative log likelihood, number predicted rightly) over the examples that are not filling."""
    labels_B = batch[features.NEXT_SENTENCE_LABELS][:, 0]
    real_B = real_examples(batch)
    nll_B = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels_B, logits=logits_B2)
    right_B = tf.cast(tf.argmax(logits_B2, axis=-1, output_type=tf.int32) == labels_B, tf.float32)
    return tf.reduce_sum(real_B * nll_B), tf.reduce_sum(real_B * right_B)


def real_examples(batch) -> tf.Tensor:
    """[B] float32: 1 for an example, 0 for one that only fills the batch (it has no token)."""
    return tf.cast(batch[features.INPUT_MASK][:, 0], tf.float32)
