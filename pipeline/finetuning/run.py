"""A fine-tuning: as many runs as seeds, the best model of the best, and what is to be told of it.

DIR/model/             the best model, with its vocabulary and task.json (labels, text settings, what dev has decided)
DIR/last/              the model after the last update of the same seed, with what dev has decided for the best
DIR/metrics.json       figures on dev of every seed, their mean and spread
DIR/predictions.jsonl  an answer for each row of dev; errors.tsv: the wrong ones, the costliest first
DIR/report.md, curves.png and the kind's plots
DIR/examples/, DIR/runs/SEED/ (or RATE/SEED/, untaught/SEED/)    what a run that was killed goes on with
"""

import dataclasses
import functools
import itertools
import json
import math
import pathlib
import shutil
from collections.abc import Callable, Mapping

import numpy as np

from model import checkpoints, training
from model.settings import TaskSettings
from model.tasks.taught import Taught
from pipeline import speed
from pipeline.finetuning import asking, judging, report, sampling, teaching
from pipeline.finetuning.cost import Cost
from pipeline.finetuning.kinds.kind import Calibration, Judge, Kind, Source, first_figure
from pipeline.finetuning.planning import SEARCHED, Options, Plan, Start
from pipeline.finetuning.slices import Found, Slices
from preprocessing import storage, vocab_file
from serving.settings import ExportSettings
from serving.signatures.base import TextEncoder

SPEED_ROWS = 256  # of dev, that are asked to see how fast a model is
ReportStep = Callable[[int, int, int, dict[str, float]], None]


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
    slices: Found
    steps: int  # that were run


def plan(
    kind: Kind, train: Source, dev: Source, start: Start, output: str, options: Options, prepared: Callable[[int], None]
) -> Plan:
    """Makes the examples. Raises InputError where sources, checkpoint and options do not fit together."""
    if options.layers:
        start = teaching.cut(start, options.layers, pathlib.Path(output))
    options.check(start)
    teacher = Start.read(options.teacher, None, None) if options.teacher else None
    found = kind.prepare(train, dev, start.tokenizer, pathlib.Path(output) / "examples", options, prepared)
    return Plan.of(kind, start, found, train, options, teacher)


def run(
    plan: Plan,
    dev: Source,
    output: str,
    report_step: ReportStep,
    told: Callable[[str], None],
) -> dict:
    """Trains, or goes on, and writes what stands at the top of this file. `report_step` is called with (runs done,
    step, steps, figures), `told` with lines for people. Returns what metrics.json holds."""
    folder = pathlib.Path(output)
    runs = _Runs(dev, folder, _written_vocabulary(plan, folder), report_step)
    first = plan.options.seed
    if isinstance(plan.task, Taught):
        taught_runs = plan.runs - plan.options.seeds * plan.untaught
        task = teaching.remembered(plan.task, plan.prepared.train.file, plan.training, taught_runs, told)
        plan = dataclasses.replace(plan, task=task)
    judged: list[Judged] = []
    tried: dict[str, dict] = {}
    if plan.options.search:
        plan, best, tried = _searched(plan, runs, told)
        judged.append(best)
    for seed in range(first + len(judged), first + plan.options.seeds):
        judged.append(runs.judged(plan, seed))
        if plan.options.seeds > 1:
            told(f"seed {seed}: {_told(judged[-1])}")
    best = _best(plan, judged)
    beside = _beside(plan, runs, dev, folder, best, told)
    for name, found in (("model", best.model), ("last", best.model.parent / "model")):
        _keep(plan, found, best.calibration.settings, folder / name)
    metrics = _metrics(plan, judged, best)
    metrics |= {"search": tried, **beside}
    for path in best.folder.iterdir():
        shutil.copy(path, folder)
    shutil.copy(best.model.parent / "curves.png", folder)
    storage.write_whole(report.report(plan, metrics), folder / "report.md")
    storage.write_whole(json.dumps(metrics, indent=2, ensure_ascii=False) + "\n", folder / "metrics.json")
    for note in best.judge.notes():
        told(note)
    return metrics


