"""Classification: one of C labels for a text or a pair, from the pooled output.

Shapes: B batch, C labels, `()` a scalar.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from model.encoder import operations
from model.encoder.heads import CLASSIFIER
from model.settings import Pooling, Watched
from model.tasks.pretraining import real_examples
from model.tasks.task import Curve
from preprocessing import features
from preprocessing.errors import InputError, require, require_one_of

# Folded into a step's seed: the head's dropout is not one of the encoder's.
HEAD_DROPOUT = 0x48454144


@dataclasses.dataclass(frozen=True)
class Classification:
    """A `model.tasks.task.Task`. The loss is the mean cross entropy, each row weighted by its class.

    Figures: `cross_entropy` in nats and `accuracy`; of held-out examples also `macro_f1`, `matthews` and
    `majority_accuracy`, that of always saying the commonest label. A row whose label is none of them is an error, and
    has no cross entropy.

    Attributes:
        labels: how many there are.
        class_weights: of each label; (): all alike.
        watched: the figure by which the best model is chosen.
        pooling: what the head stands on.
    """

    labels: int
    class_weights: tuple[float, ...] = ()
    watched: Watched = "accuracy"
    pooling: Pooling = "cls"

    sum_names = ("nll", "right", "weight", "rows")
    curves = (
        Curve("Cross entropy (nats)", "cross_entropy"),
        Curve("Accuracy", "accuracy", "majority_accuracy", "commonest label", shown="accuracy"),
    )

    def __post_init__(self):
        require(self.labels > 1, "a classification needs at least two labels", self.labels)
        require_one_of(Watched, "watched", self.watched)
        check_weights(self.class_weights, self.labels)

    @property
    def heads(self):
        return (CLASSIFIER.with_labels(self.labels),)

    @property
    def spec(self):
        return features.classified(self.labels)

    @property
    def lower_is_better(self):
        return self.watched == "cross_entropy"

    @property
    def description(self):
        settings = {"labels": self.labels, "class_weights": list(self.class_weights), "watched": self.watched}
        return {"kind": "classification", **settings, "pooling": self.pooling}

    def check(self, settings, examples, transform):
        if transform is not None:
            raise InputError(f"{examples.files[0]}: examples of a classification are not to be masked")

    def totals(self, batch):
        has_label_B = tf.cast(batch[features.LABEL_IDS][:, 0] < self.labels, tf.float32)  # all but a teacher's alone
        rows = tf.reduce_sum(has_label_B * real_examples(batch))
        return {"weight": tf.reduce_sum(self._weights(batch)), "rows": rows}

    def sums(self, encoder, batch, **options):
        return self.sums_of(self.logits(encoder, batch, **options), batch)

    def logits(self, encoder, batch, **options):
        return pooled_logits(encoder, batch, self.pooling, **options)

    def asked(self, batch):
        return real_examples(batch)

    def sums_of(self, logits_BC, batch):
        labels_B = batch[features.LABEL_IDS][:, 0]
        nll_B = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.minimum(labels_B, self.labels - 1), logits_BC)
        right_B = tf.cast(tf.argmax(logits_BC, -1, tf.int32) == labels_B, tf.float32) * real_examples(batch)
        nll = tf.reduce_sum(self._weights(batch) * nll_B)
        return {"nll": nll, "right": tf.reduce_sum(right_B)} | self.totals(batch)

    def loss(self, sums, totals):
        return sums["nll"] / tf.maximum(totals["weight"], 1e-5)

    def held_out(self, encoder, batch):
        logits_BC, labels_B = self.logits(encoder, batch), batch[features.LABEL_IDS][:, 0]
        nll_B = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.minimum(labels_B, self.labels - 1), logits_BC)
        cell_B = labels_B * self.labels + tf.argmax(logits_BC, -1, tf.int32)
        cells = (self.labels + 1) * self.labels
        return {
            "nll": tf.reduce_sum(self._weights(batch) * nll_B),
            "weight": tf.reduce_sum(self._weights(batch)),
            "confusion": tf.math.unsorted_segment_sum(real_examples(batch), cell_B, cells),
        }

    def figures(self, sums: Mapping[str, np.ndarray | float]) -> dict[str, float]:
        figures = {"cross_entropy": float(sums["nll"]) / (float(sums["weight"]) or math.nan)}
        if "confusion" in sums:
            return figures | scores(np.reshape(sums["confusion"], [self.labels + 1, self.labels]))
        return figures | {"accuracy": float(sums["right"]) / (float(sums["rows"]) or math.nan)}

    def samples(self, encoder, batch, tokens):
        probabilities = tf.nn.softmax(self.logits(encoder, batch)).numpy()
        rows = zip(batch[features.INPUT_IDS].numpy(), batch[features.INPUT_MASK].numpy(),
                   batch[features.LABEL_IDS][:, 0].numpy(), probabilities, strict=True)  # fmt: skip
        lines = ["| label | answer | probability | text |", "|---|---|---|---|"]
        for ids, mask, label, shares in rows:
            text = " ".join(tokens[number] for number in ids[mask > 0]).replace(" ##", "").replace("|", "\\|")
            lines.append(f"| {label} | {shares.argmax()} | {shares.max():.3f} | {text} |")
        return {"answers": "\n".join(lines)}

    def _weights(self, batch) -> tf.Tensor:
        """float32 [B]: 0 for a row without one of the labels, and for one that only fills the batch."""
        labels_B = batch[features.LABEL_IDS][:, 0]
        weights = tf.constant([*(self.class_weights or [1.0] * self.labels), 0.0])
        return tf.gather(weights, labels_B) * real_examples(batch)


def pooled_logits(encoder, batch, pooling: Pooling = "cls", training: bool | None = False, seed=None, **options):
    """The classifier's, float32 [B, C], over the pooler's output or the mean over the tokens. In training, dropout
    before the head, as the encoder's; else, unless `training` is None, only as long as the longest, which compiled code
    cannot have."""
    if training is False:
        longest = tf.reduce_max(tf.reduce_sum(batch[features.INPUT_MASK], 1))
        batch = {name: batch[name][:, : tf.maximum(longest, 1)] for name in features.SEQUENCE_FEATURES}
    if pooling == "cls":
        first_B1 = tf.zeros([tf.shape(batch[features.INPUT_IDS])[0], 1], tf.int32)
        pooled_BH = encoder(batch, training=bool(training), seed=seed, positions=first_B1, **options)["pooled_output"]
    else:
        tokens_BLH = encoder(batch, training=bool(training), seed=seed, **options)["sequence_output"]
        mask_BL = tf.cast(batch[features.INPUT_MASK], tf.float32)
        sum_BH = tf.einsum("bl,blh->bh", mask_BL, tf.cast(tokens_BLH, tf.float32))
        pooled_BH = tf.cast(sum_BH / tf.maximum(tf.reduce_sum(mask_BL, 1, keepdims=True), 1), tokens_BLH.dtype)
    if training and seed is not None:
        seed = tf.random.experimental.stateless_fold_in(seed, HEAD_DROPOUT)
        pooled_BH = operations.dropout(pooled_BH, encoder.settings.dropout, seed)
    return encoder.classifier(pooled_BH)


def check_weights(weights: Sequence[float], labels: int) -> None:
    """Raises InputError where they are not those of so many labels, or none."""
    rule = f"there must be a class weight, a finite number above 0, for each of the {labels} labels"
    good = all(0 < weight < math.inf for weight in weights)
    require(good and len(weights) in (0, labels), rule, weights)


def balanced(counts: Sequence[int]) -> tuple[float, ...]:
    """Weights by which each label counts alike, the mean over all rows being 1 (scikit-learn's "balanced"); 1 for a
    label without rows."""
    rows = np.asarray(counts, float)
    present = rows > 0
    return tuple(np.where(present, rows.sum() / (present.sum() * np.maximum(rows, 1)), 1.0).tolist())


def scores(confusion: np.ndarray) -> dict[str, float]:
    """Accuracy, macro F1, Matthews' coefficient and the majority's accuracy, from the number of rows [C + 1, C] of each
    label, the last row those of none, that were given each label. As scikit-learn: a label that neither is there nor
    was said has F1 0; a coefficient without variance is 0."""
    total = confusion.sum()
    if not total:
        return dict.fromkeys(("accuracy", "macro_f1", "matthews", "majority_accuracy"), math.nan)
    right, gold, said = np.trace(confusion), confusion.sum(1), confusion.sum(0)
    covariance = right * total - (gold[:-1] * said).sum()
    variance = (total**2 - (gold**2).sum()) * (total**2 - (said**2).sum())
    return {
        "accuracy": float(right / total),
        "macro_f1": float(f1(confusion).mean()),
        "matthews": float(covariance / np.sqrt(variance)) if variance else 0.0,
        "majority_accuracy": float(gold[:-1].max() / total),
    }


def f1(confusion: np.ndarray) -> np.ndarray:
    """F1 of each label [C], from [C + 1, C] as `scores`."""
    right, gold, said = np.diagonal(confusion), confusion.sum(1)[:-1], confusion.sum(0)
    return 2 * right / np.maximum(gold + said, 1)
