"""The step that stops a run whose eval rows are unlike those that are learned from."""

import os

import tensorflow_data_validation as tfdv
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx.components.statistics_gen import stats_artifact_utils
from tfx.dsl.component.experimental.annotations import InputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types import standard_artifacts
from tfx.utils import io_utils

from pipeline.components import split
from pipeline.components.gates import describe
from pipeline.finetuning.rows import LABELS
from preprocessing.errors import InputError


@component
def DriftGate(
    statistics: InputArtifact[standard_artifacts.ExampleStatistics],
    schema: InputArtifact[standard_artifacts.Schema],
    most: Parameter[float],
    code: Parameter[str],
) -> None:
    """Raises InputError where the share of a label differs by more than `most`, from 0 to 1, between train and eval."""
    wanted = io_utils.parse_pbtxt_file(os.path.join(schema.uri, "schema.pbtxt"), schema_pb2.Schema())
    for feature in wanted.feature:
        if feature.name == LABELS:
            feature.drift_comparator.infinity_norm.threshold = most
    train, held_out = (stats_artifact_utils.load_statistics(statistics, name).proto() for name in split.NAMES)
    found = tfdv.validate_statistics(held_out, wanted, previous_statistics=train)
    problems = [describe(feature, info) for feature, info in sorted(found.anomaly_info.items())]
    if problems:
        raise InputError(
            f"the eval rows are unlike those of train (gate.max_drift {most:g}), so that figures on them would say "
            f"little: {'; '.join(problems)}"
        )