class _Runs:
    """Trains and judges, each rate and seed in a folder of its own."""

    def __init__(self, dev: Source, folder: pathlib.Path, vocab: str | None, report_step: ReportStep):
        self._dev, self._folder, self._vocab, self._report = dev, folder, vocab, report_step
        self._done = 0

    def judged(self, plan: Plan, seed: int, apart: str = "") -> Judged:
        rate = f"{plan.training.learning_rate:g}" if plan.options.search else ""
        place = self._folder / "runs" / apart / rate / str(seed)
        dev = plan.prepared.dev.file
        done = training.train(
            plan.start.encoder,
            dataclasses.replace(plan.training, seed=seed),
            task=plan.task,
            train_files=[plan.prepared.train.file],
            eval_files=[sampling.sampled(dev, plan.sample) if plan.sample else dev],
            output=str(place),
            vocab_path=self._vocab,
            lower_case=plan.start.tokenizer.lower_case,
            init=plan.start.path,
            fresh=plan.fresh,
            report=functools.partial(self._report, self._done),
        )
        self._done += 1
        return _judged(plan, self._dev, seed, place, done.steps)


def _searched(plan: Plan, runs: _Runs, told: Callable[[str], None]) -> tuple[Plan, Judged, dict[str, dict]]:
    """(the plan with the learning rate that is best with the first seed, that run, the figures of each rate)"""
    found = []
    for factor in SEARCHED:
        rate = factor * plan.training.learning_rate
        tried = dataclasses.replace(plan, training=dataclasses.replace(plan.training, learning_rate=rate))
        found.append((tried, runs.judged(tried, plan.options.seed)))
        told(f"learning rate {rate:g}: {_told(found[-1][1])}")
    best = _best(plan, [one for _, one in found])
    (chosen,) = (tried for tried, one in found if one is best)
    return chosen, best, {f"{tried.training.learning_rate:g}": one.figures for tried, one in found}


def _beside(
    plan: Plan, runs: _Runs, dev: Source, folder: pathlib.Path, best: Judged, told: Callable[[str], None]
) -> dict:
    """Figures on dev of the teacher, if there is one, and by seed of the same student without it; how many rows a
    second teacher and student answer."""
    if plan.teacher is None or not isinstance(plan.task, Taught):
        return {}
    texts = TextEncoder(plan.task.teacher, plan.teacher.tokenizer, ExportSettings(), plan.teacher.task)
    served = asking.Checkpoint(plan.teacher.path, texts)
    answered = asking.asked(plan.kind, plan.kind.signature(dev), dev.rows(lambda line, reason: None), served)
    judge, _ = judging.judged(plan.kind, answered, folder / "runs" / "teacher", Slices(plan.kind, []))
    weights = sum(math.prod(weight.shape) for weight in plan.task.teacher.weights)
    size = {"path": plan.teacher.path, "layers": plan.teacher.encoder.num_layers, "weights": weights}
    texts = TextEncoder(checkpoints.load(best.model), plan.start.tokenizer, ExportSettings(), best.calibration.settings)
    asked = list(itertools.islice(dev.rows(lambda line, reason: None), SPEED_ROWS))

    def ask(one):
        return list(asking.asked(plan.kind, plan.kind.signature(dev), asked, one))

    sides = {"teacher": served, "student": asking.Checkpoint(str(best.model), texts)}
    rates = speed.rates({name: functools.partial(ask, one) for name, one in sides.items()}, len(asked))
    found: dict = {
        "teacher": {**size, "rows_per_second": rates["teacher"], **judge.figures()},
        "untaught": {},
        "rows_per_second": rates["student"],
    }
    told(f"the teacher: {_figures(judge.figures())}")
    if plan.untaught:
        alone = dataclasses.replace(plan, task=plan.task.task)
        for seed in range(plan.options.seed, plan.options.seed + plan.options.seeds):
            found["untaught"][str(seed)] = (one := runs.judged(alone, seed, "untaught")).figures
            told(f"seed {seed} without the teacher: {_told(one)}")
    return found


def _told(judged: Judged) -> str:
    return _figures(judged.figures)


def _figures(found: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in found.items())


