"""What a run leaves for people: `history.jsonl`, TensorBoard logs, a plot of the curves."""

import json
import math
import os
import pathlib
from collections.abc import Sequence

import tensorflow as tf

from model.checkpoints import vocabularies
from model.tasks.task import Curve
from preprocessing.errors import InputError


class Records:
    """Writes figures by step. What an interrupted run wrote after the step at which it resumes is dropped.

    Without a folder nothing is written: for workers other than the first.
    """

    def __init__(self, output: str | None, step: int):
        self._stream = self._writer = None
        if output is None:
            return
        self._path = os.path.join(output, "history.jsonl")
        self._history = [row for row in read_history(output) if row["step"] <= step]
        temporary = self._path + ".tmp"
        with open(temporary, "w") as stream:
            stream.writelines(json.dumps(row) + "\n" for row in self._history)
        os.replace(temporary, self._path)
        self._stream = open(self._path, "a")  # noqa: SIM115
        self._writer = tf.summary.create_file_writer(os.path.join(output, "logs"))

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if self._stream and self._writer:
            self._stream.close()
            self._writer.close()

    def write(self, step: int, kind: str, figures: dict[str, float]) -> None:
        """`kind` is "training" or "held_out"."""
        if not (self._stream and self._writer):
            return
        if self._history and (self._history[-1]["step"], self._history[-1]["kind"]) == (step, kind):
            return  # a finished run, called again
        row = {"step": step, "kind": kind, **figures}
        self._history.append(row)
        self._stream.write(json.dumps(row) + "\n")
        self._stream.flush()
        with self._writer.as_default(step=step):
            for name, value in figures.items():
                tf.summary.scalar(f"{kind}/{name}", value)
        if kind == "held_out":
            self._writer.flush()

    def write_text(self, step: int, name: str, text: str) -> None:
        if not self._writer:
            return
        with self._writer.as_default(step=step):
            tf.summary.text(name, text)

    def plot(self, path: str, curves: Sequence[Curve]) -> None:
        plot(self._history, path, curves)


def read_history(output: str) -> list[dict]:
    """Rows of `history.jsonl`, whose last line may be torn."""
    rows = []
    path = os.path.join(output, "history.jsonl")
    if os.path.exists(path):
        with open(path) as stream:
            for line in stream:
                try:
                    rows.append(json.loads(line))
                except ValueError:
                    break
    return rows


def plot(history: list[dict], path: str, curves: Sequence[Curve]) -> None:
    """The curves and the learning rate by step as a PNG, two panels in a row."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = [*curves, Curve("Learning rate", "learning_rate")]
    height = math.ceil(len(panels) / 2)
    figure = Figure(figsize=(11, 3.5 * height), layout="constrained")
    FigureCanvasAgg(figure)
    for panel, curve in enumerate(panels, 1):
        axes = figure.add_subplot(height, 2, panel)
        for kind, alpha in (("training", 0.6), ("held_out", 1.0)):
            rows = [row for row in history if row["kind"] == kind and curve.figure in row]
            if rows:
                axes.plot(
                    [row["step"] for row in rows],
                    [row[curve.figure] for row in rows],
                    label=kind.replace("_", " "),
                    alpha=alpha,
                    marker="o" if kind == "held_out" or len(rows) == 1 else None,  # a line of one point is not seen
                    markersize=3,
                )
                if curve.baseline in rows[-1]:
                    axes.axhline(rows[-1][curve.baseline], linestyle=":", color="gray", label=curve.label)
        axes.set_title(curve.title)
        axes.set_xlabel("step")
        if axes.lines:
            axes.legend()
    figure.savefig(path, dpi=110)


def read_vocabulary(path: str, vocab_size: int) -> list[str]:
    """Tokens by id. InputError when their number is not the model's."""
    if not os.path.isfile(path):
        raise InputError(f"{path}: no such vocabulary file")
    tokens = vocabularies.read_vocab(pathlib.Path(path))
    if len(tokens) != vocab_size:
        raise InputError(
            f"{path}: the vocabulary must have as many tokens as the model ({vocab_size}). Received: {len(tokens)}"
        )
    return tokens
