"""The two pretraining losses, as sums, so that parts of a batch (devices, accumulation) can be added up.

The loss of a batch is `masked nll / (weights + 1e-5) + next-sentence nll / examples` (google-research/bert,
`run_pretraining.py`), where all four sums go over the whole batch.

Legend: B batch, L length, H hidden, P predictions, M = B * P, V vocabulary.
"""

import tensorflow as tf

from preprocessing import features

# Added to the number of predictions, so that a batch without any has loss 0.
NO_PREDICTIONS = 1e-5


def masked_lm(encoder, outputs, batch) -> tuple[tf.Tensor, tf.Tensor]:
    """(summed negative log likelihood, number predicted rightly), each weighted by `masked_lm_weights`.

    `outputs` are the encoder's at [CLS] and the masked positions (`encoder_outputs`)."""
    positions_BP = batch[features.MASKED_LM_POSITIONS]
    after_first_BP = tf.ones_like(positions_BP) * tf.range(1, tf.shape(positions_BP)[1] + 1)
    x_MH = encoder.masked_lm.before_logits(outputs["sequence_output"], after_first_BP)
    labels_M = tf.reshape(batch[features.MASKED_LM_IDS], [-1])
    weights_M = tf.reshape(batch[features.MASKED_LM_WEIGHTS], [-1])
    nll_M, right_M = cross_entropy(x_MH, encoder.embeddings.word.value, encoder.masked_lm.output_bias.value, labels_M)
    return tf.reduce_sum(weights_M * nll_M), tf.reduce_sum(weights_M * right_M)


def cross_entropy(
    x_MH: tf.Tensor, table_VH: tf.Tensor, bias_V: tf.Tensor, labels_M: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """(negative log likelihoods, 1 where the label's logit is the greatest, of equal ones the first), both float32 [M],
    of the logits `x @ table.T + bias`.

    On a CPU the passes over [M, V] cost as much as the matmuls. So the softmax, which the gradient needs anyway, gives
    the loss as well (its greatest value is `1 / sum(exp(logits - greatest logit))`), and is neither scaled by the
    gradient of the loss nor relieved of the labels: both are done to its small products.
    """

    @tf.custom_gradient
    def compute(x_MH, table_VH, bias_V):
        dtype = x_MH.dtype
        table_VH = tf.cast(table_VH, dtype)
        logits_MV = tf.nn.bias_add(tf.cast(tf.matmul(x_MH, table_VH, transpose_b=True), tf.float32), bias_V)
        shares_MV = tf.nn.softmax(logits_MV)
        best_M = tf.argmax(logits_MV, axis=-1, output_type=labels_M.dtype)
        greatest_M, share_M, label_M = (
            tf.gather(values_MV, at_M, batch_dims=1)
            for values_MV, at_M in ((logits_MV, best_M), (shares_MV, best_M), (logits_MV, labels_M))
        )
        nll_M = greatest_M - tf.math.log(share_M) - label_M
        right_M = tf.cast(best_M == labels_M, tf.float32)

        def gradient(d_nll_M, _):
            d_M1, shares = d_nll_M[:, None], tf.cast(shares_MV, dtype)
            d_bias_V = tf.matmul(d_M1, shares_MV, transpose_a=True)[0]
            d_bias_V = tf.tensor_scatter_nd_sub(d_bias_V, labels_M[:, None], d_nll_M)
            at_label_MH = tf.gather(table_VH, labels_M)
            d_x_MH = tf.cast(d_M1, dtype) * (tf.matmul(shares, table_VH) - at_label_MH)
            scaled_MH = tf.cast(d_M1, dtype) * x_MH
            d_table_VH = tf.cast(tf.matmul(shares, scaled_MH, transpose_a=True), tf.float32)
            d_table_VH = tf.tensor_scatter_nd_sub(d_table_VH, labels_M[:, None], tf.cast(scaled_MH, tf.float32))
            return d_x_MH, d_table_VH, d_bias_V

        return (nll_M, right_M), gradient

    return compute(x_MH, table_VH, bias_V)


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


def encoder_outputs(encoder, batch, **options) -> dict[str, tf.Tensor]:
    """The encoder's outputs at [CLS] and the masked positions only, which is all that the losses need."""
    return encoder(batch, positions=tf.pad(batch[features.MASKED_LM_POSITIONS], [[0, 0], [1, 0]]), **options)
