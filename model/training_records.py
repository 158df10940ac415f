"""What a run leaves for people: `history.jsonl`, TensorBoard logs, a plot of the curves, filled-in masks."""

import itertools
import json
import os
import pathlib

import numpy as np
import tensorflow as tf

from model import formats
from preprocessing import features
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

    def plot(self, path: str) -> None:
        plot(self._history, path)


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


def plot(history: list[dict], path: str) -> None:
    """Loss and accuracy by step as a PNG, with what needs no model as dotted lines."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = [
        ("Masked-token loss (nats)", "masked_lm_loss", "unigram_loss", "unigram distribution"),
        ("Masked-token accuracy", "masked_lm_accuracy", "commonest_token_accuracy", "commonest token"),
        ("Next-sentence accuracy", "next_sentence_accuracy", None, None),
        ("Learning rate", "learning_rate", None, None),
    ]
    figure = Figure(figsize=(11, 7), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (title, name, baseline, label) in zip(figure.subplots(2, 2).flat, panels, strict=True):
        for kind, style in (("training", {"alpha": 0.6}), ("held_out", {"marker": "o", "markersize": 3})):
            rows = [row for row in history if row["kind"] == kind and name in row]
            if rows:
                axes.plot(
                    [row["step"] for row in rows], [row[name] for row in rows], label=kind.replace("_", " "), **style
                )
                if baseline and baseline in rows[-1]:
                    axes.axhline(rows[-1][baseline], linestyle=":", color="gray", label=label)
        axes.set_title(title)
        axes.set_xlabel("step")
        if axes.lines:
            axes.legend()
    figure.savefig(path, dpi=110)


def read_vocabulary(path: str, vocab_size: int) -> list[str]:
    """Tokens by id. InputError when their number is not the model's."""
    if not os.path.isfile(path):
        raise InputError(f"{path}: no such vocabulary file")
    tokens = formats.read_vocab(pathlib.Path(path))
    if len(tokens) != vocab_size:
        raise InputError(
            f"{path}: the vocabulary must have as many tokens as the model ({vocab_size}). Received: {len(tokens)}"
        )
    return tokens


def filled_masks(batch: dict[str, np.ndarray], predicted: np.ndarray, tokens: list[str], examples: int = 4) -> str:
    """Markdown of a few examples [B, L] with each masked token's prediction [B, P] beside the right one."""
    lines = []
    for row in range(min(examples, len(predicted))):
        shown = [tokens[i] for i in batch[features.INPUT_IDS][row]]
        count = int((batch[features.MASKED_LM_WEIGHTS][row] > 0).sum())
        for position, right, answer in zip(
            batch[features.MASKED_LM_POSITIONS][row][:count],
            batch[features.MASKED_LM_IDS][row][:count],
            predicted[row][:count],
            strict=True,
        ):
            shown[position] = f"**{tokens[answer]}**" if answer == right else f"**{tokens[answer]}**({tokens[right]})"
        real = itertools.compress(shown, batch[features.INPUT_MASK][row])
        lines.append(" ".join(real).replace(" ##", ""))
    return "\n\n".join(lines)
