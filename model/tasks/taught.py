"""A task that is learned from a teacher, too: the student's answers are drawn to those of a model tuned for the same.

The loss is that of Hinton et al. (2015, arXiv 1503.02531): `soft` times T² times the divergence of the student's answer
from the teacher's, both softened by the temperature T, plus 1 - `soft` times the task's own loss. What has no label
counts in the first of them alone.

Shapes: N examples, B batch, L length, C labels, `()` a scalar; `...` the axes of what the task answers: rows, or tokens
of rows.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from model.encoder import BertEncoder
from model.tasks.distillation import digest_of
from model.tasks.task import Curve, Task
from preprocessing import batches, features
from preprocessing.errors import require


class Answering(Task, Protocol):
    """A task that gives each of its answers by logits of its labels."""

    def logits(self, encoder: BertEncoder, batch, **options) -> tf.Tensor:
        """float32 [B, ..., C]; `options` as for `sums`. With `training` None, in inference and as compiled code may."""

    def asked(self, batch) -> tf.Tensor:
        """float32 [B, ...]: 1 where something is asked, whether the answer is known or not; else 0."""

    def sums_of(self, logits: tf.Tensor, batch) -> dict[str, tf.Tensor]:
        """What `sums` gives, from the logits."""


@dataclasses.dataclass(frozen=True, eq=False)
class Answers:
    """What a teacher says of examples, for a training that sees them more than once. `keys` int64 [N], ascending, tell
    which are whose, by their tokens; `logits` float32 [N, ..., C]."""

    keys: tf.Tensor
    logits: tf.Tensor

    @classmethod
    def of(
        cls,
        task: Answering,
        teacher: BertEncoder,
        examples: batches.Examples,
        buckets: Sequence[int] = (),
        size: int = 32,
    ) -> "Answers":
        """Of all of them, in batches of that size, which are cut to `buckets` as a training's are."""
        ask = tf.function(lambda batch: (_keys(batch), task.logits(teacher, batch, training=None)), autograph=False)
        longest, found = examples.spec.lengths(examples.axes)[features.INPUT_IDS], []
        for batch in examples.batches(size, buckets=buckets).take(-(-examples.count // size)):
            keys, logits = (values.numpy() for values in ask(batch))
            wider = [(0, longest - logits.shape[1])] if logits.ndim == 3 else []
            found.append((keys, np.pad(logits, [(0, 0), *wider, (0, 0)])))
        keys, logits = (np.concatenate(values) for values in zip(*found, strict=True))
        keys, first = np.unique(keys, return_index=True)
        return cls(tf.constant(keys), tf.constant(logits[first]))

    def to(self, batch) -> tf.Tensor:
        """float32 [B, ..., C]"""
        keys = _keys(batch)
        places = tf.searchsorted(self.keys, keys)
        with tf.control_dependencies([tf.debugging.assert_equal(tf.gather(self.keys, places), keys)]):
            logits = tf.gather(self.logits, places)
        return logits[:, : tf.shape(batch[features.INPUT_IDS])[1]] if len(logits.shape) == 3 else logits


def _keys(batch) -> tf.Tensor:
    """int64 [B]: a hash of the tokens and segments, whatever padding follows."""
    ids_BL, mask_BL, segments_BL = (tf.cast(batch[name], tf.int64) for name in features.SEQUENCE_FEATURES)
    positions_L = tf.range(1, tf.shape(ids_BL, tf.int64)[1] + 1)
    # Any odd numbers without an order, in arithmetic modulo 2**64.
    factors_L = (positions_L * 0x1E3779B97F4A7C15) ^ tf.bitwise.right_shift(positions_L * 0x3C6EF372FE94F82B, 29)
    factors_L = (factors_L * 0x5851F42D4C957F2D) | 1
    return tf.reduce_sum(mask_BL * (ids_BL + 1 + segments_BL * 2**32) * factors_L, 1)


@dataclasses.dataclass(frozen=True)
class Taught:
    """A `model.tasks.task.Task`. Figures are those of the task, and in training the `divergence` in nats.

    Attributes:
        task: what is learned.
        teacher: has the task's head; is not changed.
        temperature: by which both models' logits are divided.
        soft: the teacher's share of the loss.
        answers: the teacher's, to the examples of the training; None: it is asked in every step.
    """

    task: Answering
    teacher: BertEncoder
    temperature: float = 2.0
    soft: float = 0.5
    answers: Answers | None = None

    def __post_init__(self):
        check(self.temperature, self.soft)

    def __getattr__(self, name: str) -> Any:
        """All else is as the task has it."""
        if name == "task":  # of an object that is not made yet
            raise AttributeError(name)
        return getattr(self.task, name)

    @functools.cached_property
    def description(self):
        values = {"temperature": self.temperature, "soft": self.soft}
        return {**self.task.description, "teacher": digest_of(self.teacher), **values}

    @property
    def sum_names(self):
        return (*self.task.sum_names, "divergence", "asked")

    @property
    def curves(self):
        return (*self.task.curves, Curve("Divergence from the teacher (nats)", "divergence", shown="divergence"))

    def totals(self, batch):
        return {**self.task.totals(batch), "asked": tf.reduce_sum(self.task.asked(batch))}

    def sums(self, encoder, batch, **options):
        ours, asked = self.task.logits(encoder, batch, **options), self.task.asked(batch)
        theirs = self.answers.to(batch) if self.answers else self.task.logits(self.teacher, batch, training=None)
        theirs = tf.stop_gradient(theirs)
        ours_soft, theirs_soft = (tf.nn.log_softmax(logits / self.temperature) for logits in (ours, theirs))
        divergence = tf.reduce_sum(tf.exp(theirs_soft) * (theirs_soft - ours_soft), -1)
        taught = {"divergence": tf.reduce_sum(asked * divergence), "asked": tf.reduce_sum(asked)}
        return {**self.task.sums_of(ours, batch), **taught}

    def loss(self, sums, totals):
        soft = self.temperature**2 * sums["divergence"] / tf.maximum(totals["asked"], 1.0)
        return self.soft * soft + (1 - self.soft) * self.task.loss(sums, totals)

    def figures(self, sums):
        figures = self.task.figures(sums)
        if "divergence" in sums:
            figures["divergence"] = float(sums["divergence"]) / (float(sums["asked"]) or math.nan)
        return figures


def check(temperature: float = 1.0, soft: float = 0.0) -> None:
    """Raises InputError where a task cannot be taught with these."""
    require(0 < temperature < math.inf, "temperature must be positive", temperature)
    require(0 <= soft <= 1, "soft must be from 0 to 1", soft)
