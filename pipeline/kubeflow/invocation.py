"""What Kubeflow tells a container, made such that TFX understands it; and what TFX gives back, for Kubeflow.

Kubeflow's launcher copies each input from its bucket into a folder of the container before the step runs, and what lies
in the outputs' folders to the bucket after it. So a step reads and writes local files, and needs no client for S3:

    s3://bucket/run/Trainer/1/model  <->  /s3/bucket/run/Trainer/1/model          (the same for gs:// and minio://)

Sources: driver.go (provisionOutputs), resolve.go and launcher_v2.go of Kubeflow Pipelines 2.17.
"""

import os
import re
from typing import Any

from preprocessing.errors import InputError

# Artifact types of this project: their names in the compiled pipeline, and their classes.
TYPES = {"bert.Vocabulary": "pipeline.components.vocabulary.Vocabulary"}

_FOLDERS = {"s3": "s3", "gs": "gcs", "minio": "minio"}
_LOGS = "executor-logs"  # an output that is the launcher's own
_LOCAL_RUNNERS = ("FnApiRunner", "DirectRunner", "SwitchingDirectRunner", "BundleBasedDirectRunner", "PrismRunner")


def local_path(uri: str, volumes: str = "/") -> str:
    """Where the launcher keeps its copy of a file or folder. `volumes`: the folder that the launcher's own lie in."""
    scheme, separator, path = uri.partition("://")
    if not separator or scheme not in _FOLDERS:
        raise InputError(f"artifacts must lie in a bucket: gs://, s3:// or minio://. Received: {uri!r}")
    return os.path.join(volumes, _FOLDERS[scheme], path)


def runs_elsewhere(beam_args: list[str]) -> bool:
    """Whether Beam options name a runner whose workers do not see the files of this container."""
    runners = [re.split("[=.]", arg)[-1] for arg in beam_args if arg.startswith("--runner=")]
    return bool(runners) and runners[-1] not in _LOCAL_RUNNERS


def prepare(
    invocation: dict[str, Any], inputs_spec: dict[str, Any], beam_args: list[str], volumes: str
) -> dict[str, str]:
    """Rewrites an ExecutorInput in place, makes the output folders, and gives the local paths with their URIs.

    Where Beam's workers are elsewhere, gs:// stays as it is, which Beam and TensorFlow read and write by themselves.
    """
    elsewhere = runs_elsewhere(beam_args)
    places: dict[str, str] = {}
    outputs = invocation.get("outputs", {}).get("artifacts", {})
    outputs.pop(_LOGS, None)
    inputs = invocation.get("inputs", {}).get("artifacts", {})
    for key, artifact in (*each(inputs), *each(outputs)):
        _set_type(artifact, inputs_spec.get("artifacts", {}).get(key, {}).get("artifactType", {}))
        uri = artifact["uri"]
        if elsewhere and uri.startswith("gs://"):
            continue
        if elsewhere:
            raise InputError(f"a Beam runner with workers of its own needs artifacts in gs://. Received: {uri!r}")
        artifact["uri"] = local_path(uri, volumes)
        places[artifact["uri"]] = uri
    for _, artifact in each(outputs):
        if "://" not in artifact["uri"]:
            os.makedirs(artifact["uri"], exist_ok=True)
    return places


def each(artifacts: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Artifacts with the keys of the inputs or outputs that they are."""
    return [(key, artifact) for key, found in artifacts.items() for artifact in found.get("artifacts", ())]


def _set_type(artifact: dict[str, Any], stated: dict[str, Any]) -> None:
    """Kubeflow forgets the type of what it hands on (`"instanceSchema": ""`): it stands in the compiled pipeline."""
    kind = artifact.get("type") or {}
    if not any(kind.values()):
        kind = stated
    title = re.match(r"title: (\S+)", kind.get("instanceSchema", ""))
    own = title and TYPES.get(title[1])
    artifact["type"] = {"schemaTitle": own} if own else kind


def restore(value: Any, places: dict[str, str]) -> Any:
    """A JSON value with the URIs again where local paths stand; the paths are in properties, too."""
    if isinstance(value, dict):
        return {key: restore(item, places) for key, item in value.items()}
    if isinstance(value, list):
        return [restore(item, places) for item in value]
    if isinstance(value, str):
        for path, uri in places.items():
            if value == path or value.startswith(f"{path}/"):
                return uri + value[len(path) :]
    return value
