"""`python -m pipeline.runs.node --run-id ID --node Trainer`: one node of a compiled run, in a process of its own.

Killed and started again with the same id it goes on: the Trainer from its newest checkpoint, any other node anew. A
node that is done does nothing again. With TF_CONFIG several machines over one home train together: the same command on
each, of which all but the chief only help (see `worker`). Exit status: 0 where the node is done, whether it ran or its
result came from the cache; 1 for bad input, which no other try mends; 75 where another process is at work on it; 70 for
all else.
"""

import contextlib
import json
import logging
import os
import pathlib
import sys
import time

import click

from pipeline import terminal
from pipeline.runs import lean, locks, process
from pipeline.runs import run as runs
from preprocessing.errors import InputError, require


def launch(home: pathlib.Path, run_id: str, name: str, wait: float = 0.0) -> str:
    """Runs a node; gives its state, "ran" or "cached". Raises InputError for bad input, Busy where the home or this
    node is not free after `wait` seconds, Failed where else it is not done."""
    require(home.is_dir(), "home must be the folder of a compiled run", home)
    lean.without_all_components()
    from pipeline.runs import compiled, launching, steps
    from pipeline.runs.record import Record

    helps = _of_several(os.environ.get("TF_CONFIG"))
    if helps:
        if name != "Trainer":
            return "ran"  # by the chief
        with locks.held(home, f"{name}.{helps}", wait):
            from pipeline.runs import worker

            pipeline = compiled.read(home, run_id)
            with steps.log_to(home / "logs" / f"{name}.{helps}.log"):
                return worker.work(pipeline, name, compiled.store(pipeline))
    with locks.held(home, name, wait):
        pipeline = compiled.read(home, run_id)
        names = compiled.names(pipeline)
        require(name in names, f"node must be one of {', '.join(names)}", name)
        record = Record(home / "reports", pipeline.pipeline_info.id, compiled.run_of(pipeline))
        log, store = home / "logs" / f"{name}.log", compiled.store(pipeline)

        def note(state: str | None = None, error: str | None = None) -> None:
            done = launching.entries(pipeline, store)
            if state:
                done = [entry for entry in done if entry["node"] != name] + [{"node": name, "state": state}]
            record.show(done)
            if error:
                record.fail(error)

        steps.show_begin(names.index(name) + 1, len(names), name)
        began = time.monotonic()
        with steps.log_to(log), terminal.native_log(log.with_name("native.log")):
            try:
                note("running")
                for folder in launching.remove_leftovers(pipeline, name, store):
                    click.echo(f"        removed {folder}, of a try that did not end", err=True)
                state, artifacts = launching.launch(pipeline, name, store)
                launching.remove_ended(home / "training", artifacts)
                note()
            except Exception as error:
                logging.getLogger(__name__).exception("%s failed", name)
                with contextlib.suppress(Exception):  # it is the first error that counts
                    note("failed", runs.cause(error))
                said = f"{name}: {runs.cause(error)}"
                if any(isinstance(found, InputError) for found in runs.causes(error)):
                    raise InputError(said) from error
                raise process.Failed(f"{said} (the whole log is {log})") from error
        steps.show_end(state, time.monotonic() - began)
        return state


def _of_several(config: str | None) -> str | None:
    """`worker.1` for one that is not the chief."""
    if not config:
        return None
    from model.training import devices

    task = {} if devices.is_chief() else json.loads(config)["task"]
    return f"{task['type']}.{task['index']}" if task else None


@click.command(help=__doc__)
@click.option("--run-id", required=True, help="That it was compiled for.")
@click.option("--node", required=True, help="Name of the node.")
@click.option("--home", envvar="BERT_HOME", default=".bert", show_default=True, help="Folder that keeps everything.")
@click.option("--wait", default=0.0, help="Seconds to wait for a killed try that lives on.", show_default=True)
def command(run_id: str, node: str, home: str, wait: float) -> None:
    terminal.quiet()
    del sys.argv[1:]  # TFX's executors and Beam take what stands there for options of theirs
    process.end(lambda: launch(pathlib.Path(home).absolute(), run_id, node, wait))


if __name__ == "__main__":
    command()
