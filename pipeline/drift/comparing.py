"""How far statistics have moved, by the comparators of TensorFlow Data Validation."""

import dataclasses
from collections.abc import Collection, Iterable
from typing import Any, Literal

import tensorflow_data_validation as tfdv
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

from pipeline.drift import statistics as measured
from pipeline.drift.measures import CHARACTERS, LANGUAGE, TOKENS, WORDS
from preprocessing.errors import InputError

Comparator = Literal["drift_comparator", "skew_comparator"]
_CATEGORIES = (LANGUAGE, CHARACTERS, TOKENS)
_COMPARED = (*_CATEGORIES, WORDS)


@dataclasses.dataclass(frozen=True)
class Moved:
    """One line of the table: how a feature stood before, and stands now.

    `what` is the value whose share is given, where the feature has many: that which moved most."""

    feature: str
    what: str
    before: float
    now: float
    distance: float
    bound: float
    against: str  # what it is compared with
    of: str  # what is compared

    @property
    def passes(self) -> bool:
        return self.distance <= self.bound

    def __str__(self) -> str:
        return (
            f"{self.feature}: {self.what} {self.before:.4g} in {self.against}, {self.now:.4g} in {self.of}; "
            f"distance {self.distance:.4g}, at most {self.bound:g}"
        )


def schema(bounds: dict[str, Any], comparator: Comparator, names: Collection[str] = _COMPARED) -> schema_pb2.Schema:
    """Of the features that are compared, with their bounds."""
    found = schema_pb2.Schema()
    for name in sorted(set(names) & set(_COMPARED)):
        feature = found.feature.add(name=name)
        feature.type = schema_pb2.BYTES if name in _CATEGORIES else schema_pb2.FLOAT
        to = getattr(feature, comparator)
        distance = to.infinity_norm if name in _CATEGORIES else to.jensen_shannon_divergence
        distance.threshold = bounds[name]
    return found


def compare(
    before: statistics_pb2.DatasetFeatureStatisticsList,
    now: statistics_pb2.DatasetFeatureStatisticsList,
    bounds: dict[str, Any],
    *,
    against: str,
    of: str,
    comparator: Comparator = "drift_comparator",
) -> list[Moved]:
    """A line for each feature that both have. Of skew, `before` is what was trained on and `now` what is served."""
    first, second = measured.by_name(before), measured.by_name(now)
    wanted = schema(bounds, comparator, first.keys() & second.keys())
    if comparator == "drift_comparator":
        found = tfdv.validate_statistics(now, wanted, previous_statistics=before)
    else:
        found = tfdv.validate_statistics(before, wanted, serving_statistics=now)
    moved = []
    for info in found.drift_skew_info:
        name = info.path.step[0]
        distance = [*info.drift_measurements, *info.skew_measurements][0]
        told = _told(name, first[name], second[name])
        moved.append(Moved(name, *told, distance.value, bounds[name], against, of))
    return moved


def _told(name, before, now) -> tuple[str, float, float]:
    if name not in _CATEGORIES:
        return "median", before.num_stats.median, now.num_stats.median
    shares, later = measured.shares(before), measured.shares(now)
    most = max({*shares, *later}, key=lambda value: (abs(shares.get(value, 0) - later.get(value, 0)), value))
    return f"share of {most!r}", shares.get(most, 0.0), later.get(most, 0.0)


def check(moved: Iterable[Moved], way_out: str) -> None:
    """Raises InputError that names all that moved too far."""
    if far := [str(line) for line in moved if not line.passes]:
        raise InputError(f"{'; '.join(far)}. {way_out}")
