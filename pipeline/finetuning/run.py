"""A fine-tuning: as many runs as seeds, the best model of the best, and what is to be told of it.

DIR/model/             the best model, with its vocabulary and task.json (labels, text settings, what dev has decided)
DIR/metrics.json       figures on dev of every seed, their mean and spread
DIR/predictions.jsonl  an answer for each row of dev; errors.tsv: the wrong ones, the costliest first
DIR/report.md, curves.png and the kind's plots
DIR/examples/, DIR/runs/SEED/    what a run that was killed goes on with
"""

import dataclasses
import functools
import json
import pathlib
import shutil
from collections.abc import Callable

import numpy as np

from model import checkpoints, training
from model.settings import TaskSettings
from pipeline.finetuning import asking, judging, report
from pipeline.finetuning.kinds.kind import Calibration, Judge, Kind, Source
from pipeline.finetuning.planning import Options, Plan, Start
from preprocessing import storage, vocab_file
from preprocessing.errors import require


@dataclasses.dataclass(frozen=True)
class Judged:
    """The best model of a seed, and what its answers to dev are worth; `folder` has them."""

    seed: int
    model: pathlib.Path
    folder: pathlib.Path
    calibration: Calibration
    judge: Judge
    rows: int
    figures: dict[str, float]


def plan(
    kind: Kind, train: Source, dev: Source, start: Start, output: str, options: Options, prepared: Callable[[int], None]
) -> Plan:
    """Makes the examples. Raises InputError where sources, checkpoint and options do not fit together."""
    longest = start.encoder.max_positions
    rule = f"{start.path}: max_seq_length must not exceed the model's positions ({longest})"
    require(options.max_seq_length <= longest, rule, options.max_seq_length)
    found = kind.prepare(train, dev, start.tokenizer, pathlib.Path(output) / "examples", options, prepared)
    return Plan.of(kind, start, found, train, options)


def run(
    plan: Plan,
    dev: Source,
    output: str,
    report_step: Callable[[int, int, int, dict[str, float]], None],
    told: Callable[[str], None],
) -> dict:
    """Trains, or goes on, and writes what stands at the top of this file. `report_step` is called with (seed, step,
    steps, figures), `told` with lines for people. Returns what metrics.json holds."""
    folder = pathlib.Path(output)
    vocab = _written_vocabulary(plan, folder)
    judged = []
    for seed in range(plan.options.seed, plan.options.seed + plan.options.seeds):
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
            report=functools.partial(report_step, seed),
        )
        judged.append(_judged(plan, dev, seed, place))
        if plan.options.seeds > 1:
            told(f"seed {seed}: " + ", ".join(f"{name} {value:.4f}" for name, value in judged[-1].figures.items()))
    best = _best(plan, judged)
    _keep(plan, best, folder / "model")
    metrics = _metrics(plan, judged, best)
    for path in best.folder.iterdir():
        shutil.copy(path, folder)
    shutil.copy(folder / "runs" / str(best.seed) / "curves.png", folder)
    storage.write_whole(report.report(plan, metrics), folder / "report.md")
    storage.write_whole(json.dumps(metrics, indent=2, ensure_ascii=False) + "\n", folder / "metrics.json")
    for note in best.judge.notes():
        told(note)
    return metrics


def _judged(plan: Plan, dev: Source, seed: int, place: pathlib.Path) -> Judged:
    """By the answers of the graph that is served, once for the calibration and once with it."""
    kind, folder = plan.kind, place / "judged"
    encoder = checkpoints.load(place / "best")

    def answered(settings: TaskSettings):
        served = asking.Checkpoint(str(place / "best"), encoder, plan.start.tokenizer, settings)
        return asking.answered(kind, dev, served)

    calibration = kind.calibrated(plan.settings, answered(plan.settings))
    judge, rows = judging.judged(kind, answered(calibration.settings), folder)
    figures = {**judge.figures(), **calibration.figures}
    ordered = {name: figures[name] for name in kind.figures if name in figures}
    return Judged(seed, place / "best", folder, calibration, judge, rows, ordered)


def _best(plan: Plan, judged: list[Judged]) -> Judged:
    """By the watched figure or, where the served answers have none such, by the kind's first."""
    watched = plan.task.watched in judged[0].figures
    name = plan.task.watched if watched else next(iter(plan.kind.figures))
    return (min if watched and plan.task.lower_is_better else max)(judged, key=lambda one: one.figures[name])


def _written_vocabulary(plan: Plan, folder: pathlib.Path) -> str | None:
    """The vocabulary as a file, for a run; None where the model has more embeddings than it has tokens."""
    tokens = plan.start.tokenizer.vocab
    if len(tokens) != plan.start.encoder.vocab_size:
        return None
    path = folder / "examples" / "vocab.txt"
    vocab_file.save(tokens, path)
    return str(path)


def _keep(plan: Plan, best: Judged, target: pathlib.Path) -> None:
    """The model in its place, whole or as it was before, with all of its tokenizer."""
    with storage.unfinished(target.parent, ".unfinished-model-") as partial:
        checkpoints.save(checkpoints.load(best.model), partial, plan.start.said_tokenizer)
        checkpoints.write_task(partial, best.calibration.settings)
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)


def _metrics(plan: Plan, judged: list[Judged], best: Judged) -> dict:
    values = {name: [one.figures[name] for one in judged] for name in best.figures}
    calibration = best.calibration
    return {
        "rows": best.rows,
        "watched": plan.task.watched,
        "best_seed": best.seed,
        **best.figures,
        **best.judge.details(),
        **calibration.chosen,
        "calibration": {"before": calibration.before, "after": calibration.after},
        "seeds": {str(one.seed): one.figures for one in judged},
        "mean": {name: float(np.mean(found)) for name, found in values.items()},
        "spread": {name: float(np.std(found, ddof=1)) if len(judged) > 1 else 0.0 for name, found in values.items()},
        "training": dataclasses.asdict(plan.training),
        "options": dataclasses.asdict(plan.options),
        "checkpoint": plan.start.path,
        "data": dataclasses.asdict(plan.prepared),
    }
