"""`python -m pipeline.runs.compile --run-id ID`: the first step of a run whose nodes are processes.

Compiles the pipeline that BERT_SETTINGS, BERT_CORPUS and BERT_HOME ask for (see local_runner) for this run alone, since
files and code are looked at here. `pipeline.runs.node` then runs each node, and `pipeline.runs.report` comes last.
"""

import dataclasses
import os
import pathlib

import click

from pipeline import settings as pipeline_settings
from pipeline import terminal
from pipeline.history import code
from pipeline.runs import locks, process
from pipeline.runs import run as runs
from preprocessing import storage


def compile_run(settings: pipeline_settings.Settings, home: pathlib.Path, run_id: str) -> pathlib.Path:
    """Gives the file. Raises InputError for bad input, Busy where a whole run is at work in the home."""
    with locks.held(home, "compile"):
        storage.write_whole(settings.to_json(), home / "settings.json")
        from pipeline.history import connection

        connection.begin(home)  # alone: two at once can leave half of a database's tables
        made = runs.create_pipeline(settings, home)
        from pipeline.runs import compiled, launching
        from pipeline.runs.record import Record

        file = compiled.write(made, home, run_id)
        pipeline = compiled.read(home, run_id)
        nodes = launching.entries(pipeline, compiled.store(pipeline))
        record = Record(home / "reports", settings.name, compiled.run_of(pipeline))
        record.note(settings=dataclasses.asdict(settings), code=code.state())
        record.show(nodes)
        return file


@click.command(help=__doc__)
@click.option("--run-id", required=True, help="The run: a name of the orchestrator's.")
@click.option("--home", envvar="BERT_HOME", default=".bert", show_default=True, help="Folder that keeps everything.")
def command(run_id: str, home: str) -> None:
    terminal.quiet()

    def work() -> None:
        settings, folder = runs.from_environment({**os.environ, "BERT_HOME": home})
        click.echo(f"compiled: {compile_run(settings, folder, run_id)}")

    process.end(work)


if __name__ == "__main__":
    command()
