"""A task that is none of the project's: labels and weights of its own, a figure of which more is better."""

import dataclasses
import math

import numpy as np
import tensorflow as tf

from model.tasks.task import Curve
from preprocessing import features
from preprocessing.errors import InputError
from tests.model import small_examples

LABEL = "is_upper"


@dataclasses.dataclass(frozen=True)
class Upper:
    """Whether the token that the first half repeats is of the vocabulary's upper half, from the pooled output; rows are
    weighted."""

    smoothing: float = 0.0

    heads = ("next_sentence",)
    spec = features.Spec(
        features.SEQUENCE
        | {
            LABEL: features.Feature(1, "a label must be 0 or 1", below=2),
            "weight": features.Feature(1, "a weight must be a number", stored="float32"),
        },
        "the tests",
    )
    sum_names = ("nll", "right", "weight")
    watched, lower_is_better = "accuracy", False
    curves = (Curve("Accuracy", "accuracy", "commonest", "commonest label", shown="accuracy"),)

    @property
    def description(self):
        return {"kind": "upper", "smoothing": self.smoothing}

    def check(self, settings, examples, transform):
        if not examples.sums["weight"]:
            raise InputError("no weights")

    def totals(self, batch):
        return {"weight": tf.reduce_sum(batch["weight"] * tf.cast(batch[features.INPUT_MASK][:, :1], tf.float32))}

    def sums(self, encoder, batch, **options):
        logits = encoder.next_sentence(encoder(batch, **options)["pooled_output"])
        labels, weights = batch[LABEL][:, 0], batch["weight"][:, 0]
        nll = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        right = tf.cast(tf.argmax(logits, -1, tf.int32) == labels, tf.float32)
        sums = {"nll": tf.reduce_sum(weights * nll), "right": tf.reduce_sum(weights * right)}
        return sums | self.totals(batch)

    def loss(self, sums, totals):
        return sums["nll"] / totals["weight"]

    def held_out(self, encoder, batch):
        of_label = tf.math.unsorted_segment_sum(batch["weight"][:, 0], batch[LABEL][:, 0], 2)
        return self.sums(encoder, batch) | {"of_label": of_label}

    def figures(self, sums):
        figures = {"accuracy": float(sums["right"]) / (float(sums["weight"]) or math.nan)}
        if "of_label" in sums:
            figures["commonest"] = float(max(sums["of_label"]) / sum(sums["of_label"]))
        return figures

    def samples(self, encoder, batch, tokens):
        return {"rows": f"{len(tokens)} tokens, {batch[features.INPUT_IDS].shape[0]} rows"}


def examples(count: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Of which every other one is two tokens shorter."""
    pairs = small_examples.examples(count, seed)
    arrays = {name: pairs[name] for name in features.SEQUENCE_FEATURES}
    label = arrays[features.INPUT_IDS][:, : small_examples.LENGTH // 2].max(axis=1, keepdims=True) > 22
    arrays[features.INPUT_MASK][::2, 14:] = 0
    weight = np.ones((count, 1), np.float32)
    return arrays | {LABEL: label.astype(np.int64), "weight": weight}
