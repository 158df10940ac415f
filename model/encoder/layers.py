"""The encoder's layers.

Keras casts neither their inputs nor their variables: every type is chosen where it matters. Under a mixed precision
policy matmuls run in the layer's compute type; LayerNorm, softmax and all variables stay float32.

Shape legend: B batch, L length, Q queries, R = B * L or B * Q rows, H hidden, F inner, N attention heads, D = H / N.
"""

import dataclasses
import math
from collections.abc import Callable

import keras
import tensorflow as tf

from model.encoder import operations
from model.settings import EncoderSettings

SEEDS_PER_LAYER = 3  # attention probabilities, attention output, layer output


class BertLayer(keras.layers.Layer):
    """A layer with the settings' initialisation, whose weights exist after construction.

    Subclasses create them in `add_weights`; a weight's `.value` is the float32 tf.Variable itself.
    """

    def __init__(self, settings: EncoderSettings, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.settings = settings
        self.add_weights()
        self.built = True

    def add_weights(self) -> None:
        raise NotImplementedError

    def matrix(self, name: str, rows: int, columns: int) -> keras.Variable:
        """Truncated normal, cut at two standard deviations, as google-research/bert's."""
        init = keras.initializers.TruncatedNormal(stddev=self.settings.initializer_range)
        return self.add_weight((rows, columns), init, name=name, autocast=False)

    def vector(self, name: str, size: int, value: str = "zeros") -> keras.Variable:
        return self.add_weight((size,), value, name=name, autocast=False)

    def dense(self, x: tf.Tensor, kernel: keras.Variable, bias: keras.Variable, training: bool = False) -> tf.Tensor:
        """`x @ kernel + bias` in the type of `x` [rows, in]."""
        # Of the two, TensorFlow fuses its own with the matmul in inference; ours has the faster gradient.
        bias_add = operations.bias_add if training else tf.nn.bias_add
        return bias_add(tf.matmul(x, tf.cast(kernel.value, x.dtype)), tf.cast(bias.value, x.dtype))

    def norm(self, x: tf.Tensor, scale: keras.Variable, offset: keras.Variable) -> tf.Tensor:
        return operations.layer_norm(x, scale.value, offset.value, self.settings.layer_norm_epsilon)

    @property
    def activation(self) -> Callable[..., tf.Tensor]:
        return operations.gelu_tanh if self.settings.activation == "gelu_tanh" else operations.gelu


class Embeddings(BertLayer):
    """Word + position + segment embeddings, LayerNorm, dropout: [R, H] of the compute type."""

    def add_weights(self):
        settings, hidden = self.settings, self.settings.hidden_size
        self.word = self.matrix("word", settings.vocab_size, hidden)
        self.position = self.matrix("position", settings.max_positions, hidden)
        self.segment = self.matrix("segment", settings.type_vocab_size, hidden)
        self.norm_scale = self.vector("norm_scale", hidden, "ones")
        self.norm_offset = self.vector("norm_offset", hidden)

    def lookup(self, input_ids):
        """Word embeddings, float32 [B, L, H], of ids [B, L]; the gradient is sparse (tf.IndexedSlices)."""
        return tf.gather(self.word.value, input_ids)

    def call(self, input_ids, segment_ids, words=None, seed=None):
        settings = self.settings
        words_BLH = self.lookup(input_ids) if words is None else tf.cast(words, tf.float32)
        # A product with one-hot rows is exact, and its gradient is a small matmul instead of a scatter into few rows.
        segments_RT = tf.one_hot(tf.reshape(segment_ids, [-1]), settings.type_vocab_size)
        segments_RH = tf.matmul(segments_RT, self.segment.value)
        positions_LH = self.position.value[: tf.shape(input_ids)[1]]
        x_BLH = words_BLH + positions_LH + tf.reshape(segments_RH, tf.shape(words_BLH))
        x_RH = self.norm(tf.reshape(x_BLH, [-1, settings.hidden_size]), self.norm_scale, self.norm_offset)
        x_RH = tf.cast(x_RH, self.compute_dtype)
        return x_RH if seed is None else operations.dropout(x_RH, settings.dropout, seed)


class TransformerLayer(BertLayer):
    """Self-attention and feed-forward network, each with dropout, residual and LayerNorm after it (post-LN).

    Attributes: `adapters`, what `adapt` has made, or None.
    """

    adapters: "Adapters | None" = None

    def add_weights(self):
        hidden, inner = self.settings.hidden_size, self.settings.intermediate_size
        self.qkv_kernel = self.matrix("qkv_kernel", hidden, 3 * hidden)  # columns: all of query, key, value
        self.qkv_bias = self.vector("qkv_bias", 3 * hidden)
        self.attention_kernel = self.matrix("attention_kernel", hidden, hidden)
        self.attention_bias = self.vector("attention_bias", hidden)
        self.attention_norm_scale = self.vector("attention_norm_scale", hidden, "ones")
        self.attention_norm_offset = self.vector("attention_norm_offset", hidden)
        self.inner_kernel = self.matrix("inner_kernel", hidden, inner)
        self.inner_bias = self.vector("inner_bias", inner)
        self.output_kernel = self.matrix("output_kernel", inner, hidden)
        self.output_bias = self.vector("output_bias", hidden)
        self.output_norm_scale = self.vector("output_norm_scale", hidden, "ones")
        self.output_norm_offset = self.vector("output_norm_offset", hidden)

    def adapt(self, rank: int, alpha: float) -> None:
        """Adds low-rank adapters, which change nothing yet, to query and value (Hu et al. 2021, arXiv 2106.09685)."""
        hidden = self.settings.hidden_size
        # Weights of this layer, not of one inside it: what belongs to a layer is told by its path.
        query_down, value_down = (self.matrix(f"{name}_down", hidden, rank) for name in ("query", "value"))
        query_up, value_up = (
            self.add_weight((rank, hidden), "zeros", name=f"{name}_up", autocast=False) for name in ("query", "value")
        )
        self.adapters = Adapters(query_down, value_down, query_up, value_up, alpha / rank)

    @property
    def adapted_kernel(self) -> tf.Tensor:
        """The kernel of query, key and value with what the adapters add to it, float32 [H, 3 * H]."""
        if self.adapters is None:
            return self.qkv_kernel.value
        return self.qkv_kernel.value + tf.matmul(*self.adapters.factors(tf.float32))

    def call(self, x_RH, mask_B11L, training=False, seeds=None, positions=None):
        """`mask_B11L` is float32, added to the scores; `seeds` turn dropout on; `positions` (int32 [B, Q]) limit the
        output to these positions, which saves the work for all others: every token is then key and value still, but
        only Q = positions.shape[1] of L are queries.

        Returns (output [B * Q, H], attention probabilities [B, N, Q, L] before dropout, (query [B, N, Q, D], key, value
        [B, N, L, D])); Q = L without `positions`."""
        settings = self.settings
        on = seeds is not None
        seeds = seeds if on else [None] * SEEDS_PER_LAYER
        rate = settings.dropout if on else 0.0
        batch, length = tf.shape(mask_B11L)[0], tf.shape(mask_B11L)[3]

        if positions is None:
            qkv_RX = self._adapted(self.dense(x_RH, self.qkv_kernel, self.qkv_bias, training), x_RH)  # X = 3 * H
            q_BNQD, k_BNLD, v_BNLD = self._split(qkv_RX, batch, length, 3)
        else:
            hidden = settings.hidden_size
            kernel, bias = tf.cast(self.qkv_kernel.value, x_RH.dtype), tf.cast(self.qkv_bias.value, x_RH.dtype)
            kv_RX = operations.bias_add(x_RH @ kernel[:, hidden:], bias[hidden:])
            kv_RX = self._adapted(kv_RX, x_RH, slice(hidden, None))
            k_BNLD, v_BNLD = self._split(kv_RX, batch, length, 2)
            rows = tf.reshape(positions + (tf.range(batch) * length)[:, None], [-1])
            x_RH = tf.gather(x_RH, rows)
            q_RH = operations.bias_add(x_RH @ kernel[:, :hidden], bias[:hidden])
            q_RH = self._adapted(q_RH, x_RH, slice(hidden))
            (q_BNQD,) = self._split(q_RH, batch, tf.shape(positions)[1], 1)
        scores_BNQL = tf.matmul(q_BNQD * (1 / math.sqrt(settings.head_size)), k_BNLD, transpose_b=True)
        probabilities_BNQL = tf.nn.softmax(tf.cast(scores_BNQL, tf.float32) + mask_B11L)
        probabilities_BNQL = tf.cast(probabilities_BNQL, x_RH.dtype)
        kept_BNQL = operations.dropout(probabilities_BNQL, settings.attention_dropout if on else 0.0, seeds[0])
        context_BQND = tf.transpose(tf.matmul(kept_BNQL, v_BNLD), [0, 2, 1, 3])
        context_RH = tf.reshape(context_BQND, [-1, settings.hidden_size])
        attended_RH = self.dense(context_RH, self.attention_kernel, self.attention_bias, training)
        x_RH = operations.dropout(attended_RH, rate, seeds[1], x_RH)
        x_RH = self.norm(x_RH, self.attention_norm_scale, self.attention_norm_offset)

        inner_RF = self.activation(self.dense(x_RH, self.inner_kernel, self.inner_bias, training), training)
        output_RH = self.dense(inner_RF, self.output_kernel, self.output_bias, training)
        x_RH = operations.dropout(output_RH, rate, seeds[2], x_RH)
        x_RH = self.norm(x_RH, self.output_norm_scale, self.output_norm_offset)
        return x_RH, probabilities_BNQL, (q_BNQD, k_BNLD, v_BNLD)

    def _adapted(self, qkv_RX, x_RH, columns=slice(None)):
        """With what the adapters add to these columns of query, key and value."""
        if self.adapters is None:
            return qkv_RX
        down, up = self.adapters.factors(x_RH.dtype)
        return qkv_RX + tf.matmul(tf.matmul(x_RH, down), up[:, columns])

    def _split(self, x_RX, batch, length, parts):
        """Rows of `parts` * H values -> that many tensors [B, N, L, D]."""
        settings = self.settings
        x_BLPND = tf.reshape(x_RX, [batch, length, parts, settings.num_heads, settings.head_size])
        return tf.unstack(tf.transpose(x_BLPND, [2, 0, 3, 1, 4]), num=parts)


@dataclasses.dataclass(frozen=True)
class Adapters:
    """Of query and value: the product of a narrow matrix [H, rank] and a flat one [rank, H], times a scale, is added to
    each one's kernel, which itself is not trained."""

    query_down: keras.Variable
    value_down: keras.Variable
    query_up: keras.Variable
    value_up: keras.Variable
    scale: float

    def factors(self, dtype) -> tuple[tf.Tensor, tf.Tensor]:
        """[H, 2 * rank] and [2 * rank, 3 * H], zero in the columns of the key: one product each, for all of them."""
        query, value = (self.scale * up.value for up in (self.query_up, self.value_up))
        none = tf.zeros_like(query)
        down = tf.concat([self.query_down.value, self.value_down.value], 1)
        up = tf.concat([tf.concat([query, none, none], 1), tf.concat([none, none, value], 1)], 0)
        return tf.cast(down, dtype), tf.cast(up, dtype)


class Pooler(BertLayer):
    """Dense + tanh on the first token's vector [B, H]."""

    def add_weights(self):
        self.kernel = self.matrix("kernel", self.settings.hidden_size, self.settings.hidden_size)
        self.bias = self.vector("bias", self.settings.hidden_size)

    def call(self, first_BH):
        return tf.tanh(self.dense(first_BH, self.kernel, self.bias))
