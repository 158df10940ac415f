"""How a container ends: its exit status, and what the pipeline's webhook is told where it fails.

Kubeflow tries a step that failed again, whatever the cause, so each try tells. What ends a container from outside (too
little memory, a node that goes) tells nobody: of that the cluster knows.
"""

import json
import os
import socket
import sys
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

from pipeline.runs import notice
from pipeline.runs.process import BAD_INPUT, REFUSED, Refused, leave
from pipeline.runs.run import causes, input_error

VARIABLE = "BERT_NODE"  # `variable`, as a container has it


def variable(pipeline: str, step: str, webhook: str, **more: Any) -> dict[str, str]:
    """What a step is told of itself, in its environment: arguments are part of what cached results are known by."""
    told = {"pipeline": pipeline, "step": step, "webhook": webhook, **more}
    return {"name": VARIABLE, "value": json.dumps(told)}


def told() -> dict[str, Any]:
    return json.loads(os.environ.get(VARIABLE, "{}"))


def status(function: Callable[[], object]) -> int:
    """Calls it and gives the exit status. Bad input, and a model that is not pushed, are one line on standard error;
    what else goes wrong is a traceback."""
    try:
        function()
    except Exception as error:
        refused = any(isinstance(found, Refused) for found in causes(error))
        cause = input_error(error)
        if cause is None or os.environ.get("BERT_DEBUG"):
            traceback.print_exc()
        if cause is not None:
            print(f"bert: error: {cause}", file=sys.stderr)
        _tell("not pushed" if refused else "failed", cause or f"{type(error).__name__}: {error}", refused)
        return REFUSED if refused else BAD_INPUT
    return 0


def end(function: Callable[[], object]) -> NoReturn:
    """Calls it and ends the process with its status."""
    leave(status(function))


def _tell(state: str, cause: str, refused: bool) -> None:
    of = told()
    if not of:  # typed by hand
        return
    pod = os.environ.get("KFP_POD_NAME") or socket.gethostname()  # its name begins with the run's
    action = (
        "what is served stays; look at the figures of the run's Evaluator, and at `gate` in the settings"
        if refused
        else "look into the pod's log, mend the cause and run again: the steps that are done come from the cache"
    )
    facts = {"pipeline": of["pipeline"], "step": of["step"], "pod": pod, "state": state, "cause": cause, "next": action}
    facts["text"] = f"{of['pipeline']}: {state} in {of['step']} ({pod}): {cause}. Next: {action}"
    notice.send(notice.address(of["webhook"]), facts)
