"""Says to a webhook that a run failed, or that its model was refused: which step, why, and what to do next."""

import json
import logging
import os
import pathlib
import urllib.parse
import urllib.request
from typing import Any

from pipeline.history.runs import of_unpushed
from pipeline.runs.record import Record
from preprocessing.errors import InputError

_SECONDS = 10  # for which the other side may take its time
log = logging.getLogger(__name__)


def address(setting: str) -> str | None:
    """The URL of a setting: itself, or where it is `$NAME` what that variable of the environment says. None for none.
    Raises InputError for what is no URL."""
    url = os.environ.get(setting[1:], "") if setting.startswith("$") else setting
    if url and not url.startswith(("http://", "https://")):
        raise InputError(f"webhook must be a URL, or $NAME of a variable that holds one. Received: {setting!r}")
    return url or None


def failed(record: Record, home: pathlib.Path, cause: str, is_input: bool) -> dict[str, Any]:
    """Of a run that failed. `is_input`: whether the cause is bad input, which says the way out itself."""
    log_file = home / "logs" / "pipeline.log"
    action = (
        "correct that and run again; the steps that are done come from the cache"
        if is_input
        else f"look into {log_file}, then run again: it goes on where it stopped"
    )
    step = record.nodes[-1]["node"] if record.nodes else None
    return _notice(record, home, "failed", step, cause, action, log_file)


def refused(record: Record, home: pathlib.Path, report: dict[str, Any]) -> dict[str, Any]:
    """Of a run whose model did not pass the gate, was rolled back, or is outdated."""
    state = of_unpushed(report)
    if state == "rolled back":
        cause = "this model was rolled back before"
        action = "change data or settings, or take it back by `bert promote`"
    elif state == "outdated":
        cause = "a model of later data is served"
        action = "it stays; to serve this one, roll that back and run again"
    else:
        cause = "; ".join(report["refusals"]) or "the gate was not passed"
        action = "what is served stays; look at the figures, and at `gate` in the settings"
    report_file = home / "reports" / "runs" / record.run_id / "report.json"
    return _notice(record, home, state, "Evaluator", cause, f"{action}: {report_file}", report_file)


def _notice(record, home, state, step, cause, action, file) -> dict[str, Any]:
    run, pipeline = record.run_id, record.pipeline
    said = f"{pipeline}: run {run} {state}{f' in {step}' if step else ''}: {cause}. Next: {action}"
    facts = {"pipeline": pipeline, "run": run, "home": str(home), "state": state, "step": step, "cause": cause}
    return facts | {"next": action, "see": str(file), "text": said}  # `text` is what chats show


def send(url: str | None, notice: dict[str, Any]) -> bool:
    """Posts it as JSON; whether it arrived. One that does not is logged, and hides nothing else."""
    if url is None:
        return False
    request = urllib.request.Request(url, json.dumps(notice).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=_SECONDS):
            return True
    except (OSError, ValueError) as error:  # its address may hold a secret: only the host is named
        log.warning("the webhook at %s did not take the notice: %s", urllib.parse.urlparse(url).hostname, error)
        return False
