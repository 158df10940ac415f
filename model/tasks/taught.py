"""A task that is learned from a teacher, too: the student's answers are drawn to those of a model tuned for the same.

The loss is that of Hinton et al. (2015, arXiv 1503.02531): `soft` times T² times the divergence of the student's answer
from the teacher's, both softened by the temperature T, plus 1 - `soft` times the task's own loss. What has no label
counts in the first of them alone.

Shapes: B batch, C labels, `()` a scalar; `...` the axes of what the task answers: rows, or tokens of rows.
"""

import dataclasses
import functools
import math
from typing import Any, Protocol

import tensorflow as tf

from model.encoder import BertEncoder
from model.tasks.distillation import digest_of
from model.tasks.task import Curve, Task
from preprocessing.errors import require


class Answering(Task, Protocol):
    """A task that gives each of its answers by logits of its labels."""

    def logits(self, encoder: BertEncoder, batch, **options) -> tf.Tensor:
        """float32 [B, ..., C]; `options` as for `sums`. With `training` None, in inference and as compiled code may."""

    def asked(self, batch) -> tf.Tensor:
        """float32 [B, ...]: 1 where something is asked, whether the answer is known or not; else 0."""

    def sums_of(self, logits: tf.Tensor, batch) -> dict[str, tf.Tensor]:
        """What `sums` gives, from the logits."""


@dataclasses.dataclass(frozen=True)
class Taught:
    """A `model.tasks.task.Task`. Figures are those of the task, and in training the `divergence` in nats.

    Attributes:
        task: what is learned.
        teacher: has the task's head; is not changed.
        temperature: by which both models' logits are divided.
        soft: the teacher's share of the loss.
    """

    task: Answering
    teacher: BertEncoder
    temperature: float = 2.0
    soft: float = 0.5

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
        theirs = tf.stop_gradient(self.task.logits(self.teacher, batch, training=None))
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
