"""What TFX's Trainer calls: train, export, and leave the run's records beside the model."""

import dataclasses
import hashlib
import json
import os
import pathlib
import shutil

from tfx.components.trainer.fn_args_utils import FnArgs
from tfx.dsl.io import fileio

from model import checkpoints, training
from model.encoder.smaller import smaller
from model.settings import EncoderSettings, TrainingSettings
from model.tasks.pretraining import Pretraining
from model.training import devices
from pipeline import keeping, terminal, values
from pipeline.components import kept
from pipeline.components.vocabulary import FILE
from pipeline.evaluation import slices
from pipeline.history import parents, trainings
from preprocessing import storage, vocab_file
from preprocessing.settings import VocabularySettings
from serving.export import exporting

_SHARDS = 4  # of a source, which are enough for the figures of its parts
SLICES = "slices.json"  # beside the run's model: figures of parts of what was held out


def run_fn(fn_args: FnArgs) -> None:
    """Trains on the train split, evaluates on the eval split and exports a SavedModel to `fn_args.serving_model_dir`.

    While it trains, checkpoints live in a folder that depends on settings and data alone, so that a killed run goes on
    where it stopped, although TFX gives it another output folder. Log, curves and final checkpoint are then copied to
    `fn_args.model_run_dir`; the folder goes when the run is told of that (see `trainings`).

    Of several workers (TF_CONFIG) the chief alone does more than train.
    """
    run = values.read(
        fn_args.custom_config["settings"],
        encoder=EncoderSettings,
        training=TrainingSettings,
        vocabulary=VocabularySettings,
        export=keeping.PartialExport,
        init=str | None,
    )
    examples = _examples_folder(fn_args.train_files)
    vocab_path = os.path.join(examples, FILE)
    tokens = vocab_file.load(vocab_path)
    work = pathlib.Path(fn_args.custom_config["work_folder"], _fingerprint(fn_args))
    encoder_settings = dataclasses.replace(run.encoder, vocab_size=len(tokens))
    task = Pretraining(next_sentence=run.training.next_sentence)
    with terminal.Progress("  training", total=run.training.steps, unit="steps") as progress:
        result = training.train(
            encoder_settings,
            run.training,
            task=task,
            # Sorted: which example stands where in the stream depends on the order of the files.
            train_files=sorted(fileio.glob(os.path.join(examples, "Split-train", "*"))),
            eval_files=sorted(fileio.glob(os.path.join(examples, "Split-eval", "*"))),
            output=str(work),
            vocab_path=vocab_path,
            lower_case=run.vocabulary.lower_case,
            init=run.init,
            report=lambda step, total, figures: progress.update(
                step, **terminal.training_figures(figures, task.curves)
            ),
        )
    if not devices.is_chief():
        return
    # Of several workers the chief is alone from here on: what it computes must ask nothing of the others.
    encoder = checkpoints.load(str(work / "model")) if devices.is_one_of_several() else result.encoder
    part = keeping.kept(str(work / "model"), run.export.layers, (), lambda line: None)
    exporting.export(encoder, vocab_path, fn_args.serving_model_dir, run.export, run.vocabulary.lower_case, kept=part)
    parents.write(
        fn_args.serving_model_dir,
        spans=list(kept.read(examples)),
        checkpoint=os.path.join(fn_args.model_run_dir, "model"),
        init=run.init,
    )
    parts = slices.of(smaller(result.encoder, part), _held_out(examples))
    storage.write_whole(json.dumps(parts, indent=2), os.path.join(fn_args.model_run_dir, SLICES))
    for name in ("model", "logs", "curves.png"):
        if (work / name).is_dir():
            shutil.copytree(work / name, os.path.join(fn_args.model_run_dir, name))
        elif (work / name).exists():
            shutil.copy(work / name, os.path.join(fn_args.model_run_dir, name))
    trainings.end(work, fn_args.model_run_dir)


def _held_out(examples: str) -> dict[str, list[str]]:
    """Some files of held-out examples by source: their span, where data comes in spans. They lie there in no order."""
    spans = {f"span {span}": kept.prefix(span, "*") for span in kept.read(examples)} or {"all": "*"}
    found = {name: sorted(fileio.glob(os.path.join(examples, "Split-eval", glob))) for name, glob in spans.items()}
    return {name: files[:_SHARDS] for name, files in found.items() if files}


def _examples_folder(patterns: list[str]) -> str:
    """`<examples>/Split-train/*` -> `<examples>`."""
    return os.path.dirname(os.path.dirname(patterns[0]))


def _fingerprint(fn_args: FnArgs) -> str:
    """Settings, code and data in a folder name: each execution that writes examples has a folder of its own for them,
    which is a number at the end of its path in one orchestrator and stands before it in another."""
    examples = hashlib.sha256(_examples_folder(fn_args.train_files).encode()).hexdigest()[:16]
    return f"{fn_args.custom_config['fingerprint']}-{examples}"
