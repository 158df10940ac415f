"""What an encoder is trained for, as training sees it: an object with these members, whose name it never knows.

A batch is computed in parts, on several devices and one after the other (accumulation), and the loss of the whole must
not depend on how it was cut. So a task gives sums, which can be added up over parts, and `totals`, known before the
first part is computed, by which sums are divided; training itself counts examples and tokens and does the rest.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from model.encoder import BertEncoder
from model.encoder.heads import Head
from model.settings import TrainingSettings
from preprocessing import batches, features

Sums = Mapping[str, tf.Tensor]


@dataclasses.dataclass(frozen=True)
class Curve:
    """A panel of the plot: a figure by step, and dotted, with its label, a held-out figure that needs no model.

    `shown` is the figure's name on the line that tells how far training is, where it stands there.
    """

    title: str
    figure: str
    baseline: str | None = None
    label: str | None = None
    shown: str | None = None


class Task(Protocol):
    """Legend: B batch, `()` a scalar. Batches are of int32 and float32 [B, length], by feature name; a row without a
    token (`input_mask` 0) only fills its batch and must count nowhere. What returns tensors is traced into graphs,
    as it stands: AutoGraph converts no `if` or `for` over tensors (`tf.where`, `tf.cond`, `tf.while_loop`)."""

    @property
    def heads(self) -> Sequence[Head | str]:
        """The heads that it needs, as `BertEncoder` takes them."""

    @property
    def spec(self) -> features.Spec:
        """What its examples are."""

    @property
    def description(self) -> Mapping[str, Any]:
        """JSON values: its kind and whatever in it decides a result, so that a run goes on with the same task only."""

    @property
    def sum_names(self) -> Sequence[str]:
        """Of `sums`."""

    @property
    def watched(self) -> str:
        """The held-out figure by which the best model is chosen."""

    @property
    def lower_is_better(self) -> bool:
        """Of the watched figure."""

    @property
    def curves(self) -> Sequence[Curve]:
        """What the plot of a run shows, beside the learning rate; and the line of its progress, beside the loss."""

    def check(
        self, settings: TrainingSettings, examples: batches.Examples, transform: batches.Transform | None
    ) -> None:
        """Raises InputError where settings or examples do not fit the task; before training starts."""

    def totals(self, batch: batches.Batch) -> Sums:
        """`()` by name: what the sums of a batch are divided by (weights, examples), from the batch alone."""

    def sums(self, encoder: BertEncoder, batch: batches.Batch, **options) -> Sums:
        """`()` float32 by name, over the examples of the batch: what makes the loss and the figures, totals included.

        `options` are for the call of the encoder that is trained (dropout's seed, looked up words, recomputation);
        the task adds the outputs and positions that it wants. Other models that it holds, it calls as it likes.
        """

    def loss(self, sums: Sums, totals: Sums) -> tf.Tensor:
        """`()` from the sums over a part of a batch and the totals of the whole, so that the losses of parts add up."""

    def held_out(self, encoder: BertEncoder, batch: batches.Batch) -> Sums:
        """`sums`, and others of any shape that only `figures` of held-out examples needs: counts by label, say."""

    def figures(self, sums: Mapping[str, np.ndarray | float]) -> dict[str, float]:
        """What is told of sums over any number of batches, of `sums` or `held_out`; nan where nothing was counted."""

    def samples(self, encoder: BertEncoder, batch: batches.Batch, tokens: Sequence[str]) -> dict[str, str]:
        """Markdown by title: what the model makes of a few examples. `tokens` are by id."""
