"""The encoder's forward pass over the real tokens alone.

A batch of texts from several callers is half padding. Everything but attention works on one token at a time, and that
is nearly all of the work: here it runs over the batch's tokens laid end to end, and only attention sees them in padded
rows. The values are those of BertEncoder; every export compares the two before it is let out.

Shapes: B batch, L length, R real tokens in the batch, H hidden, N heads, D = H / N.
"""

import math

import tensorflow as tf

from model.encoder import BertEncoder
from model.encoder.bert import MASKED_SCORE
from preprocessing.features import INPUT_IDS, INPUT_MASK, SEGMENT_IDS


def forward(
    encoder: BertEncoder, inputs: dict, words=None, hidden_states=False, attentions=False, only=None, kernels=None
) -> dict:
    """The outputs of `encoder(inputs, words=..., hidden_states=..., attentions=...)` in inference. What stands at
    padded positions is arbitrary, but finite.

    With `only`, int64 [P], positions of real tokens among all B * L, the last layer is worked out for those alone:
    `sequence_output` is [P, H], and there are no other outputs. `kernels`, by the id of a layer's matrix, are called
    instead of multiplying with it.
    """

    def dense(x, kernel, bias):
        if kernels and (stored := kernels.get(id(kernel))):
            return stored(x, bias.value)
        return _dense(x, kernel, bias)

    settings = encoder.settings
    batch, length = tf.unstack(tf.shape(inputs[INPUT_IDS]))
    heads = tf.range(settings.num_heads)
    mask = tf.reshape(inputs[INPUT_MASK], [-1])
    real_R = tf.cast(tf.where(mask > 0)[:, 0], tf.int32)  # places of the real tokens among all B * L
    place = tf.maximum(tf.cumsum(mask) - 1, 0)  # and back, [B * L]: padding repeats the token before it

    # One gather of slices of D both pads and brings the heads to the front, another takes both back.
    place_BNL = tf.reshape(place, [batch, 1, length]) * (3 * settings.num_heads) + heads[:, None]
    place_3BNL = tf.stack([place_BNL + part * settings.num_heads for part in range(3)])
    real_RN = (real_R // length * settings.num_heads)[:, None] + heads
    real_RN = real_RN * length + (real_R % length)[:, None]

    def padded(x_R):
        return tf.reshape(tf.gather(x_R, place), [batch, length, x_R.shape[-1]])

    scores_mask = (1 - tf.cast(inputs[INPUT_MASK], tf.float32))[:, None, None, :] * MASKED_SCORE
    last = None if only is None else encoder.transformer_layers[-1]
    x_RH = tf.gather(encoder.embeddings(inputs[INPUT_IDS], inputs[SEGMENT_IDS], words=words), real_R)
    states, probabilities = [x_RH], []
    for layer in encoder.transformer_layers:
        qkv = tf.reshape(dense(x_RH, layer.qkv_kernel, layer.qkv_bias), [-1, settings.head_size])
        q_BNLD, k_BNLD, v_BNLD = tf.unstack(tf.gather(qkv, place_3BNL))
        scores_BNLL = tf.matmul(q_BNLD * (1 / math.sqrt(settings.head_size)), k_BNLD, transpose_b=True)
        probabilities_BNLL = tf.cast(tf.nn.softmax(tf.cast(scores_BNLL, tf.float32) + scores_mask), x_RH.dtype)
        probabilities.append(probabilities_BNLL)
        context_BNLD = tf.matmul(probabilities_BNLL, v_BNLD)
        if layer is last:  # from here on R is P
            kept = tf.gather(place, only)
            x_RH, real_RN = tf.gather(x_RH, kept), tf.gather(real_RN, kept)
        context_RND = tf.gather(tf.reshape(context_BNLD, [-1, settings.head_size]), real_RN)
        context_RH = tf.reshape(context_RND, [-1, settings.hidden_size])
        attended_RH = dense(context_RH, layer.attention_kernel, layer.attention_bias)
        x_RH = layer.norm(x_RH + attended_RH, layer.attention_norm_scale, layer.attention_norm_offset)
        inner = layer.activation(dense(x_RH, layer.inner_kernel, layer.inner_bias))
        output_RH = dense(inner, layer.output_kernel, layer.output_bias)
        x_RH = layer.norm(x_RH + output_RH, layer.output_norm_scale, layer.output_norm_offset)
        states.append(x_RH)

    if only is not None:
        return {"sequence_output": x_RH}
    sequence_output = padded(x_RH)
    outputs = {"sequence_output": sequence_output, "pooled_output": encoder.pooler(sequence_output[:, 0])}
    if hidden_states:
        outputs["hidden_states"] = [padded(state) for state in states]
    if attentions:
        outputs["attentions"] = probabilities
    return outputs


def _dense(x, kernel, bias):
    """`x @ kernel + bias`, in the form that TensorFlow's graph optimizer fuses."""
    return tf.nn.bias_add(tf.matmul(x, tf.cast(kernel.value, x.dtype)), tf.cast(bias.value, x.dtype))
