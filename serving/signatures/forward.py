"""The encoder's forward pass over the real tokens alone.

A batch of texts from several callers is half padding. Everything but attention works on one token at a time, and that
is nearly all of the work: here it runs over the batch's tokens laid end to end, and only attention sees them in padded
rows. The values are those of BertEncoder; every export compares the two before it is let out.

Shapes: B batch, L length, R real tokens in the batch, H hidden, N heads of a part, D of a head.
"""

import math
from collections.abc import Sequence

import tensorflow as tf

from model.encoder import BertEncoder
from model.encoder.bert import MASKED_SCORE
from preprocessing.features import INPUT_IDS, INPUT_MASK, SEGMENT_IDS
from serving.signatures.parts import Part


def forward(
    encoder: BertEncoder,
    inputs: dict,
    layers: Sequence[Sequence[Part]],
    words=None,
    hidden_states=False,
    attentions=False,
    only=None,
) -> dict:
    """The outputs of `encoder(inputs, words=..., hidden_states=..., attentions=...)` in inference. What stands at
    padded positions is arbitrary, but finite. `layers` are the parts of each of the encoder's.

    With `only`, int64 [P], positions of real tokens among all B * L, the last layer is worked out for those alone:
    `sequence_output` is [P, H], and there are no other outputs.
    """
    settings = encoder.settings
    batch, length = tf.unstack(tf.shape(inputs[INPUT_IDS]))
    count = settings.num_heads // len(layers[0])
    heads = tf.range(count)
    mask = tf.reshape(inputs[INPUT_MASK], [-1])
    real_R = tf.cast(tf.where(mask > 0)[:, 0], tf.int32)  # places of the real tokens among all B * L
    place = tf.maximum(tf.cumsum(mask) - 1, 0)  # and back, [B * L]: padding repeats the token before it

    # One gather of slices of D both pads and brings the heads to the front, another takes both back.
    place_BNL = tf.reshape(place, [batch, 1, length]) * (3 * count) + heads[:, None]
    place_3BNL = tf.stack([place_BNL + what * count for what in range(3)])
    real_RN = (real_R // length * count)[:, None] + heads
    real_RN = real_RN * length + (real_R % length)[:, None]

    def padded(x_R):
        return tf.reshape(tf.gather(x_R, place), [batch, length, x_R.shape[-1]])

    def attended(part, x_RH):
        """(context [B * N * L, D], probabilities [B, N, L, L])"""
        qkv = tf.reshape(part.qkv(x_RH, part.qkv_bias), [-1, settings.head_size])
        q_BNLD, k_BNLD, v_BNLD = tf.unstack(tf.gather(qkv, place_3BNL))
        scores_BNLL = tf.matmul(q_BNLD * (1 / math.sqrt(settings.head_size)), k_BNLD, transpose_b=True)
        probabilities_BNLL = tf.cast(tf.nn.softmax(tf.cast(scores_BNLL, tf.float32) + scores_mask), x_RH.dtype)
        return tf.reshape(tf.matmul(probabilities_BNLL, v_BNLD), [-1, settings.head_size]), probabilities_BNLL

    scores_mask = (1 - tf.cast(inputs[INPUT_MASK], tf.float32))[:, None, None, :] * MASKED_SCORE
    last = None if only is None else encoder.transformer_layers[-1]
    x_RH = tf.gather(encoder.embeddings(inputs[INPUT_IDS], inputs[SEGMENT_IDS], words=words), real_R)
    states, probabilities = [x_RH], []
    for layer, parts in zip(encoder.transformer_layers, layers, strict=True):
        contexts, attention = zip(*(attended(part, x_RH) for part in parts), strict=True)
        if attentions:
            probabilities.append(tf.concat(attention, 1))
        if layer is last:  # from here on R is P
            kept = tf.gather(place, only)
            x_RH, real_RN = tf.gather(x_RH, kept), tf.gather(real_RN, kept)
        outputs = [
            part.attention(
                tf.reshape(tf.gather(context, real_RN), [-1, count * settings.head_size]),
                layer.attention_bias.value if part is parts[0] else None,
            )
            for part, context in zip(parts, contexts, strict=True)
        ]
        x_RH = layer.norm(x_RH + _sum(outputs), layer.attention_norm_scale, layer.attention_norm_offset)
        outputs = [
            part.output(
                part.activation(part.inner(x_RH, part.inner_bias)),
                layer.output_bias.value if part is parts[0] else None,
            )
            for part in parts
        ]
        x_RH = layer.norm(x_RH + _sum(outputs), layer.output_norm_scale, layer.output_norm_offset)
        states.append(x_RH)

    if only is not None:
        return {"sequence_output": x_RH}
    sequence_output = padded(x_RH)
    found = {"sequence_output": sequence_output, "pooled_output": encoder.pooler(sequence_output[:, 0])}
    if hidden_states:
        found["hidden_states"] = [padded(state) for state in states]
    if attentions:
        found["attentions"] = probabilities
    return found


def _sum(outputs):
    first, *others = outputs
    for other in others:
        first += other
    return first
