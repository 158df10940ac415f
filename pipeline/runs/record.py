"""What a run did, written as it does it: `run.json`, its nodes; and `report.json`. They are in `runs/<run>/`, and
those of the run that began last, never an older one's, in the folder of reports itself."""

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
        self.own_folder = folder / "runs" / self.run_id
        begun = read_json(self.own_folder / "run.json")
        self._goes_on = bool(begun)
        known = {name: value for name, value in begun.items() if name not in (*_OF_A_TRY, *self._header)}
        self._facts: dict[str, Any] = {"started": _now()} | known

    def start(self) -> None:
        """From here on, the reports are this run's, unless it has begun before a later one."""
        self._write({})
        self._goes_on = True

    def note(self, **facts: Any) -> None:
        """What `run.json` says besides, from its next change on: the settings, the code."""
        self._facts |= facts

    def is_newest(self) -> bool:
        """Whether no other run has begun after it: on an orchestrator two can be at work beside each other."""
        return not self._goes_on or read_json(self.folder / "run.json").get("run", self.run_id) == self.run_id

    def place(self) -> pathlib.Path:
        """Folder of what stands beside its reports."""
        return self.folder if self.is_newest() else self.own_folder

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

    def _write(self, report: dict[str, Any]) -> None:
        self._write_nodes()
        self._write_whole("report.json", self._header | report)

    def _write_nodes(self) -> None:
        self._write_whole("run.json", self._header | self._facts | {"nodes": self.nodes})

    def _write_whole(self, name: str, values: dict[str, Any]) -> None:
        text = json.dumps(values, indent=2)
        for folder in {self.own_folder, self.place()}:
            folder.mkdir(parents=True, exist_ok=True)
            storage.write_whole(text, folder / name)


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat()
