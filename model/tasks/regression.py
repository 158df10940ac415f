"""A number for a text or a pair, from the pooled output.

Shapes: B batch, `()` a scalar.
"""

import dataclasses
import math
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from model.encoder.heads import CLASSIFIER
from model.settings import Pooling
from model.tasks.classification import pooled_logits
from model.tasks.pretraining import real_examples
from model.tasks.task import Curve
from preprocessing import features
from preprocessing.errors import InputError, require

WATCHED = ("pearson", "rmse")


@dataclasses.dataclass(frozen=True)
class Regression:
    """A `model.tasks.task.Task`. The loss is the mean squared error in units of `scale`: a score is `mean + scale *
    logit`, so that the head has little way to go whatever the scores are.

    Figures: `rmse`, the root of the mean squared error, as the scores are; of held-out examples also `pearson`, their
    correlation with the answers, and `deviation`, the scores' standard deviation, which is the error of always saying
    their mean.

    Attributes:
        mean, scale: of the scores of train.
        watched: the figure by which the best model is chosen.
        pooling: what the head stands on.
    """

    mean: float = 0.0
    scale: float = 1.0
    watched: str = "pearson"
    pooling: Pooling = "cls"

    sum_names = ("squares", "rows")
    curves = (Curve("Error", "rmse", "deviation", "always the mean", shown="error"),)

    def __post_init__(self):
        good = math.isfinite(self.mean) and 0 < self.scale < math.inf
        require(good, "mean and scale must be finite, scale above 0", (self.mean, self.scale))
        require(self.watched in WATCHED, f"watched must be {' or '.join(WATCHED)}", self.watched)

    @property
    def heads(self):
        return (CLASSIFIER.with_labels(1),)

    @property
    def spec(self):
        return features.SCORED

    @property
    def lower_is_better(self):
        return self.watched == "rmse"

    @property
    def description(self):
        return {
            "kind": "regression",
            "mean": self.mean,
            "scale": self.scale,
            "watched": self.watched,
            "pooling": self.pooling,
        }

    def check(self, settings, examples, transform):
        if transform is not None:
            raise InputError(f"{examples.files[0]}: examples with scores are not to be masked")

    def totals(self, batch):
        return rows(batch)

    def sums(self, encoder, batch, **options):
        return squares(batch, *self._pairs(pooled_logits(encoder, batch, self.pooling, **options), batch))

    def loss(self, sums, totals):
        return sums["squares"] / tf.maximum(totals["rows"], 1e-5)

    def held_out(self, encoder, batch):
        return moments(batch, *self._pairs(pooled_logits(encoder, batch, self.pooling), batch))

    def _pairs(self, logits_B1, batch):
        """(answer [B], score [B]), both in units of `scale` from `mean` on"""
        return logits_B1[:, 0], (batch[features.SCORES][:, 0] - self.mean) / self.scale

    def figures(self, sums: Mapping[str, np.ndarray | float]) -> dict[str, float]:
        return correlation(sums, self.scale)

    def samples(self, encoder, batch, tokens):
        pairs = self._pairs(pooled_logits(encoder, batch, self.pooling), batch)
        said_B, score_B = (self.mean + self.scale * values.numpy() for values in pairs)
        return {"answers": table(score_B, said_B, batch, tokens, batch[features.INPUT_MASK])}


def rows(batch) -> dict[str, tf.Tensor]:
    """What the squares are divided by."""
    return {"rows": tf.reduce_sum(real_examples(batch))}


def squares(batch, said_B, score_B) -> dict[str, tf.Tensor]:
    """Of the errors of a batch, and its rows."""
    squares_B = tf.math.squared_difference(said_B, score_B) * real_examples(batch)
    return {"squares": tf.reduce_sum(squares_B)} | rows(batch)


def moments(batch, said_B, score_B) -> dict[str, tf.Tensor]:
    """`squares`, and what the correlation is made of."""
    found = {"said": said_B, "score": score_B, "said_said": said_B**2, "score_score": score_B**2,
             "said_score": said_B * score_B}  # fmt: skip
    sums = {name: tf.reduce_sum(value * real_examples(batch)) for name, value in found.items()}
    return sums | squares(batch, said_B, score_B)


def correlation(sums: Mapping[str, np.ndarray | float], scale: float) -> dict[str, float]:
    """`rmse`, of `squares`; of `moments` also `pearson` and `deviation`. `scale`: what the numbers are units of."""
    count = float(sums["rows"]) or math.nan
    figures = {"rmse": scale * math.sqrt(float(sums["squares"]) / count)}
    if "said_score" not in sums:
        return figures
    said, score, said_said, score_score, said_score = (
        float(sums[name]) / count for name in ("said", "score", "said_said", "score_score", "said_score")
    )
    variances = max(said_said - said**2, 0.0), max(score_score - score**2, 0.0)
    spreads = math.sqrt(variances[0] * variances[1])
    return figures | {
        "pearson": (said_score - said * score) / spreads if spreads else 0.0,
        "deviation": scale * math.sqrt(variances[1]),
    }


def table(scores, answers, batch, tokens, mask) -> str:
    """Markdown of a few rows; their tokens are those at which `mask` is 1."""
    lines = ["| score | answer | text |", "|---|---|---|"]
    for ids, there, score, said in zip(batch[features.INPUT_IDS].numpy(), mask.numpy(), scores, answers, strict=True):
        text = " ".join(tokens[number] for number in ids[there > 0]).replace(" ##", "").replace("|", "\\|")
        lines.append(f"| {score:.3f} | {said:.3f} | {text} |")
    return "\n".join(lines)
