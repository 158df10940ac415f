"""What a run came to: figures and places, for its report and in words."""

import json
import os
import pathlib
import shutil
from typing import Any

import click
import tensorflow_model_analysis as tfma
from tfx.utils import path_utils

from pipeline.components import pushed
from pipeline.components.baseline import NONE
from pipeline.components.span_statistics import TABLE
from pipeline.components.vocabulary import FILE
from pipeline.evaluation import unigram
from pipeline.finetuning import description
from pipeline.history import parents
from pipeline.history.pushed import RECORD
from pipeline.runs import task_summary
from pipeline.runs.record import Record
from preprocessing.examples import phrases

_OF_CORPUS = ("set_aside.jsonl", "near_duplicates.jsonl")


def collect(record: Record, serving: str) -> dict[str, Any]:
    """Of a run whose nodes have all ended, those taken from the cache included; makes its model the newest that is
    served, where it passed the gate (the Pusher's own result may come from the cache), unless it was rolled back, is
    outdated, or a later run has begun."""
    evaluated = record.artifact("Evaluator", "evaluation")["uri"]
    validation = tfma.load_validation_result(evaluated)
    model = record.artifact("Trainer", "model")["uri"]
    blessed = validation.validation_ok
    exported = path_utils.serving_model_path(model)
    to = None
    if blessed:
        to = pushed.push(exported, serving) if record.is_newest() else pushed.find(exported, serving)
    rolled_back = blessed and to is None and pushed.is_rolled_back(exported, serving)
    baseline = record.artifact("Baseline", "baseline")
    found = {
        "blessed": blessed,
        "refusals": [_refusal(failure) for failure in _failures(validation)],
        "pushed_to": to,
        "rolled_back": rolled_back,
        "outdated": blessed and to is None and not rolled_back,
        "serving_folder": serving,
        "model": model,
        "compared": baseline["properties"]["baseline"] != NONE,
        "metrics": _metrics(evaluated),
        "model_run": record.artifact("Trainer", "model_run")["uri"],
        "began_with": parents.read(exported).get("init"),
    }
    of_task = description.exists(exported)
    return found | (task_summary.collect(record, exported) if of_task else _of_pretraining(record))


def _of_pretraining(record: Record) -> dict[str, Any]:
    documents = record.artifact("CorpusGen", "documents")
    parts = pathlib.Path(record.artifact("Trainer", "model_run")["uri"], "slices.json")
    examples = record.artifact("MaskedExamplesGen", "examples")
    return {
        "documents": _report(documents),
        "vocabulary": _report(record.artifact("VocabularyGen", "vocabulary_artifact")),
        "examples": _report(examples),
        "corpus": documents["uri"],
        "slices": json.loads(parts.read_text()) if parts.exists() else {},
        "drift": [line for gate in ("CorpusGate", "ExampleGate") for line in _moved(record, gate)],
        "masked_examples": examples["uri"],
        "without_a_model": unigram.read(
            os.path.join(examples["uri"], "Split-eval"), os.path.join(examples["uri"], FILE)
        ),
    }


def _moved(record: Record, gate: str) -> list[dict[str, Any]]:
    """What a gate of data compared: lines of `pipeline.drift.comparing.Moved`."""
    return json.loads(pathlib.Path(record.artifact(gate, "statistics_artifact")["uri"], TABLE).read_text())


def copy_files(report: dict[str, Any], folder: pathlib.Path) -> None:
    """Beside the report: curves, the input that could not be used, if any, and of a fine-tuning its own report. What
    an earlier run left there goes."""
    run, corpus = pathlib.Path(report["model_run"]), report.get("corpus")
    found = [run / "curves.png", *task_summary.files(report)]
    if corpus:
        found += [
            *(pathlib.Path(corpus, name) for name in _OF_CORPUS),
            pathlib.Path(report["masked_examples"], phrases.SET_ASIDE),
        ]
    for path in map(folder.joinpath, (*_OF_CORPUS, phrases.SET_ASIDE, *task_summary.NAMES)):
        path.unlink(missing_ok=True)
    for path in found:
        (folder / path.name).unlink(missing_ok=True)
        if path.exists():
            shutil.copy(path, folder)