def _judged(plan: Plan, dev: Source, seed: int, place: pathlib.Path, steps: int) -> Judged:
    """By the answers of the graph that is served, once for the calibration and once with it."""
    kind, folder = plan.kind, place / "judged"
    texts = TextEncoder(checkpoints.load(place / "best"), plan.start.tokenizer, ExportSettings(), plan.settings)

    def answered(settings: TaskSettings, signature: str):
        served = asking.Checkpoint(str(place / "best"), texts.for_task(settings))
        return asking.asked(kind, signature, dev.rows(lambda line, reason: None), served)

    signature = kind.signature(dev)
    calibration = kind.calibrated(plan.settings, answered(plan.settings, kind.calibrates_on or signature))
    parts = Slices(kind, ["length"])
    judge, rows = judging.judged(kind, answered(calibration.settings, signature), folder, parts)
    calibration.draw(folder)
    figures = {**judge.figures(), **calibration.figures}
    ordered = {name: figures[name] for name in kind.figures if name in figures}
    return Judged(seed, place / "best", folder, calibration, judge, rows, ordered, parts.found(), steps)


def _best(plan: Plan, judged: list[Judged]) -> Judged:
    """By the watched figure or, where the served answers have none such, by the kind's first."""
    watched = plan.task.watched in judged[0].figures
    name = plan.task.watched if watched else first_figure(plan.kind, judged[0].figures)
    return (min if watched and plan.task.lower_is_better else max)(judged, key=lambda one: one.figures[name])


def _best_step(plan: Plan, best: Judged) -> int:
    """The update after which the model was kept: the first with the best watched figure."""
    lines = (best.model.parent / "history.jsonl").read_text().splitlines()
    rows = [row for row in map(json.loads, lines) if row["kind"] == "held_out"]
    name, sign = plan.task.watched, 1 if plan.task.lower_is_better else -1
    return min((row for row in rows if math.isfinite(row[name])), key=lambda row: sign * row[name])["step"]


def _ended(plan: Plan, judged: Judged) -> dict:
    """After which update a run ended, and why."""
    all_of_them = judged.steps == plan.training.steps
    return {"step": judged.steps, "by": "all updates are done" if all_of_them else f"patience {plan.options.patience}"}


def _written_vocabulary(plan: Plan, folder: pathlib.Path) -> str | None:
    """The vocabulary as a file, for a run; None where the model has more embeddings than it has tokens."""
    tokens = plan.start.tokenizer.vocab
    if len(tokens) != plan.start.encoder.vocab_size:
        return None
    path = folder / "examples" / "vocab.txt"
    vocab_file.save(tokens, path)
    return str(path)


def _keep(plan: Plan, model: pathlib.Path, settings: TaskSettings, target: pathlib.Path) -> None:
    """A model in its place, whole or as it was before, with all of its tokenizer."""
    with storage.unfinished(target.parent, f".unfinished-{target.name}-") as partial:
        checkpoints.save(checkpoints.load(model), partial, plan.start.said_tokenizer)
        checkpoints.write_task(partial, settings)
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)


def _metrics(plan: Plan, judged: list[Judged], best: Judged) -> dict:
    values = {name: [one.figures[name] for one in judged] for name in best.figures}
    calibration = best.calibration
    return {
        "rows": best.rows,
        "watched": plan.task.watched,
        "best_seed": best.seed,
        "best_step": _best_step(plan, best),
        "ended": {str(one.seed): _ended(plan, one) for one in judged},
        **best.figures,
        **best.judge.details(),
        **calibration.chosen,
        "slices": best.slices,
        "calibration": {"before": calibration.before, "after": calibration.after},
        "seeds": {str(one.seed): one.figures for one in judged},
        "mean": {name: float(np.mean(found)) for name, found in values.items()},
        "spread": {name: float(np.std(found, ddof=1)) if len(judged) > 1 else 0.0 for name, found in values.items()},
        "cost": dataclasses.asdict(Cost.of(best.model.parent, *plan.trained, plan.training.batch_size)),
        "training": dataclasses.asdict(plan.training),
        "layers": plan.start.encoder.num_layers,
        "options": dataclasses.asdict(plan.options),
        "checkpoint": plan.start.path,
        "data": dataclasses.asdict(plan.prepared),
    }
