"""How good an encoder is on held-out examples, beside what needs no model."""

import numpy as np
import tensorflow as tf

from model.encoder import BertEncoder
from model.tasks.task import Task
from preprocessing import batches


class Evaluation:
    """`evaluation(limit)` -> the task's figures by name; compiled once for as many calls as there are."""

    def __init__(
        self,
        task: Task,
        encoder: BertEncoder,
        examples: batches.Examples,
        batch_size: int,
        transform: batches.Transform | None = None,
    ):
        self._task, self._encoder = task, encoder
        self._examples, self._batch_size, self._transform = examples, batch_size, transform
        self._sums_of = tf.function(lambda batch: task.held_out(encoder, batch))

    def __call__(self, limit: int | None = None) -> dict[str, float]:
        """On the first `limit` examples, rounded down to whole batches but one; None: on all."""
        dataset = self._examples.batches(self._batch_size, shuffle=False, transform=self._transform)
        if limit is not None:
            dataset = dataset.take(max(1, limit // self._batch_size))
        sums: dict[str, np.ndarray | float] = {}
        for batch in dataset:
            for name, value in self._sums_of(batch).items():
                sums[name] = sums.get(name, 0.0) + value.numpy().astype(np.float64)
        return self._task.figures(sums)

    def samples(self, tokens: list[str], count: int = 4) -> dict[str, str]:
        """The task's samples of the first examples."""
        batch = next(iter(self._examples.batches(count, shuffle=False, transform=self._transform)))
        return self._task.samples(self._encoder, batch, tokens)
