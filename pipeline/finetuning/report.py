"""The report of a fine-tuning, a model card in Markdown."""

import dataclasses
import math
from collections.abc import Iterator

from pipeline.finetuning.cost import Cost
from pipeline.finetuning.planning import Plan
from preprocessing.tasks.examples import Prepared
from preprocessing.tasks.splits import SHOWN

FEW = 20  # examples of a label, of which little is learned


def report(plan: Plan, metrics: dict) -> str:
    prepared, options, training = plan.prepared, plan.options, plan.training
    spread = options.seeds > 1
    lines = [f"# {plan.kind.title}", "", f"Fine-tuned from `{plan.start.path}`.", "", "## Figures on dev", ""]
    lines += [
        "| figure | best seed | mean | spread |" if spread else "| figure | value |",
        "|---" * (2 + 2 * spread) + "|",
    ]
    for name, title in ((name, title) for name, title in plan.kind.figures.items() if name in metrics):
        more = f" {metrics['mean'][name]:.4f} | {metrics['spread'][name]:.4f} |" if spread else ""
        lines.append(f"| {title} | {metrics[name]:.4f} |{more}")
    chosen_by = f"by {metrics['watched']}, after {metrics['best_step']:,} of {training.steps:,} updates"
    lines += [
        "",
        f"The best model of seed {metrics['best_seed']} {chosen_by}; spread is the standard deviation over "
        f"{options.seeds} seeds." if spread else f"The best model of the run {chosen_by}.",
    ]  # fmt: skip
    for seed, ended in metrics["ended"].items():
        if ended["step"] < training.steps:
            lines.append(
                f"Seed {seed} ended after {ended['step']:,} updates: {options.patience} evaluations on dev without a "
                f"better {metrics['watched']}."
            )
    if plan.sample:
        lines.append(
            f"The best model was chosen on {plan.sample:,} of dev's {prepared.dev.rows:,} examples; the figures are of "
            "all rows."
        )
    before, after = (metrics["calibration"][when] for when in ("before", "after"))
    if before:
        changes = (f"{name.replace('_', ' ')} {value:.4f}, then {after[name]:.4f}" for name, value in before.items())
        lines.append(f"{plan.kind.chosen}, chosen on dev: {'; '.join(changes)}.")
    lines.append("")
    lines += _beside(metrics)
    lines += plan.kind.sections(prepared, metrics)
    first = next(iter(metrics["slices"]["length"].values()))
    lines += ["## Slices", "", f"| length | {' | '.join(first)} |", "|---" * (1 + len(first)) + "|"]
    for part, values in metrics["slices"]["length"].items():
        rows, *figures = values.values()
        lines.append(f"| {part} | {rows:,} | {' | '.join(f'{value:.4f}' for value in figures)} |")
    lines.append("")
    lines += _limits(plan, metrics)
    lines += ["## Data", ""]
    lines += [f"- {note}" for note in (*plan.kind.told(prepared, options), *prepared.notes())]
    lines += ["", "## Settings", ""]
    lines += [f"- {name}: {value}" for name, value in dataclasses.asdict(options).items() if value is not None]
    lines += [f"- updates: {training.steps}", f"- learning rate: {training.learning_rate:g}"]
    lines += [f"- cost: {Cost(**metrics['cost'])}", ""]
    return "\n".join(lines)


def _limits(plan: Plan, metrics: dict) -> Iterator[str]:
    """What the figures do not say."""
    prepared, rows = plan.prepared, metrics["rows"]
    yield from ("## Limits", "")
    yield (
        f"- Dev has {rows:,} rows: an accuracy is known to within {0.98 / math.sqrt(rows):.3f} (95 %), and flatters, "
        "since the model was chosen on them. `bert evaluate` says more by rows that no choice has seen."
    )
    yield "- It was shown texts such as train's; of other subjects, languages and times the figures say nothing."
    if plan.start.tokenizer.lower_case:
        yield "- Capitals and accents are not seen: the vocabulary is uncased."
    if isinstance(prepared, Prepared) and prepared.dev.cut and plan.options.long != "windows":  # others have windows
        share = prepared.dev.cut / prepared.dev.rows
        yield f"- Of {share:.1%} of dev's texts the model sees {plan.options.max_seq_length} tokens, and not the rest."
    labels, counts = getattr(prepared, "labels", ()), getattr(prepared.train, "counts", ())
    if few := [label for label, count in zip(labels, counts, strict=False) if count < FEW]:
        shown = ", ".join(map(repr, few[:SHOWN])) + f" and {len(few) - SHOWN} more" * (len(few) > SHOWN)
        yield f"- Fewer than {FEW} examples in train have {shown}."
    yield ""


def _beside(metrics: dict) -> Iterator[str]:
    """Student, teacher and the student without it: means over the seeds."""
    if "teacher" not in metrics:
        return
    teacher, untaught = metrics["teacher"], metrics["untaught"].values()
    names = [name for name in metrics["mean"] if name in teacher]
    yield from ("## Beside its teacher", "", f"| model | layers | weights | MB | rows/s | {' | '.join(names)} |")
    yield "|---" * (5 + len(names)) + "|"

    def of_size(layers, weights, rate):
        return f"{layers} | {weights:,} | {weights * 4e-6:,.1f} | {rate:,.0f}"

    size = of_size(metrics["layers"], metrics["cost"]["weights"], metrics["rows_per_second"])
    of_teacher = of_size(teacher["layers"], teacher["weights"], teacher["rows_per_second"])
    rows = [("student", size, metrics["mean"]), (f"teacher, `{teacher['path']}`", of_teacher, teacher)]
    if untaught:
        means = {name: sum(one[name] for one in untaught) / len(untaught) for name in names}
        rows.append(("the student without its teacher, as many updates", size, means))
    for title, sizes, figures in rows:
        yield f"| {title} | {sizes} | {' | '.join(f'{figures[name]:.4f}' for name in names)} |"
    yield from ("", "Rows a second are those that it answers on this machine, text to answer, in batches.", "")
