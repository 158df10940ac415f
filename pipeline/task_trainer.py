"""What TFX's Trainer calls to fine-tune: `bert finetune`, with its files where the pipeline has them, and an export.

While it trains, all lies in a folder that depends on settings, checkpoint and data alone, so that a killed run goes on
where it stopped; what is worth keeping is then copied to the run's own folder.
"""

import json
import os
import pathlib
import shutil
from typing import Any

import keras
from tfx.components.trainer.fn_args_utils import FnArgs

from model import checkpoints
from model.encoder import BertEncoder
from pipeline import keeping, terminal, values
from pipeline.components import split, task_examples
from pipeline.finetuning import kinds, planning, run
from pipeline.finetuning.description import Description
from pipeline.finetuning.kinds.kind import first_figure
from pipeline.history import parents, trainings
from preprocessing import storage
from preprocessing.tasks.tables import Columns
from serving.export import exporting

UNTRAINED = "untrained.json"  # metrics.json of the untrained encoder
_KEPT = ("model", "metrics.json", "report.md", "errors.tsv", "predictions.jsonl")


def run_fn(fn_args: FnArgs) -> None:
    """Trains on the train split, chooses and calibrates on the eval split, and exports a SavedModel to
    `fn_args.serving_model_dir`. With `untrained` a second encoder of the same size, untrained, is taught the same."""
    custom = fn_args.custom_config
    asked = values.read(
        custom["settings"], task=str, init=str, columns=dict, options=dict, export=keeping.PartialExport, untrained=bool
    )
    kind = kinds.named(asked.task)
    examples = os.path.dirname(os.path.dirname(fn_args.train_files[0]))
    work = pathlib.Path(custom["work_folder"], f"{custom['fingerprint']}-{os.path.basename(examples)}")
    columns = Columns(**asked.columns)
    train, dev = (kind.source(task_examples.file_of(examples, name), columns) for name in split.NAMES)
    options = planning.Options.of(kind, **asked.options)

    def finetuned(start: planning.Start, name: str) -> dict[str, Any]:
        plan = run.plan(kind, train, dev, start, str(work / name), options, lambda rows: None)
        with terminal.Progress(f"  {name}", total=plan.training.steps * plan.runs, unit="updates") as progress:

            def report(done, step, steps, figures):
                progress.update(done * steps + step, **terminal.training_figures(figures, plan.task.curves))

            return run.run(plan, dev, str(work / name), report, lambda line: None)

    start = planning.Start.read(asked.init, None, None)
    untrained = finetuned(_untrained(start, work / "nothing", options.seed), "untrained") if asked.untrained else None
    metrics = finetuned(start, "pretrained")

    tuned = work / "pretrained" / "model"
    part = keeping.kept(str(tuned), None, asked.export.tokens_of, lambda line: None)
    exported = exporting.export_version(tuned, work / "exported", settings=asked.export, kept=part)
    first = first_figure(kind, metrics)
    # Where a kind tells it, this is what always saying the commonest answer comes to.
    floors = [metrics.get(f"majority_{first}", 0.0)] + ([untrained[first]] if untrained else [])
    settings = checkpoints.read_task(tuned)
    labels, held_out = list(getattr(settings, "labels", ())), task_examples.report(examples)["eval"]["hash"]
    Description(kind.name, kind.signature(dev), labels, held_out, max(floors)).write(str(exported))
    checkpoint = os.path.join(fn_args.model_run_dir, "model")
    parents.write(str(exported), spans=[], checkpoint=checkpoint, init=asked.init)
    shutil.copytree(exported, fn_args.serving_model_dir, dirs_exist_ok=True)
    _keep(work / "pretrained", metrics, untrained, pathlib.Path(fn_args.model_run_dir))
    trainings.end(work, fn_args.model_run_dir)


def _keep(tuned: pathlib.Path, metrics: dict, untrained: dict | None, folder: pathlib.Path) -> None:
    """Copies what is worth it into the run's own folder."""
    for path in (*(tuned / name for name in _KEPT), *tuned.glob("*.png")):
        shutil.copytree(path, folder / path.name) if path.is_dir() else shutil.copy(path, folder / path.name)
    shutil.copytree(tuned / "runs" / str(metrics["best_seed"]) / "logs", folder / "logs")
    if untrained:
        storage.write_whole(json.dumps(untrained, ensure_ascii=False, indent=2), folder / UNTRAINED)


def _untrained(start: planning.Start, folder: pathlib.Path, seed: int) -> planning.Start:
    """The same encoder before it was pretrained. The folder makes a killed run go on with the same numbers."""
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        keras.utils.set_random_seed(seed)
        with storage.unfinished(folder.parent, ".unfinished-") as partial:
            checkpoints.save(BertEncoder(start.encoder, ()), partial, start.said_tokenizer)
            partial.rename(folder)
    return planning.Start.read(str(folder), None, None)
