"""What a run came to: figures and places of the newest run, as one JSON report and in words."""

import filecmp
import json
import pathlib
import shutil
import time
from typing import Any

import click
import ml_metadata
import tensorflow_model_analysis as tfma
from ml_metadata.proto import metadata_store_pb2
from tfx.utils import path_utils

from pipeline import evaluation
from serving import versions

_OUTPUT = metadata_store_pb2.Event.OUTPUT


def collect(home: pathlib.Path, name: str) -> dict[str, Any]:
    """The newest run of the pipeline, steps taken from the cache included."""
    config = metadata_store_pb2.ConnectionConfig()
    config.sqlite.filename_uri = str(home / "metadata.sqlite")
    outputs, compared = _newest_run(ml_metadata.MetadataStore(config), home / "artifacts")
    evaluated = outputs["Evaluator", "evaluation"].uri
    validation = tfma.load_validation_result(evaluated)
    pushed = outputs["Pusher", "pushed_model"].custom_properties
    return {
        "pipeline": name,
        "blessed": validation.validation_ok,
        "refusals": [_refusal(failure) for failure in _failures(validation)],
        "pushed_to": pushed["pushed_destination"].string_value or None,
        "serving_folder": str(home / "serving" / name),
        "model": outputs["Trainer", "model"].uri,
        "compared": compared,
        "metrics": _metrics(evaluated),
        "documents": _report(outputs["CorpusGen", "documents"]),
        "vocabulary": _report(outputs["VocabularyGen", "vocabulary_artifact"]),
        "examples": _report(outputs["MaskedExamplesGen", "examples"]),
        "corpus": outputs["CorpusGen", "documents"].uri,
        "model_run": outputs["Trainer", "model_run"].uri,
    }


def push_again(report: dict[str, Any]) -> None:
    """Where the Pusher's result came from the cache, but what it pushed is gone, or not the newest version any more,
    copies the model to where it would have gone."""
    if not report["blessed"]:
        return
    model, serving = (
        pathlib.Path(path_utils.serving_model_path(report["model"])),
        pathlib.Path(report["serving_folder"]),
    )
    found = versions.on_disk(serving)
    newest = max(found, default=0)
    served = found.get(newest)
    if not served or not filecmp.cmp(model / "fingerprint.pb", served / "fingerprint.pb", shallow=False):
        partial = serving / f".{newest + 1}"
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(model, partial)
        served = partial.rename(serving / str(max(newest + 1, int(time.time()))))
    report["pushed_to"] = str(served)


def write(report: dict[str, Any], folder: pathlib.Path) -> None:
    """Writes `report.json`, a copy of the training curves and the input lines that could not be used, if any."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(json.dumps(report, indent=2))
    for path in (pathlib.Path(report["model_run"], "curves.png"), pathlib.Path(report["corpus"], "set_aside.jsonl")):
        (folder / path.name).unlink(missing_ok=True)
        if path.exists():
            shutil.copy(path, folder)


def show(report: dict[str, Any]) -> None:
    """Prints the held-out figures beside what needs no model, and what the gate said."""
    rows = [
        ("masked-token loss", "masked_lm_loss", "unigram_loss", "the held-out unigram distribution"),
        ("masked-token accuracy", "masked_lm_accuracy", "commonest_token_accuracy", "always the commonest token"),
        ("next-sentence accuracy", "next_sentence_accuracy", "next_sentence_baseline", "always the commoner answer"),
    ]
    click.echo("\nOn documents that the model has not seen:")
    for title, metric, baseline, meaning in rows:
        values = report["metrics"]
        click.echo(f"  {title:24} {values[metric]:7.3f}    without a model {values[baseline]:7.3f}  ({meaning})")
    if not report["compared"]:
        click.echo("There is no earlier model of the same vocabulary to compare it with.")
    if report["blessed"]:
        click.echo(f"The gate is passed. Pushed to {report['pushed_to']}")
    else:
        click.echo("The gate is NOT passed, so nothing was pushed:")
        for refusal in report["refusals"]:
            click.echo(f"  {refusal}")


def _newest_run(store: ml_metadata.MetadataStore, root: pathlib.Path) -> tuple[dict[tuple[str, str], Any], bool]:
    """Artifacts by (node, output key), and whether the Evaluator was given a baseline; an artifact lies at
    <root>/<node>/<output key>/<execution>."""
    run = max(store.get_contexts_by_type("pipeline_run"), key=lambda context: context.id)
    executions = [execution.id for execution in store.get_executions_by_context(run.id)]
    events = store.get_events_by_execution_ids(executions)
    ids = [event.artifact_id for event in events if event.type == _OUTPUT]
    compared = any(step.key == "baseline_model" for event in events for step in event.path.steps)
    outputs = {}
    for artifact in sorted(store.get_artifacts_by_id(ids), key=lambda artifact: artifact.id):
        node, key = pathlib.PurePath(artifact.uri).relative_to(root).parts[:2]
        outputs[node, key] = artifact
    return outputs, compared


def _report(artifact: Any) -> dict[str, Any]:
    path = pathlib.Path(artifact.uri, "report.json")
    return json.loads(path.read_text()) if path.exists() else {}


def _metrics(folder: str) -> dict[str, float]:
    """The candidate's figures over all held-out examples."""
    result = tfma.load_eval_result(folder)
    found = result.get_metrics_for_slice(())
    return {name: float(found[name]["doubleValue"]) for name in evaluation.METRICS}  # "NaN" is a string there


def _failures(validation: Any) -> list[Any]:
    return [failure for slice_ in validation.metric_validations_per_slice for failure in slice_.failures]


def _refusal(failure: Any) -> str:
    value = failure.metric_value.double_value.value
    return f"{failure.metric_key.name} is {value:.4g}. {failure.message}".strip()
