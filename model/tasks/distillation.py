"""Distillation: a student learns what its teacher says of masked tokens, and to see every token as it does.

The losses are DistilBERT's (Sanh et al. 2019, arXiv 1910.01108; `distiller.py` of Hugging Face's research projects): of
the predictions, the divergence of the student's answer from the teacher's, both softened by a temperature T, times T
squared, and the cross entropy of the right token; of all real tokens, 1 - the cosine of both last hidden states. A
teacher without a masked-language head has hidden states to teach, and nothing else.

Legend: B batch, L length, H hidden, P predictions, V vocabulary, `()` a scalar.
"""

import dataclasses
import functools
import hashlib
import math
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from model.encoder import BertEncoder
from model.encoder.heads import MASKED_LM
from model.tasks.pretraining import NO_PREDICTIONS, baselines, filled_masks
from model.tasks.task import Curve
from preprocessing import features
from preprocessing.errors import InputError, require

_OF_PREDICTIONS = ("divergence", "masked_lm_loss", "masked_lm_accuracy")


@dataclasses.dataclass(frozen=True)
class Distillation:
    """A `model.tasks.task.Task`. Student and teacher must be of one width.

    Figures, means: `cosine`; where the teacher has a masked-language head `divergence` in nats, at the temperature,
    `masked_lm_loss` and `masked_lm_accuracy`, and of held-out examples the teacher's own of both, and `baselines`.

    Attributes:
        teacher: is not changed.
        temperature: by which logits are divided.
        soft, masked, cosine: the weights of the three losses.
    """

    teacher: BertEncoder
    temperature: float = 2.0
    soft: float = 5.0
    masked: float = 2.0
    cosine: float = 1.0

    spec = features.MASKED_PAIRS

    def __post_init__(self):
        require(0 < self.temperature < math.inf, "temperature must be positive", self.temperature)
        for name in ("soft", "masked", "cosine"):
            require(0 <= getattr(self, name) < math.inf, f"the weight {name} must be 0 or more", getattr(self, name))

    @property
    def speaks(self) -> bool:
        """Whether the teacher has something to say of masked tokens."""
        return self.teacher.masked_lm is not None

    @property
    def heads(self):
        return (MASKED_LM,) if self.speaks else ()

    @functools.cached_property
    def description(self):
        values = {name: getattr(self, name) for name in ("temperature", "soft", "masked", "cosine")}
        return {"kind": "distillation", "teacher": digest_of(self.teacher), **values}

    @property
    def sum_names(self):
        of_predictions = (*_OF_PREDICTIONS, "predictions") if self.speaks else ()
        return (*of_predictions, "cosine", "compared")

    @property
    def watched(self):
        return "divergence" if self.speaks else "cosine"

    @property
    def lower_is_better(self):
        return self.speaks

    @property
    def curves(self):
        of_predictions = (
            Curve("Divergence from the teacher (nats)", "divergence", shown="divergence"),
            Curve("Masked-token loss (nats)", "masked_lm_loss", "teacher_masked_lm_loss", "teacher"),
            Curve(
                "Masked-token accuracy",
                "masked_lm_accuracy",
                "teacher_masked_lm_accuracy",
                "teacher",
                shown="masked accuracy",
            ),
        )
        seen = Curve("Cosine with the teacher's hidden states", "cosine", shown="cosine")
        return (*of_predictions, seen) if self.speaks else (seen,)

    def check(self, settings, examples, transform):
        if self.speaks and transform is None and not examples.sums[features.MASKED_LM_WEIGHTS]:
            raise InputError(
                f"{examples.files[0]}: the examples must have masked tokens to predict. Received: none; they were "
                "written with masking none, which is for masking at training time"
            )

    def totals(self, batch):
        totals = {"compared": tf.reduce_sum(tf.cast(batch[features.INPUT_MASK], tf.float32))}
        return totals | ({"predictions": tf.reduce_sum(batch[features.MASKED_LM_WEIGHTS])} if self.speaks else {})

    def sums(self, encoder, batch, **options):
        return self._compared(encoder, batch, **options)[0] | self.totals(batch)

    def _compared(self, encoder, batch, **options):
        """(sums but for the totals, the teacher's logits float32 [B, P, V] or None)"""
        theirs_BLH = tf.stop_gradient(self.teacher(batch)["sequence_output"])
        ours_BLH = encoder(batch, **options)["sequence_output"]
        directions = (tf.math.l2_normalize(tf.cast(states, tf.float32), -1) for states in (ours_BLH, theirs_BLH))
        cosine_BL = tf.reduce_sum(tf.multiply(*directions), -1)
        sums = {"cosine": tf.reduce_sum(cosine_BL * tf.cast(batch[features.INPUT_MASK], tf.float32))}
        if self.teacher.masked_lm is None:
            return sums, None
        positions_BP, labels_BP = batch[features.MASKED_LM_POSITIONS], batch[features.MASKED_LM_IDS]
        ours_BPV = encoder.masked_lm(ours_BLH, positions_BP)
        theirs_BPV = tf.stop_gradient(self.teacher.masked_lm(theirs_BLH, positions_BP))
        ours, theirs = (tf.nn.log_softmax(logits / self.temperature) for logits in (ours_BPV, theirs_BPV))
        divergence_BP = tf.reduce_sum(tf.exp(theirs) * (theirs - ours), -1)
        of_predictions = zip(_OF_PREDICTIONS, (divergence_BP, *_judged(ours_BPV, labels_BP)), strict=True)
        weights_BP = batch[features.MASKED_LM_WEIGHTS]
        return sums | {name: tf.reduce_sum(weights_BP * of) for name, of in of_predictions}, theirs_BPV

    def loss(self, sums, totals):
        loss = self.cosine * (sums["compared"] - sums["cosine"]) / tf.maximum(totals["compared"], 1.0)
        if self.speaks:
            of_predictions = self.soft * self.temperature**2 * sums["divergence"] + self.masked * sums["masked_lm_loss"]
            loss += of_predictions / (totals["predictions"] + NO_PREDICTIONS)
        return loss

    def held_out(self, encoder, batch):
        sums, theirs_BPV = self._compared(encoder, batch)
        sums |= self.totals(batch)
        if theirs_BPV is None:
            return sums
        labels_BP, weights_BP = batch[features.MASKED_LM_IDS], batch[features.MASKED_LM_WEIGHTS]
        for name, of in zip(_OF_PREDICTIONS[1:], _judged(theirs_BPV, labels_BP), strict=True):
            sums[f"teacher_{name}"] = tf.reduce_sum(weights_BP * of)
        flat = (tf.reshape(values, [-1]) for values in (weights_BP, labels_BP))
        return sums | {"label_counts": tf.math.unsorted_segment_sum(*flat, encoder.settings.vocab_size)}

    def figures(self, sums: Mapping[str, np.ndarray | float]) -> dict[str, float]:
        figures = {"cosine": float(sums["cosine"]) / (float(sums["compared"]) or math.nan)}
        names = [name for name in sums if name.removeprefix("teacher_") in _OF_PREDICTIONS]
        figures |= {name: float(sums[name]) / (float(sums["predictions"]) or math.nan) for name in names}
        return figures | baselines(np.asarray(sums["label_counts"])) if "label_counts" in sums else figures

    def samples(self, encoder, batch, tokens):
        if not self.speaks:
            return {}
        logits = encoder.masked_lm(encoder(batch)["sequence_output"], batch[features.MASKED_LM_POSITIONS])
        arrays = {name: value.numpy() for name, value in batch.items()}
        return {"filled_masks": filled_masks(arrays, tf.argmax(logits, -1).numpy(), tokens)}


def _judged(logits_BPV: tf.Tensor, labels_BP: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """(negative log likelihood, 1 where the label is the likeliest), float32 [B, P]."""
    nll_BP = tf.nn.sparse_softmax_cross_entropy_with_logits(labels_BP, logits_BPV)
    return nll_BP, tf.cast(tf.argmax(logits_BPV, -1, labels_BP.dtype) == labels_BP, tf.float32)


def digest_of(encoder: BertEncoder) -> str:
    """What tells its weights from others."""
    digest = hashlib.sha256()
    for weight in encoder.weights:
        digest.update(weight.numpy().tobytes())
    return digest.hexdigest()[:16]
