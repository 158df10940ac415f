"""One vector per text."""

import tensorflow as tf

from serving.signatures.base import GOLDEN_TEXTS, TEXT, VECTORS, Inputs, Outputs, Signature, TextEncoder


def _embedding(encoder: TextEncoder, text) -> Outputs:
    """Returns: `embedding` float32 [B, H]; `truncated` bool [B]."""
    packed = encoder.pack(text)
    pooling = encoder.settings.embedding
    if pooling == "pooler":
        embedding = encoder.pooled(packed)
    elif pooling == "cls":
        embedding = encoder.first(packed)
    elif pooling == "mean":
        embedding = encoder.mean(packed)
    else:
        tokens = tf.cast(encoder.encode(packed)["sequence_output"], tf.float32)
        embedding = tf.reduce_max(tf.where(packed.input_mask[:, :, None] > 0, tokens, tokens.dtype.min), 1)
    embedding = tf.cast(embedding, tf.float32)
    if encoder.settings.unit_length:
        embedding = tf.math.l2_normalize(embedding, -1)
    return {"embedding": embedding, "truncated": packed.truncated}


def _alone_and_together(encoder: TextEncoder) -> list[Inputs]:
    texts = list(GOLDEN_TEXTS)
    return [{TEXT.name: texts[:1]}, {TEXT.name: texts[1:2]}, {TEXT.name: texts}]


EMBEDDING = Signature(
    "serving_default", (TEXT,), _embedding, {"embedding": VECTORS}, golden=_alone_and_together, often=True
)
