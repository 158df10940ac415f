"""`bert evaluate`: the served answers to raw texts, compared with the labels of a table."""

import json
import time

import click

from pipeline import terminal
from pipeline.commands.finetune import columns
from preprocessing.errors import InputError

SHOWN = 3


class _Places:
    """How many there are, and the first of them."""

    def __init__(self):
        self.count, self.first = 0, ""

    def add(self, place: str) -> None:
        self.count += 1
        if self.count <= SHOWN:
            self.first += f"{'; ' if self.first else ''}{place}"


@click.command("evaluate")
@click.option(
    "--model", required=True, metavar="MODEL", help="DIR/model of `bert finetune`, an exported folder, or a server."
)
@click.option("--data", required=True, metavar="FILE", help="TSV, CSV, JSONL or Parquet, by its ending.")
@columns
@click.option("--model-name", default="bert", show_default=True, help="Name of the model on the server.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(model, data, text, second, label, header, model_name, as_json):
    """Asks a classifier about raw texts, by the graph that is served, and compares its answers with the labels.

    Accuracy, macro F1, each label's F1 and Matthews' coefficient are scikit-learn's. A row without a label, or with one
    that the model does not have, counts as an error.

        bert evaluate --model served/bert --data test.tsv
    """
    from preprocessing.tasks.tables import Columns, Table

    table = Table(data, Columns(text, second, label, header=header))

    import numpy as np

    from model.tasks import classification
    from pipeline.finetuning import asking

    aside, unknown = _Places(), _Places()
    numbers: dict[str, int] = {}
    confusion = np.zeros((0, 0))

    def set_aside(line, reason):
        aside.add(f"{table.path}:{line} {reason}")

    with (
        asking.opened(model, second is not None, model_name) as ask,
        terminal.Progress("Asking", unit="rows") as progress,
    ):
        started = time.monotonic()
        for count, (row, said, _, labels) in enumerate(asking.answered(table.rows(set_aside), ask), 1):
            if not numbers:
                numbers = {name: number for number, name in enumerate(labels)}
                confusion = np.zeros((len(labels) + 1, len(labels)))
            gold = len(labels) if row.label is None else numbers.get(row.label, len(labels))
            if gold == len(labels):
                unknown.add(f"{row.place} {'no label' if row.label is None else repr(row.label)}")
            confusion[gold, numbers[said]] += 1
            progress.update(count)
        seconds = time.monotonic() - started
    if not numbers:
        raise InputError(f"{table.path}: a table must have usable rows. Received: {aside.first or 'none'}")
    rows = int(confusion.sum())
    each = classification.f1(confusion)
    found = {
        "rows": rows,
        "rows_per_second": rows / seconds,
        **classification.scores(confusion),
        "f1": dict(zip(numbers, each.tolist(), strict=True)),
        "unknown": unknown.count,
        "set_aside": aside.count,
    }
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False))
        return
    click.echo(table.told)
    for places, what in ((aside, "rows cannot be used"), (unknown, "rows have none of the model's labels: errors")):
        if places.count:
            click.echo(f"{places.count:,} {what}: {places.first}")
    click.echo(f"{rows:,} rows, {found['rows_per_second']:.0f} a second")
    for name in ("accuracy", "macro_f1", "matthews", "majority_accuracy"):
        click.echo(f"  {name.replace('_', ' '):20} {found[name]:.4f}")
    width = max(map(len, numbers))
    for name, value, of_label in zip(numbers, each, confusion.sum(1), strict=False):
        click.echo(f"  {name.ljust(width)}  F1 {value:.4f}  {of_label:,.0f} rows")
