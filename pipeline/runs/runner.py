"""Runs the nodes of a pipeline one after the other, as TFX's LocalDagRunner does, and records what each did."""

import time
from typing import Any

from google.protobuf import json_format, message
from ml_metadata.proto import metadata_store_pb2
from tfx.dsl.compiler import constants
from tfx.orchestration import metadata
from tfx.orchestration.local import runner_utils
from tfx.orchestration.local.local_dag_runner import LocalDagRunner
from tfx.orchestration.portable import launcher, runtime_parameter_utils

from pipeline.runs import steps
from pipeline.runs.record import Record

Artifacts = dict[str, list[dict[str, Any]]]  # by output key
_STATES = {metadata_store_pb2.Execution.COMPLETE: "ran", metadata_store_pb2.Execution.CACHED: "cached"}


class NodeError(RuntimeError):
    """A node that TFX gave up without raising; its log says why."""


class Runner(LocalDagRunner):
    """`run(pipeline)`, as `tfx` calls it; `tfx pipeline create` puts something else in the place of that method."""

    def __init__(self, record: Record):
        super().__init__()
        self._record = record

    def run_with_ir(self, pipeline, run_options=None):
        runtime_parameter_utils.substitute_runtime_parameter(
            pipeline, {constants.PIPELINE_RUN_ID_PARAMETER_NAME: self._record.run_id}
        )
        deployment = runner_utils.extract_local_deployment_config(pipeline)
        stated = deployment.metadata_connection_config
        connection = metadata.Metadata(getattr(stated, stated.WhichOneof("connection_config")))
        self._record.start()
        for number, node in enumerate(pipeline.nodes, 1):
            name = node.pipeline_node.node_info.id
            self._record.begin(name)
            steps.show_begin(number, len(pipeline.nodes), name)
            began, state = time.monotonic(), "failed"
            artifacts: Artifacts = {}
            try:
                info = launcher.Launcher(
                    pipeline_node=node.pipeline_node,
                    mlmd_connection=connection,
                    pipeline_info=pipeline.pipeline_info,
                    pipeline_runtime_spec=pipeline.runtime_spec,
                    executor_spec=runner_utils.extract_executor_spec(deployment, name),
                    custom_driver_spec=runner_utils.extract_custom_driver_spec(deployment, name),
                ).launch()
                state, artifacts = _result(connection, info.execution_id)
            finally:
                self._record.end(state, time.monotonic() - began, artifacts)
            if state == "failed":  # where the inputs cannot be resolved, launch() returns as if all were well
                raise NodeError(f"{name} did not run")
            steps.show_end(state, time.monotonic() - began)


def _result(connection: metadata.Metadata, execution_id: int) -> tuple[str, Artifacts]:
    """How an execution ended and what it gave, as MLMD has it."""
    with connection as handle:
        (execution,) = handle.store.get_executions_by_id([execution_id])
        events = handle.store.get_events_by_execution_ids([execution_id])
        keys = {e.artifact_id: e.path.steps[0].key for e in events if e.type == metadata_store_pb2.Event.OUTPUT}
        artifacts: Artifacts = {}
        for artifact in handle.store.get_artifacts_by_id(list(keys)):
            properties = {name: _plain(value) for name, value in artifact.custom_properties.items()}
            entry = {"id": artifact.id, "uri": artifact.uri, "properties": properties}
            artifacts.setdefault(keys[artifact.id], []).append(entry)
    return _STATES.get(execution.last_known_state, "failed"), artifacts


def _plain(value: metadata_store_pb2.Value) -> Any:
    found = getattr(value, value.WhichOneof("value"))
    return json_format.MessageToDict(found) if isinstance(found, message.Message) else found
