"""How good an encoder is on held-out examples, beside what needs no model."""

import math
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from model.encoder import BertEncoder
from model.tasks.task import Task
from preprocessing import batches


class Evaluation:
    """`evaluation(limit)` -> the task's figures by name; compiled once for as many calls as there are.

    buckets: lengths to which batches are cut, as in training; examples of like length then stand together.
    """

    def __init__(
        self,
        task: Task,
        encoder: BertEncoder,
        examples: batches.Examples,
        batch_size: int,
        transform: batches.Transform | None = None,
        buckets: Sequence[int] = (),
    ):
        self._task, self._encoder = task, encoder
        self._examples, self._batch_size, self._transform, self._buckets = examples, batch_size, transform, buckets
        self._sums_of = tf.function(lambda batch: task.held_out(encoder, batch), autograph=False)
        # Building `tf.data` takes longer than a small set's figures, and a run asks ten times.
        self._built: dict[int, tf.data.Dataset] = {}  # the last asked, by the number of its batches
        self._shown: batches.Batch | None = None

    def __call__(self, limit: int | None = None) -> dict[str, float]:
        """On the first `limit` examples, rounded down to whole batches but one; None: on all."""
        whole = math.ceil(self._examples.count / self._batch_size)
        sums: dict[str, np.ndarray | float] = {}
        for batch in self._batches(whole if limit is None else min(whole, max(1, limit // self._batch_size))):
            for name, value in self._sums_of(batch).items():
                sums[name] = sums.get(name, 0.0) + value.numpy().astype(np.float64)
        return self._task.figures(sums)

    def _batches(self, count: int) -> tf.data.Dataset:
        """So many of them."""
        if count not in self._built:
            examples = self._examples
            if self._buckets and examples.arrays:
                examples = examples.shortest_first(count * self._batch_size)
            built = examples.batches(self._batch_size, shuffle=False, buckets=self._buckets, transform=self._transform)
            self._built = {count: built.take(count)}
        return self._built[count]

    def samples(self, tokens: list[str]) -> dict[str, str]:
        """The task's samples of the first four examples."""
        if self._shown is None:
            self._shown = next(iter(self._examples.batches(4, shuffle=False, transform=self._transform)))
        return self._task.samples(self._encoder, self._shown, tokens)
