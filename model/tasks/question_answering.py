"""Question answering: where in a window of the context the answer begins and ends; at [CLS] where it is not in it.

Shapes: B batch, L length, `()` a scalar.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Literal

import numpy as np
import tensorflow as tf

from model.encoder.heads import SPAN
from model.tasks.pretraining import real_examples
from model.tasks.task import Curve
from preprocessing import features
from preprocessing.errors import InputError, require_one_of

Watched = Literal["exact", "cross_entropy"]
MASKED = -1e9  # the logit of padding
# Thresholds that are tried: so many, of logits to both sides of zero.
THRESHOLDS, REACH = 400, 20.0


@dataclasses.dataclass(frozen=True)
class QuestionAnswering:
    """A `model.tasks.task.Task`. The loss is the mean of the cross entropies of start and end, as in run_squad.

    Figures, all by window: `cross_entropy` in nats and `exact`, the share of which the likeliest start and the
    likeliest end are right; of held-out examples also `exact_answers`, that of windows with an answer, and
    `no_answer_share`, how many have none. Their `exact` is at the threshold of no answer that is best for it: one is
    chosen on dev in the end, and at zero a model that never answers may seem the best. What is served is judged by the
    text of whole questions, and is better: it knows that a start must not stand behind its end.
    """

    watched: Watched = "exact"

    heads = (SPAN,)
    spec = features.ANSWERED
    sum_names = ("nll", "right", "windows")
    curves = (
        Curve("Cross entropy (nats)", "cross_entropy"),
        Curve("Exact spans", "exact", "no_answer_share", "never an answer", shown="exact"),
    )

    def __post_init__(self):
        require_one_of(Watched, "watched", self.watched)

    @property
    def lower_is_better(self):
        return self.watched == "cross_entropy"

    @property
    def description(self):
        return {"kind": "question answering", "watched": self.watched}

    def check(self, settings, examples, transform):
        if transform is not None:
            raise InputError(f"{examples.files[0]}: examples of question answering are not to be masked")

    def totals(self, batch):
        return {"windows": tf.reduce_sum(real_examples(batch))}

    def sums(self, encoder, batch, **options):
        nll_B, right_B = _judged(self.logits(encoder, batch, **options), batch)
        return {"nll": tf.reduce_sum(nll_B), "right": tf.reduce_sum(right_B)} | self.totals(batch)

    def logits(self, encoder, batch, training=False, **options) -> tf.Tensor:
        """float32 [B, L, 2] of start and end. Except in training, L is only as long as the longest."""
        if not training:
            longest = tf.reduce_max(tf.reduce_sum(batch[features.INPUT_MASK], 1))
            batch = {name: batch[name][:, : tf.maximum(longest, 1)] for name in features.SEQUENCE_FEATURES}
        logits_BL2 = encoder.span(encoder(batch, training=training, **options)["sequence_output"])
        return tf.where(batch[features.INPUT_MASK][:, :, None] > 0, logits_BL2, MASKED)

    def loss(self, sums, totals):
        return sums["nll"] / tf.maximum(totals["windows"], 1e-5)

    def held_out(self, encoder, batch):
        logits_BL2 = self.logits(encoder, batch)
        nll_B, right_B = _judged(logits_BL2, batch)
        has_answer_B = tf.cast(batch[features.START_POSITIONS][:, 0] > 0, tf.float32)
        found = {"answers": tf.reduce_sum(has_answer_B), "right_answers": tf.reduce_sum(right_B * has_answer_B)}
        # By how far the likeliest span is likelier than none.
        spans_BL2 = logits_BL2[:, 1:]
        ahead_B = tf.reduce_sum(tf.reduce_max(spans_BL2, 1) - logits_BL2[:, 0], -1)
        place_B = tf.clip_by_value((ahead_B / REACH + 1) * (THRESHOLDS / 2), 0, THRESHOLDS - 1)
        places_BN = tf.one_hot(tf.cast(place_B, tf.int32), THRESHOLDS)
        labels_B2 = tf.concat([batch[features.START_POSITIONS], batch[features.END_POSITIONS]], 1)
        same_B2 = tf.argmax(spans_BL2, 1, tf.int32) + 1 == labels_B2
        said_B = tf.cast(tf.reduce_all(same_B2, 1), tf.float32) * has_answer_B
        none_B = real_examples(batch) * (1 - has_answer_B)
        found |= {"spans": tf.linalg.matvec(places_BN, said_B, True), "none": tf.linalg.matvec(places_BN, none_B, True)}
        return {"nll": tf.reduce_sum(nll_B)} | found | self.totals(batch)

    def figures(self, sums: Mapping[str, np.ndarray | float]) -> dict[str, float]:
        windows = float(sums["windows"]) or math.nan
        figures = {"cross_entropy": float(sums["nll"]) / windows}
        if "right" in sums:
            figures["exact"] = float(sums["right"]) / windows
        else:
            spans, none = (np.asarray(sums[name], float) for name in ("spans", "none"))
            right = np.append(spans[::-1].cumsum()[::-1], 0) + np.append(0, none.cumsum())  # by threshold
            figures["exact"] = float(right.max()) / windows
            figures["exact_answers"] = float(sums["right_answers"]) / (float(sums["answers"]) or math.nan)
            figures["no_answer_share"] = 1 - float(sums["answers"]) / windows
        return figures

    def samples(self, encoder, batch, tokens):
        starts, ends = np.argmax(self.logits(encoder, batch), 1).T
        lines = ["| question | answer | label |", "|---|---|---|"]
        for row, ids in enumerate(batch[features.INPUT_IDS].numpy()):
            first = (batch[features.INPUT_MASK][row].numpy() > 0) & (batch[features.SEGMENT_IDS][row].numpy() == 0)
            question = ids[first][1:-1]
            label = [int(batch[name][row, 0]) for name in (features.START_POSITIONS, features.END_POSITIONS)]
            texts = (question, ids[starts[row] : ends[row] + 1], ids[label[0] : label[1] + 1])
            lines.append("| " + " | ".join(_text(part, tokens) for part in texts) + " |")
        return {"answers": "\n".join(lines)}


def _judged(logits_BL2: tf.Tensor, batch) -> tuple[tf.Tensor, tf.Tensor]:
    """float32 [B]: cross entropy, and 1 where the likeliest span is the right one; 0 for what fills the batch."""
    nll_B, right_B = 0.0, real_examples(batch)
    for end, name in enumerate((features.START_POSITIONS, features.END_POSITIONS)):
        logits_BL, place_B = logits_BL2[:, :, end], batch[name][:, 0]
        nll_B += tf.nn.sparse_softmax_cross_entropy_with_logits(place_B, logits_BL) / 2
        right_B *= tf.cast(tf.argmax(logits_BL, -1, tf.int32) == place_B, tf.float32)
    return nll_B * real_examples(batch), right_B


def _text(ids: np.ndarray, tokens) -> str:
    return " ".join(tokens[number] for number in ids).replace(" ##", "").replace("|", "\\|")
