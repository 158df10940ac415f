"""What the label of a row is to training: the number of a class, some of several labels, or a score.

A labelling first sees each row of train (`learn`), and then says what any row's label becomes (`target`).
"""

import collections
import math
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np

from preprocessing import features
from preprocessing.errors import InputError, require
from preprocessing.tasks.tables import Row

MAX_LABELS = 10_000  # more are no labels but texts or ids


class Labelling(Protocol):
    """Attributes: `feature`, that the target is written as; `stated`, what is known before any row is seen, whose repr
    tells two labellings apart; `labels`, in the order of their numbers, once train has been seen."""

    feature: str
    stated: Any
    labels: list[str]

    def learn(self, row: Row) -> None:
        """Raises InputError where the label cannot be one."""

    def learned(self, path: str) -> None:
        """Train, the table at `path`, has been seen. Raises InputError where there is nothing to be learned."""

    def target(self, row: Row) -> tuple[list[float] | None, str]:
        """(numbers, all targets as many, and ""), or also (numbers, `unlabelled` or `unknown`), of which training can
        make no use but which count as errors; or (None, why the row cannot be used)."""

    def counted(self, target: Sequence[float]) -> Iterable[int]:
        """Numbers of the labels that the target has."""


class OneLabel:
    """One of the labels: a target is its number, or their count where it is none of them."""

    feature = features.LABEL_IDS

    def __init__(self, declared: Sequence[str] | None = None):
        """`declared`: the labels; else those of train, sorted."""
        self.stated = None if declared is None else list(declared)
        self.labels: list[str] = []
        self._counts = _Counts(declared)

    def learn(self, row: Row) -> None:
        if row.label is not None:
            self._counts.add(row, row.label)

    def learned(self, path: str) -> None:
        self.labels = self._counts.labels()
        require(
            sum(count > 0 for count in self._counts.values()) > 1,
            f"{path}: training needs at least two classes",
            ", ".join(self._counts) or "no labelled row",
        )
        self._numbers = {label: number for number, label in enumerate(self.labels)}

    def target(self, row: Row) -> tuple[list[float] | None, str]:
        if row.label is None:
            return [len(self.labels)], "unlabelled"
        number = self._numbers.get(row.label, len(self.labels))
        return [number], "" if number < len(self.labels) else "unknown"

    def counted(self, target: Sequence[float]) -> Iterable[int]:
        return [int(number) for number in target if number < len(self.labels)]


class SeveralLabels:
    """Any number of the labels, none too: a target is 1 for each that the row has, else 0."""

    feature = features.LABEL_IDS

    def __init__(self, declared: Sequence[str] | None = None):
        self.stated = ["several", None if declared is None else list(declared)]
        self.labels: list[str] = []
        self._counts = _Counts(declared)

    def learn(self, row: Row) -> None:
        for label in row.labels:
            self._counts.add(row, label)

    def learned(self, path: str) -> None:
        self.labels = self._counts.labels()
        require(any(self._counts.values()), f"{path}: training needs rows with labels", "none")
        self._numbers = {label: number for number, label in enumerate(self.labels)}

    def target(self, row: Row) -> tuple[list[float] | None, str]:
        target, fault = [0.0] * len(self.labels), ""
        for label in row.labels:
            if label in self._numbers:
                target[self._numbers[label]] = 1
            else:
                fault = "unknown"
        return target, fault

    def counted(self, target: Sequence[float]) -> Iterable[int]:
        return np.flatnonzero(target).tolist()


class Score:
    """A number: the target is itself. `mean`, `scale` (the standard deviation), `least` and `most` are train's."""

    feature = features.SCORES

    def __init__(self):
        self.stated = "score"
        self.labels: list[str] = []
        self._count, self._sum, self._squares = 0, 0.0, 0.0
        self.least, self.most = math.inf, -math.inf

    def learn(self, row: Row) -> None:
        if (value := row.number) is not None:
            self._count, self._sum, self._squares = self._count + 1, self._sum + value, self._squares + value * value
            self.least, self.most = min(self.least, value), max(self.most, value)

    def learned(self, path: str) -> None:
        require(self._count > 1, f"{path}: training needs rows whose label is a number", self._count)
        require(self.scale > 0, f"{path}: the rows' numbers must differ", self.mean)

    @property
    def mean(self) -> float:
        return self._sum / self._count

    @property
    def scale(self) -> float:
        return math.sqrt(max(self._squares / self._count - self.mean**2, 0.0))

    def target(self, row: Row) -> tuple[list[float] | None, str]:
        if row.number is None:
            received = "nothing" if row.label is None else repr(row.label)
            return None, f"its label must be a finite number. Received: {received}"
        return [row.number], ""

    def counted(self, target: Sequence[float]) -> Iterable[int]:
        return ()


class _Counts(collections.Counter[str]):
    """Train's rows by label."""

    def __init__(self, declared: Sequence[str] | None):
        super().__init__(dict.fromkeys(declared or (), 0))
        self._declared = declared

    def add(self, row: Row, label: str) -> None:
        if self._declared is not None and label not in self:
            some = ", ".join(self._declared[:5]) + (f" and {len(self) - 5} more" if len(self) > 5 else "")
            raise InputError(f"{row.place}: a label must be one of those declared ({some}). Received: {label!r}")
        self[label] += 1
        if len(self) > MAX_LABELS:
            raise InputError(
                f"{row.place}: more than {MAX_LABELS:,} different labels; name the column of the labels with --label"
            )

    def labels(self) -> list[str]:
        return list(self._declared) if self._declared is not None else sorted(self)
