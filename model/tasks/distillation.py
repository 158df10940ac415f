"""Distillation: a student learns what its teacher says of masked tokens, and to see tokens and texts as it does.

The losses are DistilBERT's (Sanh et al. 2019, arXiv 1910.01108; `distiller.py` of Hugging Face's research projects): of
the predictions, the divergence of the student's answer from the teacher's, both softened by a temperature T, times T
squared, and the cross entropy of the right token; of all real tokens, 1 - the cosine of both last hidden states. Also,
of each text, 1 - the cosine of both means over its tokens. A student of another width, for which there are no such
cosines, learns MiniLM's relations (`model.tasks.relations`). A teacher without a masked-language head has hidden states
to teach, and nothing else.

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
from model.tasks import relations
from model.tasks.pretraining import NO_PREDICTIONS, baselines, filled_masks
from model.tasks.task import Curve
from preprocessing import features
from preprocessing.errors import InputError, require

_OF_PREDICTIONS = ("divergence", "masked_lm_loss", "masked_lm_accuracy")
WEIGHTS = ("soft", "masked", "cosine", "pooled", "relations")


@dataclasses.dataclass(frozen=True)
class Distillation:
    """A `model.tasks.task.Task`.

    Figures, means: where student and teacher are of one width `cosine`, of tokens, and `pooled`, of texts; `relations`
    in nats, where they are taught; where the teacher has a masked-language head `divergence` in nats, at the
    temperature, `masked_lm_loss` and `masked_lm_accuracy`, and of held-out examples the teacher's own of both, and
    `baselines`.

    Attributes:
        teacher: is not changed.
        temperature: by which logits are divided.
        soft, masked, cosine, pooled, relations: the weights of the losses.
        hidden_size: of the student; None: the teacher's.
        relation_layer: of the teacher, from 0, or from -1 down; the student's is its last.
        relation_heads: into so many both layers are cut; None: as many as the teacher has attention heads, or fewer
            where the student's width wants it.
    """

    teacher: BertEncoder
    temperature: float = 2.0
    soft: float = 5.0
    masked: float = 2.0
    cosine: float = 1.0
    pooled: float = 0.0
    relations: float = 0.0
    hidden_size: int | None = None
    relation_layer: int = -1
    relation_heads: int | None = None

    spec = features.MASKED_PAIRS

    def __post_init__(self):
        require(0 < self.temperature < math.inf, "temperature must be positive", self.temperature)
        for name in WEIGHTS:
            require(0 <= getattr(self, name) < math.inf, f"the weight {name} must be 0 or more", getattr(self, name))
        of_teacher = self.teacher.settings
        for name in () if self.of_one_width else ("cosine", "pooled"):
            require(
                not getattr(self, name),
                f"the weight {name} must be 0 for a student of another width than its teacher's "
                f"({of_teacher.hidden_size}): relations are learned at any",
                getattr(self, name),
            )
        require(
            self.of_one_width or self.relations > 0 or (self.speaks and self.soft + self.masked > 0),
            "the weight relations must be above 0: there is nothing else that this teacher could teach a student of "
            "another width",
            self.relations,
        )
        known = of_teacher.num_layers
        require(-known <= self.relation_layer < known, f"relation_layer must be one of {known}", self.relation_layer)
        widths = {of_teacher.hidden_size, self.hidden_size or of_teacher.hidden_size}
        require(
            not self.relations or (self._heads > 0 and not any(width % self._heads for width in widths)),
            f"relation_heads must divide the widths of teacher and student {tuple(sorted(widths))}",
            self._heads,
        )

    @property
    def _heads(self) -> int:
        if self.relation_heads is not None:
            return self.relation_heads
        return math.gcd(self.teacher.settings.num_heads, self.hidden_size or self.teacher.settings.hidden_size)

    @property
    def of_one_width(self) -> bool:
        """Whether the hidden states of student and teacher can be compared."""
        return self.hidden_size in (None, self.teacher.settings.hidden_size)

    @property
    def speaks(self) -> bool:
        """Whether the teacher has something to say of masked tokens."""
        return self.teacher.masked_lm is not None

    @property
    def heads(self):
        return (MASKED_LM,) if self.speaks else ()

    @functools.cached_property
    def description(self):
        values = {name: getattr(self, name) for name in ("temperature", *WEIGHTS, "relation_layer", "relation_heads")}
        return {"kind": "distillation", "teacher": digest_of(self.teacher), **values}

    @property
    def _seen(self) -> dict[str, str]:
        """Figures of hidden states, and by which sum each one's is divided."""
        of_states = {"cosine": "compared", "pooled": "texts"} if self.of_one_width else {}
        return of_states | ({"relations": "compared"} if self.relations else {})

    @property
    def sum_names(self):
        of_predictions = (*_OF_PREDICTIONS, "predictions") if self.speaks else ()
        return (*of_predictions, *self._seen, "compared", "texts")

    @property
    def watched(self):
        if self.speaks:
            return "divergence"
        return "relations" if not self.of_one_width else "pooled" if self.pooled else "cosine"

    @property
    def lower_is_better(self):
        return self.watched not in ("cosine", "pooled")

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
        of_states = (
            Curve("Cosine with the teacher's hidden states", "cosine", shown="cosine"),
            Curve("Cosine with the teacher's mean over the tokens", "pooled", shown="pooled"),
            Curve("Divergence from the teacher's relations (nats)", "relations", shown="relations"),
        )
        seen = tuple(curve for curve in of_states if curve.figure in self._seen)
        return (*of_predictions, *seen) if self.speaks else seen

    def check(self, settings, examples, transform):
        require(not (self.relations and settings.recompute), "recompute must be off with relations", settings.recompute)
        if self.speaks and transform is None and not examples.sums[features.MASKED_LM_WEIGHTS]:
            raise InputError(
                f"{examples.files[0]}: the examples must have masked tokens to predict. Received: none; they were "
                "written with masking none, which is for masking at training time"
            )

    def totals(self, batch):
        mask = tf.cast(batch[features.INPUT_MASK], tf.float32)
        totals = {"compared": tf.reduce_sum(mask), "texts": tf.reduce_sum(mask[:, 0])}
        return totals | ({"predictions": tf.reduce_sum(batch[features.MASKED_LM_WEIGHTS])} if self.speaks else {})

    def sums(self, encoder, batch, **options):
        return self._compared(encoder, batch, **options)[0] | self.totals(batch)

    def _compared(self, encoder, batch, **options):
        """(sums but for the totals, the teacher's logits float32 [B, P, V] or None)"""
        mask_BL = tf.cast(batch[features.INPUT_MASK], tf.float32)
        wanted = {"projections": True} if self.relations else {}
        teacher, student = self.teacher(batch, **wanted), encoder(batch, **options, **wanted)
        theirs_BLH, ours_BLH = tf.stop_gradient(teacher["sequence_output"]), student["sequence_output"]
        sums = {}
        if self.of_one_width:
            states = [tf.cast(states, tf.float32) for states in (ours_BLH, theirs_BLH)]
            sums["cosine"] = tf.reduce_sum(_cosine(*states) * mask_BL)
            means = [tf.einsum("bl,blh->bh", mask_BL, of) for of in states]  # the length of a vector does not matter
            sums["pooled"] = tf.reduce_sum(_cosine(*means) * mask_BL[:, 0])
        if self.relations:
            theirs = [tf.stop_gradient(of) for of in teacher["projections"][self.relation_layer]]
            apart_BL = relations.divergence(student["projections"][-1], theirs, mask_BL, self._heads)
            sums["relations"] = tf.reduce_sum(apart_BL * mask_BL)
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
        losses = []
        for name, of in self._seen.items():
            apart = sums[name] if name == "relations" else sums[of] - sums[name]
            losses.append(getattr(self, name) * apart / tf.maximum(totals[of], 1.0))
        if self.speaks:
            of_predictions = self.soft * self.temperature**2 * sums["divergence"] + self.masked * sums["masked_lm_loss"]
            losses.append(of_predictions / (totals["predictions"] + NO_PREDICTIONS))
        return tf.add_n(losses)

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
        figures = {name: float(sums[name]) / (float(sums[of]) or math.nan) for name, of in self._seen.items()}
        names = [name for name in sums if name.removeprefix("teacher_") in _OF_PREDICTIONS]
        figures |= {name: float(sums[name]) / (float(sums["predictions"]) or math.nan) for name in names}
        return figures | baselines(np.asarray(sums["label_counts"])) if "label_counts" in sums else figures

    def samples(self, encoder, batch, tokens):
        if not self.speaks:
            return {}
        logits = encoder.masked_lm(encoder(batch)["sequence_output"], batch[features.MASKED_LM_POSITIONS])
        arrays = {name: value.numpy() for name, value in batch.items()}
        return {"filled_masks": filled_masks(arrays, tf.argmax(logits, -1).numpy(), tokens)}


def _cosine(first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
    """Of vectors along the last axis."""
    return tf.reduce_sum(tf.math.l2_normalize(first, -1) * tf.math.l2_normalize(second, -1), -1)


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
