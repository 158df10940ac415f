"""Fine-tuning of a classifier: as many runs as seeds, the best model of the best, and what is to be told of it.

DIR/model/             the best model, with its vocabulary and task.json (labels, text settings, temperature)
DIR/metrics.json       figures on dev of every seed, their mean and spread
DIR/predictions.jsonl  an answer for each row of dev; errors.tsv: the wrong ones, the costliest first
DIR/report.md, confusion.png, curves.png
DIR/examples/, DIR/runs/SEED/    what a run that was killed goes on with
"""

import dataclasses
import functools
import pathlib
import shutil
from collections.abc import Callable

import numpy as np
import scipy.special
import tensorflow as tf

from model import checkpoints, training
from model.encoder import BertEncoder
from model.settings import ClassificationSettings
from model.tasks import classification
from pipeline.finetuning import artifacts, calibration
from pipeline.finetuning.planning import Options, Plan, Start, dev_examples
from preprocessing import features, storage, vocab_file
from preprocessing.errors import InputError, require
from preprocessing.tasks import examples
from preprocessing.tasks.tables import Table


@dataclasses.dataclass(frozen=True)
class Judged:
    """The best model of a seed on dev: logits [rows, labels], gold [rows] (as many as there are labels where it is none
    of them), how often each label got each answer [labels + 1, labels], and the figures of that."""

    seed: int
    model: pathlib.Path
    logits: np.ndarray
    gold: np.ndarray
    confusion: np.ndarray
    figures: dict[str, float]


def plan(
    train: Table, dev: Table, start: Start, output: str, options: Options, prepared: Callable[[int], None]
) -> Plan:
    """Makes the examples. Raises InputError where tables, checkpoint and options do not fit together."""
    longest = start.encoder.max_positions
    rule = f"{start.path}: max_seq_length must not exceed the model's positions ({longest})"
    require(options.max_seq_length <= longest, rule, options.max_seq_length)
    found = examples.prepare(
        train,
        dev,
        start.tokenizer,
        pathlib.Path(output) / "examples",
        max_seq_length=options.max_seq_length,
        long=options.long,
        labels=options.declared,
        progress=prepared,
    )
    if not sum(found.dev.counts):
        raise InputError(f"{dev.path}: dev must have rows with labels of train. Received: none; see --label")
    return Plan.of(start, found, options)


def run(
    plan: Plan,
    dev: Table,
    output: str,
    pair: bool,
    report: Callable[[int, int, int, dict[str, float]], None],
    told: Callable[[str], None],
) -> dict:
    """Trains, or goes on, and writes what stands at the top of this file. `report` is called with (seed, step, steps,
    figures), `told` with lines for people. Returns what metrics.json holds."""
    held_out, folder = dev_examples(plan), pathlib.Path(output)
    vocab = _written_vocabulary(plan, folder)
    seeds = range(plan.options.seed, plan.options.seed + plan.options.seeds)
    judged = []
    for seed in seeds:
        place = folder / "runs" / str(seed)
        training.train(
            plan.start.encoder,
            dataclasses.replace(plan.training, seed=seed),
            task=plan.task,
            train_files=[plan.prepared.train.file],
            eval_files=[plan.prepared.dev.file],
            output=str(place),
            vocab_path=vocab,
            lower_case=plan.start.tokenizer.lower_case,
            init=plan.start.path,
            fresh=plan.fresh,
            report=functools.partial(report, seed),
        )
        judged.append(_judged(seed, place / "best", plan, held_out))
        if plan.options.seeds > 1:
            told(f"seed {seed}: " + ", ".join(f"{name} {value:.4f}" for name, value in judged[-1].figures.items()))
    best = (min if plan.task.lower_is_better else max)(judged, key=lambda one: one.figures[plan.task.watched])

    known = best.gold < plan.task.labels
    temperature = calibration.temperature(best.logits[known], best.gold[known])
    meaning = ClassificationSettings(
        tuple(plan.prepared.labels),
        pair=pair,
        max_seq_length=plan.options.max_seq_length,
        long=plan.options.long,
        temperature=temperature,
    )
    _keep(plan, best, folder / "model", meaning)
    probabilities = scipy.special.softmax(best.logits / temperature, -1)
    metrics = _metrics(plan, judged, best, temperature, known)
    artifacts.write(folder, plan, dev, metrics, best.confusion, best.gold, probabilities)
    shutil.copy(folder / "runs" / str(best.seed) / "curves.png", folder / "curves.png")
    said = np.unique(best.logits.argmax(-1))
    if len(said) == 1:
        told(
            f"ALARM: the model says {plan.prepared.labels[said[0]]!r} of every row: it has learned nothing. Try "
            "another --learning-rate, more --epochs, or --class-weights balanced"
        )
    return metrics


