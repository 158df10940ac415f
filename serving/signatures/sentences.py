"""One vector per text.

Shapes: B batch, L length of the padded batch, H hidden.
"""

import tensorflow as tf

from serving.settings import Pooling
from serving.signatures.base import GOLDEN_TEXTS, TEXT, VECTORS, Inputs, Outputs, Signature, TextEncoder


def _embedding(encoder: TextEncoder, text) -> Outputs:
    """Returns: `embedding` float32 [B, H]; `truncated` bool [B]."""
    vectors, truncated = embedding(encoder, text)
    return {"embedding": vectors, "truncated": truncated}


def embedding(encoder: TextEncoder, text) -> tuple[tf.Tensor, tf.Tensor]:
    """(vectors float32 [B, H] as the settings say, which texts were cut, bool [B])"""
    packed = encoder.pack(text)
    pooling = encoder.settings.embedding
    if pooling == "pooler":
        vectors = encoder.pooled(packed)
    elif pooling == "cls":
        vectors = encoder.first(packed)
    else:
        vectors = pooled(encoder.encode(packed)["sequence_output"], packed.input_mask, pooling)
    vectors = tf.cast(vectors, tf.float32)
    if encoder.settings.unit_length:
        vectors = tf.math.l2_normalize(vectors, -1)
    return vectors, packed.truncated


def pooled(tokens_BLH: tf.Tensor, mask_BL: tf.Tensor, pooling: Pooling) -> tf.Tensor:
    """One vector of each row's real tokens, float32 [B, H]: "mean", "max" or, the first of them, "cls"."""
    tokens_BLH = tf.cast(tokens_BLH, tf.float32)
    if pooling == "cls":
        return tokens_BLH[:, 0]
    mask_BL = tf.cast(mask_BL, tf.float32)
    if pooling == "max":
        return tf.reduce_max(tf.where(mask_BL[:, :, None] > 0, tokens_BLH, tokens_BLH.dtype.min), 1)
    return tf.einsum("bl,blh->bh", mask_BL, tokens_BLH) / tf.reduce_sum(mask_BL, 1, keepdims=True)


def _alone_and_together(encoder: TextEncoder) -> list[Inputs]:
    texts = list(GOLDEN_TEXTS)
    return [{TEXT.name: texts[:1]}, {TEXT.name: texts[1:2]}, {TEXT.name: texts}]


EMBEDDING = Signature(
    "serving_default", (TEXT,), _embedding, {"embedding": VECTORS}, golden=_alone_and_together, often=True
)
