"""The heads that stand on the encoder. Their logits are float32 under every precision.

What a head is, is said once, by a `Head`: the encoder builds it from there, and all that save, convert, load or compare
a model go through its heads' arrays. A new one is one object more in ALL_HEADS, beside its layer.

Shapes: B batch, L length, P predictions, M = B * P, H hidden, V vocabulary, C labels.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
import tensorflow as tf

from model.encoder import operations
from model.encoder.layers import BertLayer
from model.settings import EncoderSettings
from preprocessing.errors import require

LABELS = "labels"  # the size that a checkpoint's arrays tell, not the encoder's settings


class HeadLayer(BertLayer):
    """`labels`: how many there are to choose from, where the head leaves that open. `table` gives the word embedding;
    it is a function so that the variable stays the encoder's alone."""

    def __init__(self, settings: EncoderSettings, labels: int | None, table: Callable[[], tf.Tensor], **kwargs):
        self.labels, self._table = labels, table
        super().__init__(settings, **kwargs)


class MaskedLMHead(HeadLayer):
    """Logits over the vocabulary at chosen positions: dense, activation, LayerNorm, then the word embedding
    transposed (tied) and a bias of its own."""

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


class ClassifierHead(HeadLayer):
    """A logit for each of C labels from the pooled output [B, H], float32 [B, C]."""

    labels: int

    def add_weights(self):
        self.kernel = self.matrix("kernel", self.labels, self.settings.hidden_size)
        self.bias = self.vector("bias", self.labels)

    def call(self, pooled_output):
        logits = tf.matmul(pooled_output, tf.cast(self.kernel.value, pooled_output.dtype), transpose_b=True)
        return tf.nn.bias_add(tf.cast(logits, tf.float32), self.bias.value)


class NextSentenceHead(ClassifierHead):
    """Of two: 0 = B follows A, 1 = B is random."""

    def add_weights(self):
        self.labels = 2
        super().add_weights()


class TaggerHead(ClassifierHead):
    """A logit for each of C tags from the states of tokens [..., H], float32 [..., C]."""

    def call(self, states, positions=None):
        """`positions`: int32 [B, P], those of the states [B, L, H] that are wanted."""
        states = states if positions is None else tf.gather(states, positions, batch_dims=1)
        rows_RH = tf.reshape(states, [-1, self.settings.hidden_size])
        return tf.reshape(super().call(rows_RH), tf.concat([tf.shape(states)[:-1], [self.labels]], 0))


class SpanHead(TaggerHead):
    """Of two: that an answer begins at a token, and that it ends there."""

    def add_weights(self):
        self.labels = 2
        super().add_weights()


@dataclasses.dataclass(frozen=True)
class Array:
    """One of a head's arrays: the layer's attribute, google's name, and the sizes of its axes: numbers, names of
    EncoderSettings, or LABELS. `huggingface` is that library's name where its usual rule gives another."""

    attribute: str
    google: str
    axes: tuple[int | str, ...]
    huggingface: str | None = None


@dataclasses.dataclass(frozen=True)
class Head:
    """A head, to the encoder and to every format of checkpoints.

    Attributes:
        name: of the encoder's attribute and of the layer.
        over: "tokens": the layer is called with (sequence_output [B, L, H], positions [B, P]); "pooled": with
            (pooled_output [B, H]).
        layer: its class.
        architecture: Hugging Face's name of a model with this head alone.
        arrays: in google's order, which no two heads may name alike.
        labels: of a head whose arrays have an axis LABELS, how many; None leaves it open (`with_labels`).
    """

    name: str
    over: Literal["tokens", "pooled"]
    layer: type[HeadLayer]
    architecture: str
    arrays: tuple[Array, ...]
    labels: int | None = None

    def with_labels(self, labels: int) -> "Head":
        return dataclasses.replace(self, labels=labels)

    def in_arrays(self, arrays: Mapping[str, np.ndarray]) -> "Head | None":
        """This head as a checkpoint has it (by google's names), with its number of labels; None where it has none of
        its arrays."""
        found = [array for array in self.arrays if array.google in arrays]
        sizes = [
            size
            for array in found
            for axis, size in zip(array.axes, arrays[array.google].shape, strict=False)
            if axis == LABELS
        ]
        return (self.with_labels(sizes[0]) if sizes else self) if found else None

    def shapes(self, settings: EncoderSettings) -> dict[str, tuple[int, ...]]:
        """Google's names and shapes of its arrays."""

        def size(axis):
            return axis if isinstance(axis, int) else self.labels if axis == LABELS else getattr(settings, axis)

        return {array.google: tuple(map(size, array.axes)) for array in self.arrays}


