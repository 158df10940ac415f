"""The two pretraining losses, as sums, so that parts of a batch (devices, accumulation) can be added up.

The loss of a batch is `masked nll / (weights + 1e-5) + next-sentence nll / examples` (google-research/bert,
`run_pretraining.py`), where all four sums go over the whole batch.

Legend: B batch, L length, P predictions, M = B * P, V vocabulary.
"""

import tensorflow as tf

from preprocessing import features

# Added to the number of predictions, so that a batch without any has loss 0.
NO_PREDICTIONS = 1e-5


def masked_lm(logits_BPV: tf.Tensor, batch) -> tuple[tf.Tensor, tf.Tensor]:
    """(summed negative log likelihood, number predicted rightly), each weighted by `masked_lm_weights`."""
    labels_BP, weights_BP = batch[features.MASKED_LM_IDS], batch[features.MASKED_LM_WEIGHTS]
    nll_M, right_M = cross_entropy(tf.reshape(logits_BPV, [-1, logits_BPV.shape[-1]]), tf.reshape(labels_BP, [-1]))
    weights_M = tf.reshape(weights_BP, [-1])
    return tf.reduce_sum(weights_M * nll_M), tf.reduce_sum(weights_M * right_M)


def cross_entropy(logits_MV: tf.Tensor, labels_M: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """(negative log likelihoods, 1 where the label's logit is the greatest), both float32 [M].

    TensorFlow's own kernel takes three times as long on a CPU. Here the softmax, which the gradient needs anyway, gives
    the loss as well: its greatest value is `1 / sum(exp(logits - greatest logit))`.
    """
    at_label_M2 = tf.stack([tf.range(tf.shape(labels_M)[0]), labels_M], axis=1)

    @tf.custom_gradient
    def compute(logits_MV):
        shares_MV = tf.nn.softmax(logits_MV)
        greatest_M = tf.reduce_max(logits_MV, axis=-1)
        label_M = tf.gather_nd(logits_MV, at_label_M2)
        nll_M = greatest_M - tf.math.log(tf.reduce_max(shares_MV, axis=-1)) - label_M
        right_M = tf.cast(label_M >= greatest_M, tf.float32)

        def gradient(d_nll_M, _):
            return tf.tensor_scatter_nd_sub(shares_MV * d_nll_M[:, None], at_label_M2, d_nll_M)

        return (nll_M, right_M), gradient

    return compute(logits_MV)


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


def outputs_and_logits(encoder, batch, **options) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
    """(encoder's outputs at [CLS] and the masked positions only, masked-token logits [B, P, V])."""
    positions_BP = batch[features.MASKED_LM_POSITIONS]
    outputs = encoder(batch, positions=tf.pad(positions_BP, [[0, 0], [1, 0]]), **options)
    after_first_BP = tf.ones_like(positions_BP) * tf.range(1, tf.shape(positions_BP)[1] + 1)
    return outputs, encoder.masked_lm(outputs["sequence_output"], after_first_BP)
