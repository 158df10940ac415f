"""`python -m pipeline.runs.report --run-id ID`: the last step of a run whose nodes are processes.

Writes the report, pushes the model again where a cached Pusher did not and no later run has begun, and says what the
run came to. Exit status: 0 where a model is pushed, 3 where it was refused, rolled back before or is of earlier data
than the one that is served, 1 where nodes are missing.
"""

import pathlib

import click

from pipeline import terminal
from pipeline.runs import lean, locks, process
from pipeline.runs import run as runs
from preprocessing.errors import require


def report(home: pathlib.Path, run_id: str) -> None:
    """Raises Refused where no model was pushed, InputError where nodes are not done."""
    require(home.is_dir(), "home must be the folder of a compiled run", home)
    lean.without_all_components()
    from pipeline.runs import compiled, launching
    from pipeline.runs.record import Record

    with locks.held(home, "report"):
        pipeline = compiled.read(home, run_id)
        nodes = launching.entries(pipeline, compiled.store(pipeline))
        done = {entry["node"] for entry in nodes if entry["state"] in ("ran", "cached")}
        missing = [name for name in compiled.names(pipeline) if name not in done]
        require(not missing, f"{run_id}: a report is of a run whose nodes are all done", f"not done: {missing}")
        record = Record(home / "reports", pipeline.pipeline_info.id, compiled.run_of(pipeline))
        record.show(nodes)
        found = runs.finish(record, home, pipeline.pipeline_info.id)
    if not found["pushed_to"]:
        raise runs.refusal(found, record)


@click.command(help=__doc__)
@click.option("--run-id", required=True, help="That it was compiled for.")
@click.option("--home", envvar="BERT_HOME", default=".bert", show_default=True, help="Folder that keeps everything.")
def command(run_id: str, home: str) -> None:
    terminal.quiet()
    process.end(lambda: report(pathlib.Path(home).absolute(), run_id))


if __name__ == "__main__":
    command()
