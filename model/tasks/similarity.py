"""How like two texts are: the cosine of their vectors, each text encoded by itself, so that vectors can be kept, and
searched (Reimers and Gurevych 2019, arXiv 1908.10084; sentence-transformers' `CosineSimilarityLoss`).

Shapes: B batch, L tokens of the longer text, H hidden, `()` a scalar.
"""

import dataclasses
import math
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from model.settings import Pooling
from model.tasks import regression
from model.tasks.task import Curve
from preprocessing import features
from preprocessing.errors import InputError, require, require_one_of


@dataclasses.dataclass(frozen=True)
class Similarity:
    """A `model.tasks.task.Task` without a head. The loss is the mean squared difference between the cosine and the
    score, which is `least` where it should be 0 and `most` where it should be 1.

    Figures: those of `regression.Regression`, errors in units of the scores.

    Attributes:
        least, most: of the scores of train.
        watched: the figure by which the best model is chosen.
        pooling: what the vector is: the mean over the tokens' last states, or that of [CLS].
    """

    least: float = 0.0
    most: float = 1.0
    watched: str = "pearson"
    pooling: Pooling = "mean"

    heads = ()
    spec = features.COMPARED
    sum_names = ("squares", "rows")
    curves = (Curve("Error", "rmse", "deviation", "always the mean", shown="error"),)

    def __post_init__(self):
        rule = "least and most must be finite, most the greater"
        require(-math.inf < self.least < self.most < math.inf, rule, (self.least, self.most))
        require(self.watched in regression.WATCHED, f"watched must be {' or '.join(regression.WATCHED)}", self.watched)
        require_one_of(Pooling, "pooling", self.pooling)

    @property
    def lower_is_better(self):
        return self.watched == "rmse"

    @property
    def description(self):
        return {"kind": "similarity", **dataclasses.asdict(self)}

    def check(self, settings, examples, transform):
        if transform is not None:
            raise InputError(f"{examples.files[0]}: examples with scores are not to be masked")
        require(settings.tune != "head", "there is no head to be trained: tune all, or bias", settings.tune)

    def totals(self, batch):
        return regression.rows(batch)

    def sums(self, encoder, batch, **options):
        return regression.squares(batch, *self._pairs(encoder, batch, **options))

    def loss(self, sums, totals):
        return sums["squares"] / tf.maximum(totals["rows"], 1e-5)

    def held_out(self, encoder, batch):
        return regression.moments(batch, *self._pairs(encoder, batch))

    def figures(self, sums: Mapping[str, np.ndarray | float]) -> dict[str, float]:
        return regression.correlation(sums, self.most - self.least)

    def samples(self, encoder, batch, tokens):
        said_B, score_B = (self.least + (self.most - self.least) * of.numpy() for of in self._pairs(encoder, batch))
        # One text behind the other, as they were.
        apart = {features.INPUT_IDS: _one_behind_the_other(batch[features.INPUT_IDS])}
        mask = _one_behind_the_other(batch[features.TEXT_MASK])
        return {"answers": regression.table(score_B, said_B, apart, tokens, mask)}

    def _pairs(self, encoder, batch, **options):
        """(cosine [B], what it should be [B])"""
        score_B = (batch[features.SCORES][:, 0] - self.least) / (self.most - self.least)
        return cosines(encoder, batch, self.pooling, **options), score_B


def cosines(encoder, batch, pooling: Pooling, training=False, words=None, **options) -> tf.Tensor:
    """float32 [B], of the two texts of each row of `features.COMPARED`."""
    if not training:
        longest = tf.maximum(tf.reduce_max(tf.reduce_sum(batch[features.INPUT_MASK], 1)), 2)
        batch = {name: batch[name][:, :longest] for name in (features.INPUT_IDS, features.TEXT_MASK)}
    ids, mask = (_apart(batch[name]) for name in (features.INPUT_IDS, features.TEXT_MASK))
    inputs = {features.INPUT_IDS: ids, features.INPUT_MASK: mask, features.SEGMENT_IDS: tf.zeros_like(ids)}
    options |= {"training": training, "words": None if words is None else _apart(words)}
    if pooling == "cls":
        options["positions"] = tf.zeros([tf.shape(ids)[0], 1], tf.int32)
    states = tf.cast(encoder(inputs, **options)["sequence_output"], tf.float32)
    if pooling == "cls":
        vectors = states[:, 0]
    else:  # a row that only fills the batch has no token
        weights = tf.cast(mask, tf.float32)
        vectors = tf.einsum("bl,blh->bh", weights, states) / tf.maximum(tf.reduce_sum(weights, 1, keepdims=True), 1)
    first_BH, second_BH = tf.split(tf.math.l2_normalize(vectors, -1), 2)
    return tf.reduce_sum(first_BH * second_BH, -1)


def _apart(values: tf.Tensor) -> tf.Tensor:
    """[B, 2 L, ...], of two texts in turn -> [2 B, L, ...], the first texts and then the second ones."""
    rest = values.shape[2:].as_list()
    batch, length = tf.unstack(tf.shape(values)[:2])
    apart = tf.reshape(values, [batch, length // 2, 2, *rest])
    order = [2, 0, 1, *range(3, 3 + len(rest))]
    return tf.reshape(tf.transpose(apart, order), [2 * batch, length // 2, *rest])


def _one_behind_the_other(values: tf.Tensor) -> tf.Tensor:
    """[B, 2 L], of two texts in turn -> the first and then the second."""
    return tf.concat([values[:, ::2], values[:, 1::2]], 1)
