"""What a fine-tuning leaves for people: its answers on dev, its errors, its figures."""

import json
import math
import pathlib
from collections.abc import Sequence

import numpy as np

from pipeline.finetuning.planning import Plan
from preprocessing.storage import write_whole
from preprocessing.tasks.tables import Table

NAMED = 30  # classes whose names fit on a plot
FIGURES = {
    "accuracy": "Accuracy",
    "macro_f1": "Macro F1",
    "matthews": "Matthews' coefficient",
    "cross_entropy": "Cross entropy (nats)",
    "majority_accuracy": "Accuracy of the commonest label",
}


def write(
    folder: pathlib.Path, plan: Plan, dev: Table, metrics: dict, confusion: np.ndarray, gold: np.ndarray,
    probabilities: np.ndarray,
) -> None:  # fmt: skip
    """predictions.jsonl, errors.tsv, confusion.png, report.md and metrics.json. `gold` [rows] and `probabilities`
    [rows, labels] are in the order of the table; a gold number beyond the labels is none of them."""
    labels = plan.prepared.labels
    answers, errors = [], []
    numbers = zip(dev.rows(lambda line, reason: None), gold, probabilities, strict=True)
    for row, number, shares in numbers:
        said = int(shares.argmax())
        of_gold = float(shares[number]) if number < len(labels) else 0.0
        answer = {"file": row.file, "line": row.line, "gold": row.label, "answer": labels[said]}
        answer |= {"probability": float(shares[said]), "probability_of_gold": of_gold}
        answers.append(json.dumps(answer, ensure_ascii=False) + "\n")
        if said != number:
            cost = -math.log(max(of_gold, 1e-300))
            text = row.text if row.second is None else f"{row.text} ||| {row.second}"
            cells = (row.file, row.line, row.label or "", labels[said], f"{shares[said]:.4f}", text)
            errors.append((cost, "\t".join(_cell(cell) for cell in cells) + "\n"))
    errors.sort(key=lambda error: -error[0])
    write_whole("".join(answers), folder / "predictions.jsonl")
    head = "file\tline\tgold\tanswer\tprobability\ttext\n"
    write_whole(head + "".join(line for _, line in errors), folder / "errors.tsv")
    _confusion(confusion, labels, folder / "confusion.png")
    write_whole(report(plan, metrics), folder / "report.md")
    write_whole(json.dumps(metrics, indent=2, ensure_ascii=False) + "\n", folder / "metrics.json")


def _cell(value: object) -> str:
    """One cell of a TSV: what would end it is shown as a blank."""
    return " ".join(str(value).split())


def _confusion(confusion: np.ndarray, labels: Sequence[str], path: pathlib.Path) -> None:
    """The share of each label's rows that got each answer; the last row is of those without a label of train."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = confusion if confusion[-1].any() else confusion[:-1]
    shares = rows / np.maximum(rows.sum(1, keepdims=True), 1)
    size = min(16.0, 3 + 0.35 * len(labels))
    figure = Figure(figsize=(size, size), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.imshow(shares, vmin=0, vmax=1, cmap="Blues")
    axes.set_xlabel("answer")
    axes.set_ylabel("label")
    if len(labels) <= NAMED:
        names = [_short(label) for label in labels]
        axes.set_xticks(range(len(labels)), names, rotation=90, parse_math=False)
        axes.set_yticks(range(len(rows)), [*names, "(another)"][: len(rows)], parse_math=False)
        for row, column in zip(*np.nonzero(rows), strict=True):
            color = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, f"{rows[row, column]:.0f}", ha="center", va="center", color=color, fontsize=7)
    figure.savefig(path, dpi=110)


def _short(label: str) -> str:
    return label if len(label) <= 24 else f"{label[:23]}…"


def report(plan: Plan, metrics: dict) -> str:
    """A model card in Markdown."""
    prepared, options, training = plan.prepared, plan.options, plan.training
    spread = options.seeds > 1
    lines = ["# Text classification", "", f"Fine-tuned from `{plan.start.path}`.", "", "## Figures on dev", ""]
    lines += [
        "| figure | best seed | mean | spread |" if spread else "| figure | value |",
        "|---" * (2 + 2 * spread) + "|",
    ]
    for name, title in FIGURES.items():
        more = f" {metrics['mean'][name]:.4f} | {metrics['spread'][name]:.4f} |" if spread else ""
        lines.append(f"| {title} | {metrics[name]:.4f} |{more}")
    before, after = metrics["calibration"]["before"], metrics["calibration"]["after"]
    lines += [
        "",
        f"The best model of seed {metrics['best_seed']} by {metrics['watched']}; spread is the standard deviation over "
        f"{options.seeds} seeds." if spread else f"The best model of the run by {metrics['watched']}.",
        f"Temperature {metrics['temperature']:.3f}, chosen on dev: cross entropy {before['cross_entropy']:.4f} before, "
        f"{after['cross_entropy']:.4f} after; calibration error {before['calibration_error']:.4f} before, "
        f"{after['calibration_error']:.4f} after. Figures of dev flatter: model and temperature were chosen on it.",
        "",
        "## Classes",
        "",
        "| class | F1 on dev | rows of train | rows of dev |",
        "|---|---|---|---|",
    ]  # fmt: skip
    counts = zip(prepared.labels, prepared.train.counts, prepared.dev.counts, strict=True)
    for label, of_train, of_dev in sorted(counts, key=lambda row: metrics["f1"][row[0]]):
        lines.append(
            f"| {_cell(label).replace('|', chr(92) + '|')} | {metrics['f1'][label]:.4f} | {of_train} | {of_dev} |"
        )
    lines += ["", "## Data", ""]
    for split, name in ((prepared.train, "train"), (prepared.dev, "dev")):
        cut = f"{split.cut / split.rows:.1%} longer than {options.max_seq_length} tokens ({options.long})"
        lines.append(f"- {name}: {split.rows:,} rows, {cut}")
    lines += [f"- {note}" for note in prepared.notes()]
    lines += ["", "## Settings", ""]
    lines += [f"- {name}: {value}" for name, value in vars(options).items() if value is not None]
    lines += [f"- updates: {training.steps}", f"- learning rate: {training.learning_rate:g}", ""]
    return "\n".join(lines)