def _judged(seed: int, model: pathlib.Path, plan: Plan, held_out) -> Judged:
    encoder = checkpoints.load(model)
    logits, gold = _logits(encoder, plan, held_out)
    confusion = np.zeros((plan.task.labels + 1, plan.task.labels))
    np.add.at(confusion, (gold, logits.argmax(-1)), 1)
    known = gold < plan.task.labels
    figures = {"cross_entropy": calibration.cross_entropy(logits[known], gold[known])}
    return Judged(seed, model, logits, gold, confusion, figures | classification.scores(confusion))


def _logits(encoder: BertEncoder, plan: Plan, held_out) -> tuple[np.ndarray, np.ndarray]:
    """(float64 [rows, labels], the rows' labels [rows]), in the order of the table."""
    compute = tf.function(lambda batch: plan.task.logits(encoder, batch))
    logits, gold = [], []
    for batch in held_out.batches(plan.training.batch_size, shuffle=False):
        logits.append(compute(batch).numpy())
        gold.append(batch[features.LABEL_IDS][:, 0].numpy())
    return np.concatenate(logits)[: held_out.count].astype(float), np.concatenate(gold)[: held_out.count]


def _written_vocabulary(plan: Plan, folder: pathlib.Path) -> str | None:
    """The vocabulary as a file, for a run; None where the model has more embeddings than it has tokens."""
    tokens = plan.start.tokenizer.vocab
    if len(tokens) != plan.start.encoder.vocab_size:
        return None
    path = folder / "examples" / "vocab.txt"
    vocab_file.save(tokens, path)
    return str(path)


def _keep(plan: Plan, best: Judged, target: pathlib.Path, meaning: ClassificationSettings) -> None:
    """The model in its place, whole or as it was before, with all of its tokenizer."""
    with storage.unfinished(target.parent, ".unfinished-model-") as partial:
        checkpoints.save(checkpoints.load(best.model), partial, plan.start.said_tokenizer)
        checkpoints.write_task(partial, meaning)
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)


def _metrics(plan: Plan, judged: list[Judged], best: Judged, temperature: float, known: np.ndarray) -> dict:
    names = list(best.figures)
    values = {name: [one.figures[name] for one in judged] for name in names}
    logits, gold = best.logits[known], best.gold[known]
    before, after = logits, logits / temperature
    return {
        "rows": len(best.gold),
        "watched": plan.task.watched,
        "best_seed": best.seed,
        **best.figures,
        "f1": dict(zip(plan.prepared.labels, classification.f1(best.confusion).tolist(), strict=True)),
        "temperature": temperature,
        "calibration": {
            when: {
                "cross_entropy": calibration.cross_entropy(found, gold),
                "calibration_error": calibration.calibration_error(scipy.special.softmax(found, -1), gold),
            }
            for when, found in (("before", before), ("after", after))
        },
        "seeds": {str(one.seed): one.figures for one in judged},
        "mean": {name: float(np.mean(values[name])) for name in names},
        "spread": {name: float(np.std(values[name], ddof=1)) if len(judged) > 1 else 0.0 for name in names},
        "training": dataclasses.asdict(plan.training),
        "options": dataclasses.asdict(plan.options),
        "checkpoint": plan.start.path,
        "data": dataclasses.asdict(plan.prepared),
    }
