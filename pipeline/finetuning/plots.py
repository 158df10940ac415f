"""Plots of a fine-tuned model's answers."""

import pathlib
from collections.abc import Sequence

import numpy as np

NAMED = 30  # classes whose names fit


def confusion(counts: np.ndarray, labels: Sequence[str], folder: pathlib.Path) -> None:
    """confusion.png: the share of each label's rows that got each answer, from how many did [C + 1, C]; the last row
    is of those without one of the labels."""
    rows = counts if counts[-1].any() else counts[:-1]
    shares = rows / np.maximum(rows.sum(1, keepdims=True), 1)
    size = min(16.0, 3 + 0.35 * len(labels))
    figure, axes = _figure(size)
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
    figure.savefig(folder / "confusion.png", dpi=110)


def reliability(before: np.ndarray, after: np.ndarray, folder: pathlib.Path) -> None:
    """reliability.png: how often answers of a probability are right, from `calibration.bins` before and after. On the
    dotted line a model is as sure as it should be; a dot is the larger the more answers there are."""
    figure, axes = _figure(5)
    axes.plot([0, 1], [0, 1], ":", color="gray")
    for (rows, sums, rights), name, color in ((before, "before", "tab:orange"), (after, "after", "tab:blue")):
        there = rows > 0
        shares = sums[there] / rows[there], rights[there] / rows[there]
        axes.plot(*shares, color=color, label=name)
        axes.scatter(*shares, s=200 * rows[there] / rows.sum(), color=color, alpha=0.5)
    axes.set_xlabel("probability of the answer")
    axes.set_ylabel("share that is right")
    axes.legend()
    figure.savefig(folder / "reliability.png", dpi=110)


def scatter(gold: np.ndarray, said: np.ndarray, folder: pathlib.Path) -> None:
    """scores.png: the answers beside the labels."""
    figure, axes = _figure(5)
    axes.scatter(gold, said, s=6, alpha=0.4)
    axes.axline((gold.mean(), gold.mean()), slope=1, ls=":", color="gray")
    axes.set_xlabel("label")
    axes.set_ylabel("answer")
    figure.savefig(folder / "scores.png", dpi=110)


def _figure(size: float):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(size, size), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def _short(label: str) -> str:
    return label if len(label) <= 24 else f"{label[:23]}…"
