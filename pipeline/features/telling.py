"""Figures of choices, as a report holds them and as lines for people."""

import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

from model.tasks import classification
from pipeline.features.choices import Choice
from pipeline.features.judging import ITERATIONS, Judged
from preprocessing.storage import write_whole

Figures = dict[str, Any]
COSINES = ("layers", "pooling", "pearson", "spearman")
REGRESSIONS = ("layers", "pooling", "C", "accuracy_on_its_choice", "accuracy", "macro_f1")


def of_cosines(choice: Choice, figures: dict[str, float]) -> Figures:
    return _described(choice) | figures


def of_regression(choice: Choice, judged: Judged, labels: Sequence[str]) -> Figures:
    """`accuracy_on_its_choice`: of the rows of train by which C was chosen."""
    f1 = dict(zip(labels, classification.f1(judged.confusion).tolist(), strict=True))
    figures = {"C": judged.strength, "accuracy_on_its_choice": judged.chosen_on, **judged.figures}
    return _described(choice) | figures | {"converged": judged.converged, "f1": f1}


def _described(choice: Choice) -> Figures:
    return {"layers": choice.said, "pooling": choice.pooling, "unit_length": choice.unit_length}


def table(rows: Sequence[Figures], names: Sequence[str]) -> Iterator[str]:
    """Aligned lines, the names on top."""
    cells = [[name.replace("_", " ") for name in names]]
    cells += [[_cell(row[name]) for name in names] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()


def _cell(value: str | float) -> str:
    if isinstance(value, str):
        return value
    return "-" if math.isnan(value) else f"{value:.4f}"


def regression(figures: Figures, judged: Judged) -> Iterator[str]:
    """Of one: its figures, and those of each label."""
    for name in ("C", "accuracy_on_its_choice", "accuracy", "macro_f1", "matthews", "majority_accuracy"):
        yield f"  {name.replace('_', ' '):22} {_cell(figures[name])}"
    if not judged.converged:
        yield f"  not converged in {ITERATIONS:,} iterations"
    width = max(map(len, figures["f1"]))
    for (label, value), rows in zip(figures["f1"].items(), judged.confusion.sum(1), strict=False):
        yield f"  {label.ljust(width)}  F1 {value:.4f}  {rows:,.0f} rows"


def write(path: str, report: dict) -> None:
    """As JSON, which has no nan."""
    write_whole(json.dumps(_without_nan(report), indent=2, ensure_ascii=False) + "\n", path)


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nan(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and math.isnan(value) else value
