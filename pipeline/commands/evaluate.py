"""`bert evaluate`: the served answers to raw text, compared with the labels of a file."""

import json
import time

import click

from pipeline import terminal
from pipeline.commands import finetune
from pipeline.finetuning import kinds
from preprocessing import storage
from preprocessing.errors import InputError


@click.command("evaluate")
@click.option(
    "--model", required=True, metavar="MODEL", help="DIR/model of `bert finetune`, an exported folder, or a server."
)
@click.option("--data", required=True, metavar="FILE", help="As `bert finetune` takes it.")
@finetune.task(help="What it is asked for, where it answers several.")
@finetune.named
@finetune.columns
@click.option("--model-name", default="bert", show_default=True, help="Name of the model on the server.")
@click.option("--slices", metavar="NAME,...", default="", help="Figures of parts, too: by length, label, column:NAME.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(model, data, task, named, columns, slices, model_name, as_json):
    """Asks a fine-tuned model about raw text, by the graph that is served, and compares its answers with the labels.

    Of a classifier accuracy, macro F1, each label's F1 and Matthews' coefficient are scikit-learn's; a row without a
    label, or with one that the model does not have, counts as an error.

        bert evaluate --model served/bert --data test.tsv
    """
    if not storage.is_file(data):
        raise InputError(f"{data}: no such file")

    from pipeline.finetuning import asking, judging
    from pipeline.finetuning import slices as slicing
    from pipeline.finetuning.places import Places
    from preprocessing.tasks.tables import Columns

    by = [name for name in slices.split(",") if name]
    wanted = Columns(**columns, more=slicing.columns(by))
    aside = Places()

    def set_aside(line, reason):
        aside.add(f"{data}:{line} {reason}")

    with asking.opened(model, named, model=model_name) as served:
        kind = asking.kind_of(served, kinds.ALL, task)
        source, parts = kind.source(data, wanted), slicing.Slices(kind, by)
        with terminal.Progress("Asking", unit="rows") as progress:
            started = time.monotonic()
            answered = asking.answered(kind, source, served, set_aside)
            judge, rows = judging.judged(kind, answered, slices=parts, progress=progress.update)
            seconds = time.monotonic() - started
    if not rows:
        raise InputError(f"{data}: there must be usable rows. Received: {aside if aside.count else 'none'}")
    figures = judge.figures()
    if as_json:
        found = {
            "rows": rows,
            "rows_per_second": rows / seconds,
            **figures,
            **judge.details(),
            "set_aside": aside.count,
        }
        found |= {"slices": parts.found()} if by else {}
        click.echo(json.dumps(found, ensure_ascii=False))
        return
    click.echo(source.told)
    if aside.count:
        click.echo(f"{aside.count:,} rows cannot be used: {aside}")
    for note in judge.notes():
        click.echo(note)
    click.echo(f"{rows:,} rows, {rows / seconds:.0f} a second")
    for name, value in figures.items():
        click.echo(f"  {name.replace('_', ' '):20} {value:.4f}")
    for line in (*judge.lines(), *slicing.lines(parts.found())):
        click.echo(line)
