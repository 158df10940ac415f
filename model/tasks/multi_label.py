"""Any number of C labels for a text or a pair, from the pooled output.

Shapes: B batch, C labels, `()` a scalar.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from model.encoder.heads import CLASSIFIER
from model.settings import Pooling
from model.tasks.classification import check_weights, pooled_logits
from model.tasks.pretraining import real_examples
from model.tasks.task import Curve
from preprocessing import features
from preprocessing.errors import InputError, require

WATCHED = ("macro_f1", "micro_f1", "exact", "cross_entropy")


@dataclasses.dataclass(frozen=True)
class MultiLabel:
    """A `model.tasks.task.Task`. The loss is the mean, over rows and labels, of the cross entropy of each label's
    presence.

    Figures: `cross_entropy` in nats and `micro_f1`; of held-out examples also `macro_f1` and `exact`, the share of rows
    with no label wrong. A label is said from probability 0.5 on.

    Attributes:
        labels: how many there are.
        class_weights: of each label, how much its presence counts beside its absence; (): alike.
        watched: the figure by which the best model is chosen.
        pooling: what the head stands on.
    """

    labels: int
    class_weights: tuple[float, ...] = ()
    watched: str = "macro_f1"
    pooling: Pooling = "cls"

    sum_names = ("nll", "hits", "said", "there", "rows")
    curves = (Curve("Cross entropy (nats)", "cross_entropy"), Curve("Micro F1", "micro_f1", shown="micro F1"))

    def __post_init__(self):
        require(self.labels > 0, "there must be labels", self.labels)
        require(self.watched in WATCHED, f"watched must be {' or '.join(WATCHED)}", self.watched)
        check_weights(self.class_weights, self.labels)

    @property
    def heads(self):
        return (CLASSIFIER.with_labels(self.labels),)

    @property
    def spec(self):
        return features.several_labels(self.labels)

    @property
    def lower_is_better(self):
        return self.watched == "cross_entropy"

    @property
    def description(self):
        settings = {"labels": self.labels, "class_weights": list(self.class_weights), "watched": self.watched}
        return {"kind": "multi-label", **settings, "pooling": self.pooling}

    def check(self, settings, examples, transform):
        if transform is not None:
            raise InputError(f"{examples.files[0]}: examples with labels are not to be masked")

    def totals(self, batch):
        return {"rows": tf.reduce_sum(real_examples(batch))}

    def sums(self, encoder, batch, **options):
        sums = self._sums(pooled_logits(encoder, batch, self.pooling, **options), batch)
        return {name: tf.reduce_sum(sums[name]) for name in self.sum_names}

    def loss(self, sums, totals):
        return sums["nll"] / tf.maximum(totals["rows"], 1e-5)

    def held_out(self, encoder, batch):
        return self._sums(pooled_logits(encoder, batch, self.pooling), batch)

    def _sums(self, logits_BC, batch):
        """`()`, and [C] of each label: `hits`, said rightly; `said`; `there`."""
        real_B = real_examples(batch)
        there_BC = tf.cast(batch[features.LABEL_IDS], tf.float32)
        weights = tf.constant(self.class_weights or [1.0] * self.labels)
        nll_BC = tf.nn.weighted_cross_entropy_with_logits(there_BC, logits_BC, weights)
        said_BC = tf.cast(logits_BC >= 0, tf.float32)
        right_B = tf.reduce_min(tf.cast(said_BC == there_BC, tf.float32), 1)
        return {
            "nll": tf.reduce_sum(real_B * tf.reduce_mean(nll_BC, 1)),
            "hits": tf.linalg.matvec(said_BC * there_BC, real_B, transpose_a=True),
            "said": tf.linalg.matvec(said_BC, real_B, transpose_a=True),
            "there": tf.linalg.matvec(there_BC, real_B, transpose_a=True),
            "exact": tf.reduce_sum(real_B * right_B),
            "rows": tf.reduce_sum(real_B),
        }

    def figures(self, sums: Mapping[str, np.ndarray | float]) -> dict[str, float]:
        rows = float(sums["rows"]) or math.nan
        figures = {"cross_entropy": float(sums["nll"]) / rows}
        hits, said, there = (np.asarray(sums[name], float) for name in ("hits", "said", "there"))
        figures |= scores(hits, said, there) if rows == rows else {"macro_f1": math.nan, "micro_f1": math.nan}
        if "exact" in sums:
            return figures | {"exact": float(sums["exact"]) / rows}
        return {name: figures[name] for name in ("cross_entropy", "micro_f1")}

    def samples(self, encoder, batch, tokens):
        probabilities = tf.sigmoid(pooled_logits(encoder, batch, self.pooling)).numpy()
        rows = zip(batch[features.INPUT_IDS].numpy(), batch[features.INPUT_MASK].numpy(),
                   batch[features.LABEL_IDS].numpy(), probabilities, strict=True)  # fmt: skip
        lines = ["| labels | answer | text |", "|---|---|---|"]
        for ids, mask, there, shares in rows:
            text = " ".join(tokens[number] for number in ids[mask > 0]).replace(" ##", "").replace("|", "\\|")
            gold, said = (", ".join(map(str, np.flatnonzero(found))) for found in (there, shares >= 0.5))
            lines.append(f"| {gold} | {said} | {text} |")
        return {"answers": "\n".join(lines)}


def balanced(rows: int, there: Sequence[int]) -> tuple[float, ...]:
    """Weights by which a label's presence counts as much as its absence, from how many rows have it; 1 for one that all
    or none have."""
    return tuple((rows - count) / count if 0 < count < rows else 1.0 for count in there)


def f1(hits: np.ndarray, said: np.ndarray, there: np.ndarray) -> np.ndarray:
    """F1 of each label, from how often it was said rightly, said, and there; 0 where it neither is there nor was said,
    as scikit-learn has it."""
    return 2 * hits / np.maximum(said + there, 1)


def scores(hits: np.ndarray, said: np.ndarray, there: np.ndarray) -> dict[str, float]:
    """Macro F1, the labels' mean, and micro F1, that of all decisions together."""
    micro = f1(*(values.sum() for values in (hits, said, there)))
    return {"macro_f1": float(np.mean(f1(hits, said, there))), "micro_f1": float(micro)}
