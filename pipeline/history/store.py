"""ML Metadata as plain Python: which execution made what of what."""

import dataclasses
import datetime
from collections.abc import Iterable
from typing import Any

from google.protobuf import json_format, message
from ml_metadata.proto import metadata_store_pb2

from pipeline.history import connection
from pipeline.history.homes import Home

_Event = metadata_store_pb2.Event
_State = metadata_store_pb2.Execution.State
_STATES = {_State.COMPLETE: "ran", _State.CACHED: "cached", _State.RUNNING: "running"}  # any other: failed


@dataclasses.dataclass(frozen=True)
class Artifact:
    id: int
    uri: str
    properties: dict[str, Any]
    live: bool  # and not marked DELETED, or given by a step that failed


@dataclasses.dataclass(frozen=True)
class Execution:
    """`state`: ran, cached, running (or killed) or failed. Times are UTC."""

    id: int
    pipeline: str
    node: str
    state: str
    began: datetime.datetime
    ended: datetime.datetime
    properties: dict[str, Any]


class Store:
    """Raises StoreError or InputError for one that cannot be read (see `connection`)."""

    def __init__(self, home: Home):
        config = connection.config(home.folder)
        if config.HasField("sqlite"):  # which is never made anew
            config.sqlite.connection_mode = metadata_store_pb2.SqliteMetadataSourceConfig.READWRITE
        self._store = connection.connect(config, patience=5.0)
        self._nodes: dict[int, tuple[str, str]] = {}  # (pipeline, node) by execution
        for context in self._contexts("node"):
            pipeline, _, node = context.name.rpartition(".")
            for execution in self._store.get_executions_by_context(context.id):
                self._nodes[execution.id] = pipeline, node

    def _contexts(self, kind: str) -> list[Any]:
        try:
            return self._store.get_contexts_by_type(kind)
        except Exception:  # a store in which nothing ran yet does not know the type
            return []

    def runs(self) -> dict[str, list[Execution]]:
        """Executions by run, each in the order in which they began."""
        return {
            context.name: sorted(
                map(self._execution, self._store.get_executions_by_context(context.id)), key=lambda found: found.id
            )
            for context in self._contexts("pipeline_run")
        }

    def runs_of(self, execution: Execution) -> list[str]:
        """The runs that an execution is part of."""
        ids = {kind.id for kind in self._store.get_context_types() if kind.name == "pipeline_run"}
        return [found.name for found in self._store.get_contexts_by_execution(execution.id) if found.type_id in ids]

    def artifacts(self) -> list[Artifact]:
        return list(map(_artifact, self._store.get_artifacts()))

    def mark_deleted(self, ids: Iterable[int]) -> None:
        """From now on no cache gives these artifacts."""
        found = self._store.get_artifacts_by_id(list(ids))
        for artifact in found:
            artifact.state = metadata_store_pb2.Artifact.DELETED
        self._store.put_artifacts(found)

    def artifact(self, uri: str) -> Artifact | None:
        found = self._store.get_artifacts_by_uri(uri)
        return _artifact(found[-1]) if found else None

    def producer(self, artifact: Artifact) -> Execution | None:
        """The execution that made it, and not those which took it from the cache."""
        made = self._linked(artifact, (_Event.OUTPUT, _Event.DECLARED_OUTPUT))
        return next((found for found in made if found.state != "cached"), None)

    def users(self, artifact: Artifact, node: str) -> list[Execution]:
        """The executions of a node that read it, the newest last."""
        read = self._linked(artifact, (_Event.INPUT, _Event.DECLARED_INPUT))
        return [found for found in read if found.node == node]

    def inputs(self, execution: Execution) -> dict[str, list[Artifact]]:
        return self._artifacts(execution, (_Event.INPUT, _Event.DECLARED_INPUT))

    def outputs(self, execution: Execution) -> dict[str, list[Artifact]]:
        return self._artifacts(execution, (_Event.OUTPUT, _Event.DECLARED_OUTPUT))

    def _linked(self, artifact: Artifact, types: Iterable[int]) -> list[Execution]:
        events = self._store.get_events_by_artifact_ids([artifact.id])
        ids = sorted({event.execution_id for event in events if event.type in types})
        return sorted(map(self._execution, self._store.get_executions_by_id(ids)), key=lambda found: found.id)

    def _artifacts(self, execution: Execution, types: Iterable[int]) -> dict[str, list[Artifact]]:
        events = self._store.get_events_by_execution_ids([execution.id])
        keys = {event.artifact_id: event.path.steps[0].key for event in events if event.type in types}
        found: dict[str, list[Artifact]] = {}
        for artifact in self._store.get_artifacts_by_id(list(keys)):
            found.setdefault(keys[artifact.id], []).append(_artifact(artifact))
        return found

    def _execution(self, found: Any) -> Execution:
        return Execution(
            found.id,
            *self._nodes.get(found.id, ("", "?")),
            _STATES.get(found.last_known_state, "failed"),
            _time(found.create_time_since_epoch),
            _time(found.last_update_time_since_epoch),
            _properties(found),
        )


def _artifact(found: Any) -> Artifact:
    return Artifact(found.id, found.uri, _properties(found), found.state == metadata_store_pb2.Artifact.LIVE)


def _properties(found: Any) -> dict[str, Any]:
    return {name: plain(value) for name, value in (*found.properties.items(), *found.custom_properties.items())}


def _time(milliseconds: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(milliseconds / 1000, datetime.timezone.utc)


def plain(value: metadata_store_pb2.Value) -> Any:
    """A property's value."""
    found = getattr(value, value.WhichOneof("value"))
    return json_format.MessageToDict(found) if isinstance(found, message.Message) else found
