"""Plots of a fine-tuned model's answers."""

import pathlib
from collections.abc import Sequence

import numpy as np

NAMED = 30  # classes whose names fit


def confusion(counts: np.ndarray, labels: Sequence[str], path: pathlib.Path) -> None:
    """The share of each label's rows that got each answer, from how many did [C + 1, C]; the last row is of those
    without one of the labels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = counts if counts[-1].any() else counts[:-1]
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
