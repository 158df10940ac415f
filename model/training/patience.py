"""When a run ends because it gets no better."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from model.tasks.task import Task


class Patience:
    """Counts evaluations since the one with the best watched figure; nan is never better.

    Args:
        most: `over` is true after so many in a row; None: never.
        history: rows of `history.jsonl` up to where the run is, so that one that goes on counts as one that was not
            interrupted.
    """

    def __init__(self, most: int | None, task: Task, history: Iterable[Mapping[str, Any]]):
        self._most, self._task = most, task
        self._best, self.waited = math.inf, 0
        for row in history:
            if row["kind"] == "held_out":
                self.add(row)

    def add(self, figures: Mapping[str, Any]) -> None:
        """Of another evaluation."""
        figure = figures[self._task.watched]
        loss = figure if self._task.lower_is_better else -figure
        if loss < self._best:  # as `State.is_best`, which keeps float32
            self._best, self.waited = float(np.float32(loss)), 0
        else:
            self.waited += 1

    @property
    def over(self) -> bool:
        return self._most is not None and self.waited >= self._most
