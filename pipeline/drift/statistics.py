"""Measures of many records as statistics of TensorFlow Data Validation."""

import os
from collections.abc import Callable

import apache_beam as beam
import pyarrow as pa
import tensorflow_data_validation as tfdv
from tensorflow_data_validation.statistics import stats_impl
from tensorflow_metadata.proto.v0 import statistics_pb2
from tfx.dsl.io import fileio

from pipeline.drift.measures import CHARACTERS, LANGUAGE, TOKENS, Measures

FILE = "FeatureStats.pb"  # TFX's name
_STRINGS = (LANGUAGE, CHARACTERS, TOKENS)
_BATCH = 500
Features = dict[str, statistics_pb2.FeatureNameStatistics]


def write(records: beam.PCollection, measure: Callable[[bytes], Measures], path: str) -> None:
    """Adds to the pipeline of the records: the statistics of `measure` of each, written to `path`."""
    measured = records | "Measure" >> beam.Map(measure) | "Batch" >> beam.BatchElements(_BATCH, _BATCH)
    statistics = measured | "Table" >> beam.Map(table) | "Statistics" >> tfdv.GenerateStatistics(_options())
    _ = statistics | "WriteStatistics" >> tfdv.WriteStatisticsToBinaryFile(path)


def of(measured: list[Measures]) -> statistics_pb2.DatasetFeatureStatisticsList:
    """The same of measures that are in memory."""
    return stats_impl.generate_statistics_in_memory(table(measured), _options())


def table(measured: list[Measures]) -> pa.RecordBatch:
    """A row for each record; a column has a list of values in each."""
    names = dict.fromkeys(name for one in measured for name in one)
    kinds = {name: pa.list_(pa.binary() if name in _STRINGS else pa.float32()) for name in names}
    columns = [pa.array([_values(one.get(name)) for one in measured], kinds[name]) for name in names]
    return pa.RecordBatch.from_arrays(columns, list(names))


def _values(values: list | None) -> list | None:
    return [value.encode() if isinstance(value, str) else value for value in values] if values else None


def _options() -> tfdv.StatsOptions:
    return tfdv.StatsOptions(num_top_values=50, num_rank_histogram_buckets=5000)


def read(path: str) -> Features:
    """By feature. The file is what TFDV reads, too."""
    return by_name(load(path))


def load(path: str) -> statistics_pb2.DatasetFeatureStatisticsList:
    with fileio.open(path, "rb") as file:
        return statistics_pb2.DatasetFeatureStatisticsList.FromString(file.read())


def by_name(statistics: statistics_pb2.DatasetFeatureStatisticsList) -> Features:
    return {feature.path.step[0]: feature for feature in statistics.datasets[0].features}


def mean(feature: statistics_pb2.FeatureNameStatistics) -> float:
    return feature.num_stats.mean


def shares(feature: statistics_pb2.FeatureNameStatistics) -> dict[str, float]:
    """Of each value among all, of a feature of strings."""
    buckets = feature.string_stats.rank_histogram.buckets
    total = feature.string_stats.common_stats.tot_num_values or sum(bucket.sample_count for bucket in buckets)
    return {bucket.label: bucket.sample_count / max(total, 1) for bucket in buckets}


def place(uri: str, name: str) -> str:
    """Where an artifact of statistics has those of a split, here of a span."""
    return os.path.join(uri, f"Split-{name}", FILE)
