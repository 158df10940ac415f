"""A run that was compiled: its pipeline as TFX's launcher takes it, in `<home>/compiled/<run id>.json`.

What a step depends on (files, code, settings) is looked at when the pipeline is compiled, so each run is compiled anew.
"""

import os
import pathlib
import re

from google.protobuf import json_format
from tfx.dsl.compiler import compiler, constants
from tfx.orchestration import metadata, pipeline
from tfx.orchestration.local import runner_utils
from tfx.orchestration.portable import runtime_parameter_utils
from tfx.proto.orchestration import executable_spec_pb2, metadata_pb2, pipeline_pb2

from pipeline.history import connection
from preprocessing import storage
from preprocessing.errors import InputError, require

_UNPACKED = (executable_spec_pb2, metadata_pb2)  # what stands in a file as Any is read only where these are imported


def path(home: pathlib.Path, run_id: str) -> pathlib.Path:
    """Raises InputError for an id that cannot be a file's name."""
    rule = "a run's id must be of A-Z a-z 0-9 _ . : + - and at most 200 characters"
    require(re.fullmatch(r"[A-Za-z0-9_:+-][A-Za-z0-9_.:+-]{0,199}", run_id) is not None, rule, run_id)
    return home / "compiled" / f"{run_id}.json"


def write(made: pipeline.Pipeline, home: pathlib.Path, run_id: str) -> pathlib.Path:
    """Compiles a pipeline for a run. What was compiled for it before stays as it is if it is the same, so that its
    steps are done as far as they are; else all of them run again, or come from the cache."""
    file = path(home, run_id)
    old = read(home, run_id) if file.exists() else None
    new = _of_run(made, run_id if old is None else run_of(old))
    if old is not None and json_format.MessageToDict(new) == json_format.MessageToDict(old):
        return file
    if old is not None:  # TFX does nothing for a step that is done, whatever has become of its settings
        attempt = run_of(old).removeprefix(run_id).removeprefix("~") or "1"
        new = _of_run(made, f"{run_id}~{int(attempt) + 1}")
    file.parent.mkdir(exist_ok=True)
    storage.write_whole(json_format.MessageToJson(new), file)
    return file


def _of_run(made: pipeline.Pipeline, run_id: str) -> pipeline_pb2.Pipeline:
    result = compiler.Compiler().compile(made)
    bind(result, run_id)
    return result


def bind(compiled: pipeline_pb2.Pipeline, run_id: str) -> None:
    """Makes a compiled pipeline that of one run."""
    runtime_parameter_utils.substitute_runtime_parameter(compiled, {constants.PIPELINE_RUN_ID_PARAMETER_NAME: run_id})


def read(home: pathlib.Path, run_id: str) -> pipeline_pb2.Pipeline:
    """Raises InputError where there is none, or none that can be read."""
    file = path(home, run_id)
    try:
        return json_format.Parse(file.read_text("utf-8"), pipeline_pb2.Pipeline())
    except FileNotFoundError:
        raise InputError(
            f"{file}: the run was not compiled; `python -m pipeline.runs.compile --run-id {run_id}` comes first"
        ) from None
    except (json_format.ParseError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: not a compiled pipeline ({error}); remove it and compile the run anew") from None


def run_of(compiled: pipeline_pb2.Pipeline) -> str:
    """The run's id as MLMD has it."""
    return compiled.runtime_spec.pipeline_run_id.field_value.string_value


def names(compiled: pipeline_pb2.Pipeline) -> list[str]:
    """Of the nodes, in an order in which they can run."""
    return [node.pipeline_node.node_info.id for node in compiled.nodes]


class Store(metadata.Metadata):
    """Opened as `connection` does: for a database that is away for a while, TFX's own waits a few seconds."""

    def __enter__(self) -> "Store":
        self._store = connection.connect(self._connection_config)
        self._users += 1
        return self


def store(compiled: pipeline_pb2.Pipeline) -> Store:
    """The store that knows its executions and artifacts."""
    stated = runner_utils.extract_local_deployment_config(compiled).metadata_connection_config
    return Store(getattr(stated, stated.WhichOneof("connection_config")))


def output_folders(compiled: pipeline_pb2.Pipeline, name: str, execution_id: int) -> list[str]:
    """Where TFX has a node write in one execution: a folder for each output, and one of the launcher's own."""
    (node,) = (node.pipeline_node for node in compiled.nodes if node.pipeline_node.node_info.id == name)
    root = compiled.runtime_spec.pipeline_root.field_value.string_value
    below = (*node.outputs.outputs, os.path.join(".system", "executor_execution"))
    return [os.path.join(root, name, part, str(execution_id)) for part in below]