_TRANSFORM = "cls/predictions/transform"
MASKED_LM = Head(
    "masked_lm",
    "tokens",
    MaskedLMHead,
    "BertForMaskedLM",
    (
        Array("kernel", f"{_TRANSFORM}/dense/kernel", ("hidden_size", "hidden_size")),
        Array("bias", f"{_TRANSFORM}/dense/bias", ("hidden_size",)),
        Array("norm_scale", f"{_TRANSFORM}/LayerNorm/gamma", ("hidden_size",)),
        Array("norm_offset", f"{_TRANSFORM}/LayerNorm/beta", ("hidden_size",)),
        Array("output_bias", "cls/predictions/output_bias", ("vocab_size",)),
    ),
)
NEXT_SENTENCE = Head(
    "next_sentence",
    "pooled",
    NextSentenceHead,
    "BertForNextSentencePrediction",
    (
        Array("kernel", "cls/seq_relationship/output_weights", (2, "hidden_size")),
        Array("bias", "cls/seq_relationship/output_bias", (2,)),
    ),
)
CLASSIFIER = Head(
    "classifier",
    "pooled",
    ClassifierHead,
    "BertForSequenceClassification",
    (
        Array("kernel", "output_weights", (LABELS, "hidden_size"), "classifier.weight"),
        Array("bias", "output_bias", (LABELS,), "classifier.bias"),
    ),
)
# Google has none; named as its others are.
TAGGER = Head(
    "tagger",
    "tokens",
    TaggerHead,
    "BertForTokenClassification",
    (
        Array("kernel", "cls/tags/output_weights", (LABELS, "hidden_size"), "classifier.weight"),
        Array("bias", "cls/tags/output_bias", (LABELS,), "classifier.bias"),
    ),
)
SPAN = Head(
    "span",
    "tokens",
    SpanHead,
    "BertForQuestionAnswering",
    (
        Array("kernel", "cls/squad/output_weights", (2, "hidden_size"), "qa_outputs.weight"),
        Array("bias", "cls/squad/output_bias", (2,), "qa_outputs.bias"),
    ),
)
PRETRAINING = (MASKED_LM, NEXT_SENTENCE)
ALL_HEADS: tuple[Head, ...] = (*PRETRAINING, CLASSIFIER, TAGGER, SPAN)


def chosen(heads: Sequence["str | Head"], among: Sequence[Head] = ()) -> tuple[Head, ...]:
    """The heads that are asked for, in the order of ALL_HEADS, then of the asking. Names stand for those of `among`,
    else for those of ALL_HEADS. Raises InputError for an unknown name, and for a head without its number of labels."""
    known = {head.name: head for head in (*ALL_HEADS, *among)}
    names = [head for head in heads if isinstance(head, str)]
    require(set(names) <= set(known), f"heads must be among {tuple(known)}", tuple(heads))
    found = {head.name: head for head in (known[head] if isinstance(head, str) else head for head in heads)}
    for head in found.values():
        open_ended = any(LABELS in array.axes for array in head.arrays)
        require(not open_ended or bool(head.labels), f"the head {head.name} needs a number of labels", head.labels)
    order = {name: place for place, name in enumerate(known)}
    return tuple(sorted(found.values(), key=lambda head: order.get(head.name, len(order))))
