"""What a run of the fine-tuning pipeline came to, beside what any run comes to (`pipeline.runs.summary`)."""

import json
import pathlib
from typing import Any

import click

from pipeline.components import task_examples
from pipeline.finetuning import description, kinds, rows
from pipeline.finetuning.kinds.kind import first_figure
from pipeline.runs.record import Record
from pipeline.task_trainer import UNTRAINED

SAMPLES = 3
NAMES = ("report.md", "errors.tsv", "confusion.png", task_examples.SET_ASIDE)  # of files beside the report


def collect(record: Record, exported: str) -> dict[str, Any]:
    """`task`; `data`: rows of each split and those set aside; `tuned`, `untrained`: figures on the eval split; `floor`:
    what the gate asks for; `samples`: rows that the model may be asked about."""
    examples = record.artifact("TaskExamplesGen", "examples")["uri"]
    run = pathlib.Path(record.artifact("Trainer", "model_run")["uri"])
    found, tuned = description.read(exported), _read(run / "metrics.json") or {}
    samples = task_examples.first_rows(examples, "eval", found.kind, SAMPLES)
    return {
        "task": found.task,
        "signature": found.signature,
        "first": first_figure(found.kind, tuned),
        "data": task_examples.report(examples),
        "tuned": tuned,
        "untrained": _read(run / UNTRAINED),
        "floor": found.floor,
        "samples": [rows.values_of(row) for row in samples],
        "examples": examples,
    }


def files(report: dict[str, Any]) -> list[pathlib.Path]:
    """Those of NAMES that there may be of a run; none of one that pretrained."""
    if "task" not in report:
        return []
    folders = {task_examples.SET_ASIDE: report["examples"]}
    return [pathlib.Path(folders.get(name, report["model_run"]), name) for name in NAMES]


def show(report: dict[str, Any]) -> None:
    """Prints how far pretraining helped, and the figures of the served answers."""
    kind = kinds.named(report["task"])
    tuned, untrained, data = report["tuned"], report["untrained"], report["data"]
    aside = sum(data[name]["set_aside"] for name in ("train", "eval"))
    click.echo(
        f"\n{data['train']['rows']:,} rows to learn from, {data['eval']['rows']:,} that the model has not seen"
        + (f"; {aside:,} could not be used ({task_examples.SET_ASIDE})" if aside else "")
    )
    for name, value in report["metrics"].items():
        if name in kind.figures:
            beside = f"    without pretraining {untrained[name]:7.3f}" if untrained and name in untrained else ""
            click.echo(f"  {kind.figures[name]:38} {value:7.3f}{beside}")
    if untrained:
        first = report["first"]
        gain = tuned[first] - untrained[first]
        steps = tuned["training"]["steps"]
        click.echo(
            f"Pretraining is worth {gain:+.3f} in {kind.figures[first].lower()}: an untrained encoder was taught the "
            f"same rows in the same {steps:,} updates."
        )


def _read(path: pathlib.Path) -> dict[str, Any] | None:
    return json.loads(path.read_text("utf-8")) if path.exists() else None