def show(report: dict[str, Any]) -> None:
    """Prints the held-out figures beside what needs no model, and what the gate said."""
    if "task" in report:
        task_summary.show(report)
    else:
        _show_pretraining(report)
    if report["began_with"]:
        click.echo(f"Training began with {report['began_with']}")
    if not report["compared"]:
        alike = "labels and eval rows" if "task" in report else "vocabulary"
        click.echo(f"There is no earlier model of the same {alike} to compare it with.")
    if report["rolled_back"]:
        click.echo("The gate is passed, but this model was rolled back (by `bert rollback`, or its version folder was")
        click.echo("removed while an older one stands), so it is not pushed again. `bert promote` takes that back;")
        click.echo(f"{RECORD} in {report['serving_folder']} knows of it")
    elif report["outdated"]:
        click.echo(f"The gate is passed, but {report['serving_folder']} has a model of later data, which stays. To")
        click.echo("serve this one, roll that back (`bert rollback`, or remove its version folder) and run again")
    elif report["blessed"]:
        click.echo(f"The gate is passed. Pushed to {report['pushed_to']}")
    else:
        click.echo("The gate is NOT passed, so nothing was pushed:")
        for refusal in report["refusals"]:
            click.echo(f"  {refusal}")


def _show_pretraining(report: dict[str, Any]) -> None:
    for span, counts in report["documents"].get("spans", {}).items():
        made = report["examples"]["spans"][span]
        share = report["vocabulary"]["unknown_share_by_span"].get(span)
        click.echo(
            f"Span {span}: {counts['documents_train'] + counts['documents_eval']:,} documents "
            f"{'taken over' if counts['taken_over'] else 'read'}, {made['examples']:,} examples "
            f"{'taken over' if made['taken_over'] else 'made'}" + ("" if share is None else f", {share:.2%} [UNK]")
        )
    if file := report["vocabulary"].get("file"):
        click.echo(f"The vocabulary is that of {file}")
    if left_out := report["documents"].get("near_duplicates"):
        click.echo(f"{left_out:,} documents that are nearly another one are left out (near_duplicates.jsonl)")
    made = report["examples"]
    if "phrase_lines" in made:
        click.echo(
            f"Phrases: {made['phrase_lines']:,} in the list, {made['phrase_lines_set_aside']:,} of them set aside; "
            f"found {made['phrases_found']:,} times, masked {made['phrases_masked']:,} times"
        )
    rows = [
        ("masked-token loss", "masked_lm_loss", "unigram_loss", "the held-out unigram distribution"),
        ("masked-token accuracy", "masked_lm_accuracy", "commonest_token_accuracy", "always the commonest token"),
        ("next-sentence accuracy", "next_sentence_accuracy", "next_sentence_baseline", "always the commoner answer"),
    ]
    click.echo("\nOn documents that the model has not seen:")
    for title, metric, baseline, meaning in rows:
        values = report["metrics"]
        click.echo(f"  {title:24} {values[metric]:7.3f}    without a model {values[baseline]:7.3f}  ({meaning})")


def _report(artifact: dict[str, Any]) -> dict[str, Any]:
    path = pathlib.Path(artifact["uri"], "report.json")
    return json.loads(path.read_text()) if path.exists() else {}


def _metrics(folder: str) -> dict[str, float]:
    """The candidate's figures over all held-out examples."""
    result = tfma.load_eval_result(folder)
    found = result.get_metrics_for_slice(())
    return {name: float(value["doubleValue"]) for name, value in found.items() if "doubleValue" in value}


def _failures(validation: Any) -> list[Any]:
    return [failure for slice_ in validation.metric_validations_per_slice for failure in slice_.failures]


def _refusal(failure: Any) -> str:
    value = failure.metric_value.double_value.value
    return f"{failure.metric_key.name} is {value:.4g}. {failure.message}".strip()
