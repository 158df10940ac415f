"""The steps that stop a run: data that breaks its schema, a model that does not answer."""

import os

from tensorflow_metadata.proto.v0 import anomalies_pb2
from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.dsl.io import fileio
from tfx.types import artifact_utils, standard_artifacts
from tfx.utils import io_utils, path_utils

from preprocessing.errors import InputError
from serving.export import exporting


@component
def AnomalyGate(anomalies: InputArtifact[standard_artifacts.ExampleAnomalies], code: Parameter[str]) -> None:
    """See `check`."""
    check(anomalies)


def check(anomalies: standard_artifacts.ExampleAnomalies) -> None:
    """Raises InputError that names every anomaly; ExampleValidator itself only writes them down."""
    for name in artifact_utils.decode_split_names(anomalies.split_names):
        path = os.path.join(artifact_utils.get_split_uri([anomalies], name), "SchemaDiff.pb")
        with fileio.open(path, "rb") as file:
            found = anomalies_pb2.Anomalies.FromString(file.read())
        problems = [describe(feature, info) for feature, info in sorted(found.anomaly_info.items())]
        if found.dataset_anomaly_info.reason:
            problems.append(found.dataset_anomaly_info.description)
        if problems:
            raise InputError(f"the data of split {name!r} breaks its schema ({path}): " + "; ".join(problems))


def describe(feature: str, info: anomalies_pb2.AnomalyInfo) -> str:
    return f"{feature}: {info.description}"


@component
def ServingCheck(
    model: InputArtifact[standard_artifacts.Model],
    blessing: OutputArtifact[standard_artifacts.InfraBlessing],
    code: Parameter[str],
) -> None:
    """Loads the exported model in a fresh process and has it answer the golden requests; blesses it or raises."""
    exporting.verify(path_utils.serving_model_path(model.uri))
    io_utils.write_string_file(os.path.join(blessing.uri, "INFRA_BLESSED"), "")
    blessing.set_int_custom_property("blessed", 1)
