"""Which of a classifier's labels a text, or a pair, has.

Texts are cut as those were that the classifier learned from, whatever is longest elsewhere in the export.

Shapes: B batch, C labels.
"""

import functools

import tensorflow as tf

from model.settings import ClassificationSettings
from preprocessing.errors import InputError
from serving.signatures import packing
from serving.signatures.base import (
    DISTRIBUTIONS,
    FIRST,
    GOLDEN_TEXTS,
    SECOND,
    TEXT,
    Inputs,
    Outputs,
    Signature,
    TextEncoder,
)

_NONE = "the checkpoint has no classifier"


def _classify(encoder: TextEncoder, text) -> Outputs:
    """Returns: `label` string [B], the likeliest; `probabilities` float32 [B, C], after the temperature, of `labels`
    string [B, C], which are the same for each text; `truncated` bool [B]."""
    return _answers(encoder, encoder.pack(text, **_how(encoder)))


def _classify_pair(encoder: TextEncoder, first, second) -> Outputs:
    """The same of two texts together."""
    return _answers(encoder, encoder.pack_pair(first, second, optional=True, **_how(encoder)))


def _answers(encoder: TextEncoder, packed: packing.Packed) -> Outputs:
    task = _task(encoder)
    labels = tf.constant(task.labels)
    logits = encoder.model.classifier(encoder.pooled(packed)) / task.temperature
    return {
        "label": tf.gather(labels, tf.argmax(logits, -1)),
        "probabilities": tf.nn.softmax(logits),
        "labels": tf.tile(labels[None], [tf.shape(logits)[0], 1]),
        "truncated": packed.truncated,
    }


def _task(encoder: TextEncoder) -> ClassificationSettings:
    if not isinstance(encoder.task, ClassificationSettings):
        raise InputError(_NONE)
    return encoder.task


def _how(encoder: TextEncoder) -> dict:
    """How the task's texts are made."""
    task = _task(encoder)
    longest = min(task.max_seq_length or encoder.lengths[-1], encoder.lengths[-1])
    lengths = (*(length for length in encoder.lengths if length < longest), longest)
    return {"lengths": lengths, "head_tail": task.long == "head-tail"}


def _missing(pair: bool, encoder: TextEncoder) -> str | None:
    task = encoder.task
    if not isinstance(task, ClassificationSettings):
        return _NONE
    if task.kind != "classification":
        return f"the checkpoint's head is for {task.kind}"
    if task.pair not in (None, pair):
        return f"the classifier judges {'pairs' if task.pair else 'single texts'}"
    return None


def _pairs(encoder: TextEncoder) -> list[Inputs]:
    return [{FIRST.name: list(GOLDEN_TEXTS), SECOND.name: list(GOLDEN_TEXTS[::-1])}]


def _long_pair(encoder: TextEncoder, length: int) -> tuple[str, ...]:
    first = (length - 3) // 2
    return encoder.text_of(first), encoder.text_of(length - 3 - first)


# Rounding may change which of two labels that are about as likely comes first.
_of_labels = functools.partial(Signature, rounded={"probabilities": DISTRIBUTIONS, "label": None}, often=True)
CLASSIFY = _of_labels("classify", (TEXT,), _classify, missing=functools.partial(_missing, False))
CLASSIFY_PAIR = _of_labels(
    "classify_pair",
    (FIRST, SECOND),
    _classify_pair,
    missing=functools.partial(_missing, True),
    golden=_pairs,
    warm_up=_long_pair,
)
