"""One node of a compiled pipeline: launched by TFX, and how it ended as MLMD has it."""

import pathlib
from typing import Any

import click
import ml_metadata
from ml_metadata.proto import metadata_store_pb2
from tfx.dsl.compiler import constants
from tfx.dsl.io import fileio
from tfx.orchestration import metadata
from tfx.orchestration.local import runner_utils
from tfx.orchestration.portable import launcher
from tfx.proto.orchestration import pipeline_pb2

from pipeline.history import connection, trainings
from pipeline.history.store import plain
from pipeline.runs import compiled, outputs
from pipeline.runs.record import Artifacts

_DONE = {metadata_store_pb2.Execution.COMPLETE: "ran", metadata_store_pb2.Execution.CACHED: "cached"}
_ACTIVE = (metadata_store_pb2.Execution.NEW, metadata_store_pb2.Execution.RUNNING)


class NodeError(RuntimeError):
    """A node that TFX gave up without raising; its log says why."""


def launch(pipeline: pipeline_pb2.Pipeline, name: str, store: metadata.Metadata) -> tuple[str, Artifacts]:
    """Runs a node, or takes its result from the cache. Gives its state, "ran" or "cached", and artifacts. Raises what
    the node raises, and NodeError where it did not run."""
    (node,) = (node.pipeline_node for node in pipeline.nodes if node.pipeline_node.node_info.id == name)
    with connection.telling(store.connection_config):
        with store as handle:
            for said in outputs.distrust(handle.store, f"{pipeline.pipeline_info.id}.{name}"):
                click.echo(f"        {said}", err=True)
        return _launch(pipeline, node, store)


def _launch(pipeline: pipeline_pb2.Pipeline, node: pipeline_pb2.PipelineNode, store: metadata.Metadata):
    name = node.node_info.id
    deployment = runner_utils.extract_local_deployment_config(pipeline)
    info = launcher.Launcher(
        pipeline_node=node,
        mlmd_connection=store,
        pipeline_info=pipeline.pipeline_info,
        pipeline_runtime_spec=pipeline.runtime_spec,
        executor_spec=runner_utils.extract_executor_spec(deployment, name),
        custom_driver_spec=runner_utils.extract_custom_driver_spec(deployment, name),
    ).launch()
    with store as handle:
        (execution,) = handle.store.get_executions_by_id([info.execution_id])
        if _is_done(execution):
            state, artifacts = _DONE[execution.last_known_state], _artifacts(handle.store, execution.id)
            if state == "ran":
                outputs.note(artifacts)
            return state, artifacts
        done = {other for other, found in executions(pipeline, handle.store).items() if _is_done(found)}
    # Where the inputs cannot be resolved, launch() returns as if all were well.
    waiting = [other for other in node.upstream_nodes if other not in done]
    raise NodeError(f"{name} did not run" + (f": {', '.join(waiting)} of this run is not done" if waiting else ""))


def remove_ended(work: pathlib.Path, artifacts: Artifacts) -> None:
    """The trainings whose results are now known."""
    trainings.remove_ended(work, (entry["uri"] for entries in artifacts.values() for entry in entries))


def remove_leftovers(pipeline: pipeline_pb2.Pipeline, name: str, store: metadata.Metadata) -> list[str]:
    """Removes the folders of a try of this node in this run that did not come to its end, and gives their paths. TFX
    takes such a try up again, folders included, and would take what lies in them for the node's own."""
    with store as handle:
        left = executions(pipeline, handle.store).get(name)
    if left is None or _is_done(left):
        return []
    there = [folder for folder in compiled.output_folders(pipeline, name, left.id) if fileio.exists(folder)]
    for folder in there:
        fileio.rmtree(folder)
    return there


def entries(pipeline: pipeline_pb2.Pipeline, store: metadata.Metadata) -> list[dict[str, Any]]:
    """What the nodes of a run did so far, each as `record.Record` has it."""
    found: list[dict[str, Any]] = []
    with store as handle:
        for name, execution in executions(pipeline, handle.store).items():
            if execution.last_known_state in _ACTIVE:
                found.append({"node": name, "state": "running"})
                continue
            milliseconds = execution.last_update_time_since_epoch - execution.create_time_since_epoch
            entry = {"node": name, "state": _DONE.get(execution.last_known_state, "failed")}
            found.append(entry | {"seconds": milliseconds / 1000, "artifacts": _artifacts(handle.store, execution.id)})
    return found


def executions(
    pipeline: pipeline_pb2.Pipeline, store: ml_metadata.MetadataStore
) -> dict[str, metadata_store_pb2.Execution]:
    """Those of a run by node, in the order of the pipeline."""
    run = store.get_context_by_type_and_name(constants.PIPELINE_RUN_CONTEXT_TYPE_NAME, compiled.run_of(pipeline))
    found = {}
    for execution in store.get_executions_by_context(run.id) if run else ():
        contexts = {context.name for context in store.get_contexts_by_execution(execution.id)}
        for name in compiled.names(pipeline):
            if f"{pipeline.pipeline_info.id}.{name}" in contexts:
                found[name] = execution
    return {name: found[name] for name in compiled.names(pipeline) if name in found}


def state_of(execution: metadata_store_pb2.Execution | None) -> str:
    """`none`, `running`, `ran`, `cached` or `failed`."""
    if execution is None:
        return "none"
    return "running" if execution.last_known_state in _ACTIVE else _DONE.get(execution.last_known_state, "failed")


def _is_done(execution: metadata_store_pb2.Execution) -> bool:
    return execution.last_known_state in _DONE


def _artifacts(store: ml_metadata.MetadataStore, execution_id: int) -> Artifacts:
    """What an execution gave."""
    events = store.get_events_by_execution_ids([execution_id])
    keys = {e.artifact_id: e.path.steps[0].key for e in events if e.type == metadata_store_pb2.Event.OUTPUT}
    artifacts: Artifacts = {}
    for artifact in store.get_artifacts_by_id(list(keys)):
        properties = {name: plain(value) for name, value in artifact.custom_properties.items()}
        entry = {"id": artifact.id, "uri": artifact.uri, "properties": properties}
        artifacts.setdefault(keys[artifact.id], []).append(entry)
    return artifacts
