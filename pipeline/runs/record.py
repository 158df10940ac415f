"""What a run did, written as it does it: `run.json`, its nodes; and `report.json`, which is never an older run's. Both
stay in `runs/<run>/`, too."""

import datetime
import json
import pathlib
import uuid
from typing import Any

from pipeline.history.homes import read_json
from preprocessing import storage

Artifacts = dict[str, list[dict[str, Any]]]  # of a node, by output key

_OF_A_TRY = ("nodes", "error", "node", "ended")  # which the next one does not take over


class Record:
    """One run in the folder of reports.

    `run.json`: `run` (its id), `pipeline`, `state` (`running`, `done` or `failed`), `started`, `ended`, what was noted,
    and `nodes` in order, each with its name, `state` (`running`, `ran`, `cached` or `failed`), `seconds` and
    `artifacts`: by output key, their `uri`, MLMD `id` and the properties that the node gave them. `report.json` has the
    first three too, and of a run that has come to its end the figures. A run that was killed says `running` for good.
    """

    def __init__(self, folder: pathlib.Path, pipeline: str, run_id: str | None = None):
        """With the id of a run that has begun in another process, this one goes on with its record."""
        self.folder, self.pipeline = folder, pipeline
        # Ids stand in order of time; two that begin at once, on two machines, are two.
        self.run_id = run_id or f"{datetime.datetime.now().isoformat()}-{uuid.uuid4().hex[:8]}"
        self._header: dict[str, Any] = {"run": self.run_id, "pipeline": pipeline, "state": "running"}
        self.nodes: list[dict[str, Any]] = []
        begun = self._written(self.folder / "runs" / self.run_id)
        known = {name: value for name, value in begun.items() if name not in (*_OF_A_TRY, *self._header)}
        self._facts: dict[str, Any] = {"started": _now()} | known

    def start(self) -> None:
        """From here on, the reports are this run's."""
        self._write({})

    def note(self, **facts: Any) -> None:
        """What `run.json` says besides, from its next change on: the settings, the code."""
        self._facts |= facts

    def is_newest(self) -> bool:
        """Whether the reports are this run's, and not of one that began after it."""
        return self._written(self.folder).get("run") == self.run_id

    def show(self, nodes: list[dict[str, Any]]) -> None:
        """Of a run whose nodes are processes: what they did so far."""
        self.nodes = nodes
        self.start()

    def begin(self, node: str) -> None:
        self.nodes.append({"node": node, "state": "running"})
        self._write_nodes()

    def end(self, state: str, seconds: float, artifacts: Artifacts) -> None:
        """Of the node that began last."""
        self.nodes[-1] |= {"state": state, "seconds": round(seconds, 3), "artifacts": artifacts}
        self._write_nodes()

    def finish(self, report: dict[str, Any]) -> None:
        self._header["state"] = "done"
        self.note(ended=_now())
        self._write(report)

    def fail(self, error: str) -> None:
        """Says so in both files; what the run was to be is not known."""
        self._header |= {"state": "failed", "error": error}
        if self.nodes and self.nodes[-1]["state"] == "failed":
            self._header["node"] = self.nodes[-1]["node"]
        self.note(ended=_now())
        self._write({})

    def artifact(self, node: str, key: str) -> dict[str, Any]:
        """The one artifact that a node of this run gave."""
        (found,) = (entry for entry in self.nodes if entry["node"] == node)
        (only,) = found["artifacts"][key]
        return only

    def _written(self, folder: pathlib.Path) -> dict[str, Any]:
        return read_json(folder / "run.json")

    def _write(self, report: dict[str, Any]) -> None:
        self._write_nodes()
        self._write_whole("report.json", self._header | report)

    def _write_nodes(self) -> None:
        self._write_whole("run.json", self._header | self._facts | {"nodes": self.nodes})

    def _write_whole(self, name: str, values: dict[str, Any]) -> None:
        text = json.dumps(values, indent=2)
        for folder in (self.folder, self.folder / "runs" / self.run_id):
            folder.mkdir(parents=True, exist_ok=True)
            storage.write_whole(text, folder / name)


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat()
