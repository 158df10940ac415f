"""Which of a classifier's labels a text, or a pair, has: one of them, or any; or which number.

Texts are cut as those were that the classifier learned from, whatever is longest elsewhere in the export.

Shapes: B batch, C labels.
"""

import functools
from collections.abc import Callable

import tensorflow as tf

from model.settings import ClassificationSettings
from preprocessing.errors import InputError
from serving.signatures import packing
from serving.signatures.base import (
    DISTRIBUTIONS,
    FIRST,
    GOLDEN_TEXTS,
    PROBABILITIES,
    SECOND,
    TEXT,
    VECTORS,
    Inputs,
    Outputs,
    Signature,
    TextEncoder,
)
from serving.signatures.sentences import pooled

_NONE = "the checkpoint has no classifier"
AT_ONCE = 64  # windows


def _one_label(task: ClassificationSettings, logits) -> Outputs:
    """Returns: `label` string [B], the likeliest; `probabilities` float32 [B, C], after the temperature, of `labels`
    string [B, C], which are the same for each text."""
    labels, logits = tf.constant(task.labels), logits / task.temperature
    return {
        "label": tf.gather(labels, tf.argmax(logits, -1)),
        "probabilities": tf.nn.softmax(logits),
        "labels": _for_each(labels, logits),
    }


def _any_labels(task: ClassificationSettings, logits) -> Outputs:
    """Returns: `labels` string [B, C], those whose probability is not below their threshold, in the order of `names`
    string [B, C], which are the same for each text; where there are fewer, "" follows. `probabilities` float32 [B, C],
    after the temperature, of `names`, and their `thresholds` float32 [B, C], also the same for each."""
    probabilities = tf.sigmoid(logits / task.temperature)
    thresholds = _for_each(tf.constant(task.thresholds or [0.5] * len(task.labels)), logits)
    said = probabilities >= thresholds
    names = _for_each(tf.constant(task.labels), logits)
    # Those that are said come first, each part in its order.
    order = tf.argsort(tf.cast(~said, tf.int32), stable=True)
    labels = tf.gather(tf.where(said, names, ""), order, batch_dims=1)
    return {"labels": labels, "probabilities": probabilities, "names": names, "thresholds": thresholds}


def _number(task: ClassificationSettings, logits) -> Outputs:
    """Returns: `score` float32 [B]."""
    return {"score": task.mean + task.scale * logits[:, 0]}


def _for_each(labels, logits):
    return tf.tile(labels[None], [tf.shape(logits)[0], 1])


def _of_text(outputs: Callable[[ClassificationSettings, tf.Tensor], Outputs], encoder: TextEncoder, text) -> Outputs:
    """What `outputs` says, and `truncated` bool [B]."""
    if _task(encoder).long == "windows":
        return _of_windows(outputs, encoder, text)
    return _answers(outputs, encoder, encoder.pack(text, **_how(encoder)))


def _of_windows(outputs, encoder: TextEncoder, text) -> Outputs:
    """Of a text that is too long each window is judged, and their logits' mean counts."""
    how = _how(encoder)
    whole = packing.rows(encoder.tokenizer.tokenize(text))
    capacity = how["lengths"][-1] - 2
    parts, row = packing.windows(whole, capacity)
    count = tf.size(row)

    def add(first, logits):
        some = packing.Rows(parts.values, *(x[first : first + AT_ONCE] for x in (parts.starts, parts.lengths)))
        return first + AT_ONCE, tf.concat([logits, _logits(encoder, encoder.pack_rows(some, **how))], 0)

    labels = len(_task(encoder).labels)
    # Memory is that of so many windows, however long the texts are.
    _, logits = tf.while_loop(
        lambda first, logits: first < count,
        add,
        (tf.constant(0), tf.zeros([0, labels])),
        shape_invariants=(tf.TensorShape([]), tf.TensorShape([None, labels])),
        parallel_iterations=1,
    )
    logits = tf.math.segment_mean(logits, row)
    return outputs(_task(encoder), logits) | {"truncated": whole.lengths > capacity * packing.MOST_WINDOWS}


def _of_pair(outputs, encoder: TextEncoder, first, second) -> Outputs:
    """The same of two texts together."""
    return _answers(outputs, encoder, encoder.pack_pair(first, second, optional=True, **_how(encoder)))


def _answers(outputs, encoder: TextEncoder, packed: packing.Packed) -> Outputs:
    return outputs(_task(encoder), _logits(encoder, packed)) | {"truncated": packed.truncated}


def _logits(encoder: TextEncoder, packed: packing.Packed):
    if _task(encoder).pooling == "cls":
        return encoder.model.classifier(encoder.pooled(packed))
    return encoder.model.classifier(pooled(encoder.encode(packed)["sequence_output"], packed.input_mask, "mean"))


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


def _missing(kind: str, pair: bool, encoder: TextEncoder) -> str | None:
    task = encoder.task
    if not isinstance(task, ClassificationSettings):
        return _NONE
    if task.kind != kind:
        return f"the checkpoint's head is for {task.kind}"
    if task.pair not in (None, pair):
        return f"the classifier judges {'pairs' if task.pair else 'single texts'}"
    return None


def _pairs(encoder: TextEncoder) -> list[Inputs]:
    return [{FIRST.name: list(GOLDEN_TEXTS), SECOND.name: list(GOLDEN_TEXTS[::-1])}]


def _long_pair(encoder: TextEncoder, length: int) -> tuple[str, ...]:
    first = (length - 3) // 2
    return encoder.text_of(first), encoder.text_of(length - 3 - first)


def _signatures(name: str, kind: str, outputs, rounded) -> tuple[Signature, Signature]:
    """For texts, and for pairs."""
    of_text, of_pair = (functools.partial(answer, outputs) for answer in (_of_text, _of_pair))
    made = functools.partial(Signature, rounded=rounded, kind=kind, often=True)
    no_text, no_pair = (functools.partial(_missing, kind, pair) for pair in (False, True))
    return (
        made(name, (TEXT,), of_text, missing=no_text),
        made(f"{name}_pair", (FIRST, SECOND), of_pair, missing=no_pair, golden=_pairs, warm_up=_long_pair),
    )


# Rounding may change which of two labels that are about as likely comes first, and which is just above its threshold.
CLASSIFY, CLASSIFY_PAIR = _signatures(
    "classify", "classification", _one_label, {"probabilities": DISTRIBUTIONS, "label": None}
)
CLASSIFY_LABELS, CLASSIFY_LABELS_PAIR = _signatures(
    "classify_labels",
    "multi-label",
    _any_labels,
    {"probabilities": PROBABILITIES, "labels": None, "thresholds": PROBABILITIES},
)
SCORE, SCORE_PAIR = _signatures("score", "regression", _number, {"score": VECTORS})
CLASSIFIERS = (CLASSIFY, CLASSIFY_PAIR, CLASSIFY_LABELS, CLASSIFY_LABELS_PAIR, SCORE, SCORE_PAIR)
