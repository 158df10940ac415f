"""The runs of a home, from the records that they left and, where there is none, from MLMD."""

import collections
import datetime
import os
from typing import Any

from pipeline.history.homes import Home, read_json
from pipeline.history.store import Execution, Store

STATES = ("done", "not blessed", "rolled back", "outdated", "failed", "running", "broken off")


def kept(home: Home) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """Of each run that left them, by its id: `run.json` and `report.json`; the oldest first. Before runs kept theirs
    there was one of each."""
    folders = [home.reports, *sorted((home.reports / "runs").glob("*/"))]
    both = [(read_json(folder / "run.json"), read_json(folder / "report.json")) for folder in folders]
    both.sort(key=lambda pair: pair[0].get("started", ""))
    return {run["run"]: (run, report) if report.get("run") == run["run"] else (run, {}) for run, report in both if run}


def listed(home: Home) -> list[dict[str, Any]]:
    """Every run, the oldest first: `run`, `state` (see STATES), `began` and `ended` (ISO, UTC; None where it is not
    known), `seconds`, `steps` (how many ran, were cached, failed), `nodes` by name with their state, `version` (of the
    model that it pushed or found pushed, else None) and `error`."""
    records = kept(home)
    store = Store(home) if home.has_store() else None
    executions = store.runs() if store else {}
    found = []
    for run in {**executions, **records}:
        entry = _of_store(store, executions[run]) if store and run in executions else {}
        entry = {"run": run, **entry, **(_of_record(*records[run]) if run in records else {})}
        found.append(entry)
    # The store knows their order, which the clock may not: it may have been set back.
    latest, order = "", {}
    for entry in found:
        latest = max(latest, entry["began"] or "")
        order[entry["run"]] = latest if entry["run"] in executions else entry["began"] or ""
    found.sort(key=lambda entry: order[entry["run"]])
    newest = read_json(home.reports / "run.json").get("run", found[-1]["run"] if found else "")
    begun = [entry for entry in found if entry["state"] == "running"]
    of_newest = {step for entry in begun if entry["run"] == newest for step in _at(entry)}
    for entry in begun:
        # A step is one run's at a time, so one that the newest is at holds nothing of an older run.
        steps = [step for step in _at(entry) if step not in of_newest]
        if not (home.at_work() if entry["run"] == newest else any(map(home.at_work, steps))):
            entry["state"] = "broken off"
    return found


def _at(entry: dict[str, Any]) -> list[str]:
    return [node for node, state in entry["nodes"].items() if state == "running"]


def _of_record(run: dict[str, Any], report: dict[str, Any]) -> dict[str, Any]:
    nodes = {node["node"]: node["state"] for node in run["nodes"]}
    state = run["state"]
    if state == "done" and report:
        state = "done" if report["pushed_to"] else of_unpushed(report)
    found = {
        "state": state,
        "began": run["started"],
        "ended": run.get("ended"),
        "seconds": sum(node.get("seconds", 0) for node in run["nodes"]),
        "nodes": nodes,
        "steps": _counts(nodes),
        "error": run.get("error"),
    }
    if report.get("state") == "done":
        found["version"] = os.path.basename(report["pushed_to"]) if report["pushed_to"] else None
    return {"version": None, **found}


def of_unpushed(report: dict[str, Any]) -> str:
    """The state of a run that came to its end and pushed nothing: one of STATES."""
    return "rolled back" if report.get("rolled_back") else "outdated" if report.get("outdated") else "not blessed"


def _of_store(store: Store, executions: list[Execution]) -> dict[str, Any]:
    """Of an older run, or one that another orchestrator began."""
    nodes = {execution.node: execution.state for execution in executions}  # of one tried again, the last
    began = min((execution.began for execution in executions), default=None)
    ended = max((execution.ended for execution in executions), default=None)
    version, blessed = None, True
    for execution in executions:
        if execution.node in ("Evaluator", "Pusher") and execution.state in ("ran", "cached"):
            outputs = store.outputs(execution)
            for blessing in outputs.get("blessing", []):
                blessed = bool(blessing.properties.get("blessed", 0))
            for pushed in outputs.get("pushed_model", []):
                version = pushed.properties.get("pushed_version")
    if "failed" in nodes.values():
        state = "failed"
    elif nodes.get("Pusher") not in ("ran", "cached"):
        state = "running"
    else:
        state = "done" if version else "rolled back" if blessed else "not blessed"
    return {
        "state": state,
        "began": began and began.isoformat(timespec="milliseconds"),
        "ended": ended and ended.isoformat(timespec="milliseconds"),
        "seconds": (ended - began).total_seconds() if began and ended else 0.0,
        "nodes": nodes,
        "steps": _counts(nodes),
        "error": None,
        "version": version,
    }


def _counts(nodes: dict[str, str]) -> dict[str, int]:
    counts = collections.Counter(nodes.values())
    return {state: counts[state] for state in ("ran", "cached", "failed")}


def told(entries: list[dict[str, Any]]) -> list[str]:
    """A table for a person: times are local."""
    from pipeline import terminal

    rows = [("run", "state", "steps", "began", "took", "version")]
    for entry in entries:
        steps = [f"{count} {state}" for state, count in entry["steps"].items() if count and state != "failed"]
        steps += [f"{node} failed" for node, state in entry["nodes"].items() if state == "failed"]
        began = entry["began"] and datetime.datetime.fromisoformat(entry["began"]).astimezone()
        rows.append(
            (
                entry["run"],
                entry["state"],
                ", ".join(steps) or "none",
                f"{began:%Y-%m-%d %H:%M}" if began else "not recorded",
                terminal.clock(entry["seconds"]),
                entry["version"] or "",
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
