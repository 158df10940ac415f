"""The two pretraining heads of BERT. Their logits are float32 under every precision.

Shapes: B batch, L length, P predictions, M = B * P, H hidden, V vocabulary.
"""

from collections.abc import Callable

import tensorflow as tf

from model import operations
from model.layers import BertLayer
from model.settings import EncoderSettings

MASKED_LM = "masked_lm"
NEXT_SENTENCE = "next_sentence"
ALL_HEADS = (MASKED_LM, NEXT_SENTENCE)


class MaskedLMHead(BertLayer):
    """Logits over the vocabulary at chosen positions: dense, activation, LayerNorm, then the word embedding
    transposed (tied) and a bias of its own.

    `table` gives the word embedding; it is a function so that the variable stays the encoder's alone.
    """

    def __init__(self, settings: EncoderSettings, table: Callable[[], tf.Tensor], **kwargs):
        super().__init__(settings, **kwargs)
        self._table = table

    def add_weights(self):
        hidden = self.settings.hidden_size
        self.kernel = self.matrix("kernel", hidden, hidden)
        self.bias = self.vector("bias", hidden)
        self.norm_scale = self.vector("norm_scale", hidden, "ones")
        self.norm_offset = self.vector("norm_offset", hidden)
        self.output_bias = self.vector("output_bias", self.settings.vocab_size)

    def call(self, sequence_output, positions, table=None):
        """Args:
            sequence_output: [B, L, H].
            positions: int32 [B, P], each in [0, L). Padded predictions may point anywhere: weigh them out of the loss.
            table: [V, H], instead of the encoder's word embedding; lets a training step take its gradient apart.

        Returns: float32 [B, P, V].
        """
        x_MH = self.before_logits(sequence_output, positions)
        table = tf.cast(self._table() if table is None else table, x_MH.dtype)
        logits_MV = tf.cast(tf.matmul(x_MH, table, transpose_b=True), tf.float32)
        logits_MV = operations.bias_add(logits_MV, self.output_bias.value)
        return tf.reshape(logits_MV, [*tf.unstack(tf.shape(positions)), self.settings.vocab_size])

    def before_logits(self, sequence_output, positions):
        """What is multiplied by the word embedding, [M, H]; for a loss that does without the logits' gradient."""
        batch, length = tf.unstack(tf.shape(sequence_output)[:2])
        rows_M = tf.reshape(tf.cast(positions, tf.int32) + (tf.range(batch) * length)[:, None], [-1])
        x_MH = tf.gather(tf.reshape(sequence_output, [-1, self.settings.hidden_size]), rows_M)
        x_MH = self.activation(self.dense(x_MH, self.kernel, self.bias))
        return self.norm(x_MH, self.norm_scale, self.norm_offset)


class NextSentenceHead(BertLayer):
    """Two logits from the pooled output [B, H], float32 [B, 2]: 0 = B follows A, 1 = B is random."""

    def add_weights(self):
        self.kernel = self.matrix("kernel", 2, self.settings.hidden_size)
        self.bias = self.vector("bias", 2)

    def call(self, pooled_output):
        logits = tf.matmul(pooled_output, tf.cast(self.kernel.value, pooled_output.dtype), transpose_b=True)
        return tf.nn.bias_add(tf.cast(logits, tf.float32), self.bias.value)
