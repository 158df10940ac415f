"""How like two texts are: the cosine of the vectors that `serving_default` gives of each.

Shapes: B batch.
"""

import tensorflow as tf

from model.settings import SimilaritySettings
from preprocessing.errors import InputError
from serving.signatures.base import (
    FIRST,
    GOLDEN_TEXTS,
    SECOND,
    VECTORS,
    Inputs,
    Outputs,
    Signature,
    TextEncoder,
)
from serving.signatures.sentences import embedding

_NONE = "the checkpoint has no word of how it makes vectors, in task.json or files of sentence-transformers"


def _similarity(encoder: TextEncoder, first, second) -> Outputs:
    """Returns: `score` float32 [B], the cosine of the two texts' embeddings; `scaled` float32 [B], the same in units of
    the scores that it was tuned with; `truncated` bool [B], one of the texts."""
    vectors, truncated = embedding(encoder, tf.concat([first, second], 0))
    a, b = tf.split(tf.math.l2_normalize(vectors, -1), 2)
    score, task = tf.reduce_sum(a * b, -1), _task(encoder)
    scaled = task.least + (task.most - task.least) * score
    return {"score": score, "scaled": scaled, "truncated": tf.reduce_any(tf.split(truncated, 2), 0)}


def _task(encoder: TextEncoder) -> SimilaritySettings:
    if not isinstance(encoder.task, SimilaritySettings):
        raise InputError(_NONE)
    return encoder.task


def _missing(encoder: TextEncoder) -> str | None:
    return None if isinstance(encoder.task, SimilaritySettings) else _NONE


def _pairs(encoder: TextEncoder) -> list[Inputs]:
    return [{FIRST.name: list(GOLDEN_TEXTS), SECOND.name: list(GOLDEN_TEXTS[::-1])}]


def _long_pair(encoder: TextEncoder, length: int) -> tuple[str, ...]:
    return encoder.text_of(length - 2), encoder.text_of(length - 2)


SIMILARITY = Signature(
    "similarity",
    (FIRST, SECOND),
    _similarity,
    rounded={"score": VECTORS, "scaled": VECTORS},
    missing=_missing,
    golden=_pairs,
    warm_up=_long_pair,
    kind="similarity",
    often=True,
)
