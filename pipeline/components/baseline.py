"""The model that a candidate is compared with: a component, since Kubeflow runs no resolvers of ours."""

import json
import os

from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.dsl.components.base import base_driver
from tfx.dsl.io import fileio
from tfx.proto.orchestration import driver_output_pb2
from tfx.types import standard_artifacts
from tfx.utils import io_utils, path_utils

from pipeline.components.vocabulary import FILE
from pipeline.finetuning import description
from pipeline.history import pushed

NONE = "none"


def find(serving: str, candidate: str) -> str | None:
    """Folder of the model pushed last that the candidate can be compared with: another one (so that a run that repeats
    another finds the same baseline and its cached result) that was not rolled back, of the same vocabulary (losses a
    token say nothing across vocabularies), and for texts no shorter; of fine-tuned models one of the same labels,
    judged on the same rows."""
    others = {pushed.own_identity(candidate), *pushed.rolled_back(pushed.read(serving))}
    for _, folder in sorted(pushed.versions(serving).items(), reverse=True):
        if pushed.identity(folder) not in others and _is_comparable(folder, candidate):
            return folder
    return None


def _is_comparable(baseline: str, candidate: str) -> bool:
    def read(folder: str, *path: str) -> str:
        with fileio.open(os.path.join(folder, *path)) as file:
            return file.read()

    def length(folder: str) -> int:
        return json.loads(read(folder, "assets.extra", "export.json"))["settings"]["max_seq_length"]

    try:
        if description.exists(candidate):
            found = description.read(baseline) if description.exists(baseline) else None
            return found is not None and found.is_comparable(description.read(candidate))
        same = read(baseline, "assets", FILE) == read(candidate, "assets", FILE)
        return same and length(baseline) >= length(candidate)
    except (fileio.NotFoundError, OSError, ValueError, KeyError, TypeError):  # another program's, or removed since
        return False


@component
def Baseline(
    candidate: InputArtifact[standard_artifacts.Model],
    baseline: OutputArtifact[standard_artifacts.Model],
    serving: Parameter[str],
    code: Parameter[str],
) -> None:
    """Gives a copy of the baseline, which stays when the pushed one goes. It gives an artifact always, since Kubeflow
    takes one that is left out for an error: with no model in it, and `baseline` "none", where there is none."""
    found = find(serving, path_utils.serving_model_path(candidate.uri))
    if found:
        io_utils.copy_dir(found, path_utils.serving_model_path(baseline.uri))
    io_utils.write_string_file(os.path.join(baseline.uri, "baseline.json"), json.dumps({"baseline": found or NONE}))
    baseline.set_string_custom_property("baseline", found or NONE)


class Driver(base_driver.BaseDriver):
    """Asked before the cache: which model is the baseline is part of the key, so that the same one is the same
    artifact, and the evaluation that has seen it holds. Where no driver runs (Kubeflow), the cache must be off."""

    def run(self, execution_info):
        (candidate,) = execution_info.input_dict["candidate"]
        found = find(execution_info.exec_properties["serving"], path_utils.serving_model_path(candidate.uri))
        output = driver_output_pb2.DriverOutput()
        output.exec_properties["found"].string_value = (found and pushed.identity(found)) or found or NONE
        return output


Baseline.DRIVER_CLASS = Driver
