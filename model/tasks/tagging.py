"""Tagging: one of C tags for each word, from the states of its first piece.

Shapes: B batch, L length, C tags, M words, `()` a scalar.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Literal

import numpy as np
import tensorflow as tf

from model.encoder import operations
from model.encoder.heads import TAGGER
from model.tasks import classification, entities
from model.tasks.classification import HEAD_DROPOUT
from model.tasks.task import Curve
from preprocessing import features
from preprocessing.errors import InputError, require, require_one_of
from preprocessing.tags import Reading, reading

Watched = Literal["accuracy", "macro_f1", "entity_f1", "cross_entropy"]
_ENTITIES = ("entities", "entities_said", "entities_right", "strict_said", "strict_right")


@dataclasses.dataclass(frozen=True)
class Tagging:
    """A `model.tasks.task.Task`. The loss is the mean cross entropy of words, each weighted by its tag.

    Figures: `cross_entropy` in nats and `accuracy`, of words; of held-out examples also `macro_f1` of tags,
    `majority_accuracy`, that of always saying the commonest tag, and where the tags, in IOB2, mark entities,
    `entity_precision`, `entity_recall`, `entity_f1` (an entity is right if its first and last word and its type are;
    tags are read as seqeval does unless it is told to be strict) and `entity_f1_strict` (what is said counts only where
    it keeps IOB2). A word whose tag is none of them is an error, and has no cross entropy. What is longer than a window
    is counted by windows here, so that an entity across the end of one counts as two.

    Attributes:
        tags: by number.
        watched: the figure by which the best model is chosen.
        class_weights: of each tag; (): all alike.
    """

    tags: tuple[str, ...]
    watched: Watched = "accuracy"
    class_weights: tuple[float, ...] = ()

    sum_names = ("nll", "right", "weight", "words")
    curves = (
        Curve("Cross entropy (nats)", "cross_entropy"),
        Curve("Accuracy", "accuracy", "majority_accuracy", "commonest tag", shown="accuracy"),
    )

    def __post_init__(self):
        require(len(self.tags) > 1, "tagging needs at least two tags", self.tags)
        require_one_of(Watched, "watched", self.watched)
        classification.check_weights(self.class_weights, self.labels)
        fits = self._reading is not None or self.watched != "entity_f1"
        require(fits, "entity_f1 needs tags that mark entities, like B-PER", self.tags[:3])

    @property
    def labels(self) -> int:
        return len(self.tags)

    @property
    def heads(self):
        return (TAGGER.with_labels(self.labels),)

    @property
    def spec(self):
        return features.tagged(self.labels)

    @property
    def lower_is_better(self):
        return self.watched == "cross_entropy"

    @property
    def description(self):
        weights = list(self.class_weights)
        return {"kind": "tagging", "tags": list(self.tags), "class_weights": weights, "watched": self.watched}

    @property
    def _reading(self) -> Reading | None:
        return reading(self.tags)

    def check(self, settings, examples, transform):
        if transform is not None:
            raise InputError(f"{examples.files[0]}: examples of tagging are not to be masked")

    def totals(self, batch):
        tags_BL = batch[features.TAG_IDS]
        has_tag_BL = (tags_BL > 0) & (tags_BL <= self.labels)  # all words but a teacher's alone
        words = tf.reduce_sum(tf.cast(has_tag_BL, tf.float32))
        return {"words": words, "weight": tf.reduce_sum(self._weights(tags_BL))}

    def sums(self, encoder, batch, **options):
        return self.sums_of(self.logits(encoder, batch, **options), batch)

    def asked(self, batch):
        return tf.cast(batch[features.TAG_IDS] > 0, tf.float32)

    def sums_of(self, logits_BLC, batch):
        tags_BL = batch[features.TAG_IDS]
        right_BL = (tags_BL > 0) & (tf.argmax(logits_BLC, -1, tf.int32) == tags_BL - 1)
        right = tf.reduce_sum(tf.cast(right_BL, tf.float32))
        return {"nll": self._nll(logits_BLC, tags_BL), "right": right} | self.totals(batch)

    def logits(self, encoder, batch, training=False, seed=None, **options) -> tf.Tensor:
        """float32 [B, L, C]. In training, dropout before the head, as the encoder's."""
        states_BLH = encoder(batch, training=training, seed=seed, **options)["sequence_output"]
        if training and seed is not None:
            seed = tf.random.experimental.stateless_fold_in(seed, HEAD_DROPOUT)
            states_BLH = operations.dropout(states_BLH, encoder.settings.dropout, seed)
        return encoder.tagger(states_BLH)

    def loss(self, sums, totals):
        return sums["nll"] / tf.maximum(totals["weight"], 1e-5)

    def held_out(self, encoder, batch):
        logits_BLC, tags_BL = self.logits(encoder, batch), batch[features.TAG_IDS]
        places = tf.where(tags_BL > 0)
        gold_M = tf.gather_nd(tags_BL, places) - 1  # C where it is none of the tags
        said_M = tf.gather_nd(tf.argmax(logits_BLC, -1, tf.int32), places)
        confusion = tf.math.unsorted_segment_sum(
            tf.ones_like(gold_M, tf.float32), gold_M * self.labels + said_M, (self.labels + 1) * self.labels
        )
        sums = {"nll": self._nll(logits_BLC, tags_BL), "weight": self.totals(batch)["weight"], "confusion": confusion}
        is_first_M = tf.concat([[True], places[1:, 0] != places[:-1, 0]], 0)[: tf.size(gold_M)]
        return sums | self._counts(gold_M, said_M, is_first_M)

    def figures(self, sums: Mapping[str, np.ndarray | float]) -> dict[str, float]:
        figures = {"cross_entropy": float(sums["nll"]) / (float(sums["weight"]) or math.nan)}
        if "confusion" not in sums:
            return figures | {"accuracy": float(sums["right"]) / (float(sums["words"]) or math.nan)}
        confusion = np.reshape(sums["confusion"], [self.labels + 1, self.labels])
        of_words = classification.scores(confusion)
        figures |= {name: of_words[name] for name in ("accuracy", "macro_f1", "majority_accuracy")}
        if self._reading is not None:
            figures |= entity_figures(*(float(sums[name]) for name in _ENTITIES))
        return figures

    def samples(self, encoder, batch, tokens):
        said = tf.argmax(self.logits(encoder, batch), -1).numpy()
        lines = []
        for ids, numbers, answers in zip(
            batch[features.INPUT_IDS].numpy(), batch[features.TAG_IDS].numpy(), said, strict=True
        ):
            shown = []
            for token, number, answer in zip(ids, numbers, answers, strict=True):
                if number:
                    gold = self.tags[number - 1] if number <= self.labels else "(another)"
                    right = number - 1 == answer
                    shown.append(f"{tokens[token]}/{gold if right else f'**{self.tags[answer]}**({gold})'}")
                elif shown and tokens[token].startswith("##"):
                    word, slash, tag = shown[-1].rpartition("/")
                    shown[-1] = f"{word}{tokens[token][2:]}{slash}{tag}"
            lines.append(" ".join(shown))
        return {"answers": "\n\n".join(lines)}

    def _weights(self, tags_BL) -> tf.Tensor:
        """float32 [B, L]: 0 where there is no word, and for one whose tag is none of them."""
        return tf.gather(tf.constant([0.0, *(self.class_weights or [1.0] * self.labels), 0.0]), tags_BL)

    def _nll(self, logits_BLC, tags_BL) -> tf.Tensor:
        labels_BL = tf.clip_by_value(tags_BL - 1, 0, self.labels - 1)
        nll_BL = tf.nn.sparse_softmax_cross_entropy_with_logits(labels_BL, logits_BLC)
        return tf.reduce_sum(self._weights(tags_BL) * nll_BL)

    def _counts(self, gold_M, said_M, is_first_M) -> dict[str, tf.Tensor]:
        """Of entities, and of those that are said, and right; the latter two also of those alone that keep IOB2."""
        found = self._reading
        if found is None:
            return {}
        # Words whose tag is none of them are taken together for entities of a type that is never said.
        more = dataclasses.replace(
            found,
            type_of=(*found.type_of, len(found.types)),
            goes_on=(*found.goes_on, True),
            is_open=(*found.is_open, True),
        )
        gold, said = entities.runs(more, gold_M, is_first_M), entities.runs(found, said_M, is_first_M)
        is_right = gold.begins & said.begins & (gold.last == said.last) & (gold.type == said.type)
        keeps = tf.gather(tf.constant(found.begins), said_M)
        which = (gold.begins, said.begins, is_right, said.begins & keeps, is_right & keeps)
        return {name: tf.reduce_sum(tf.cast(of, tf.float32)) for name, of in zip(_ENTITIES, which, strict=True)}


def entity_figures(gold: float, said: float, right: float, strict_said: float, strict_right: float) -> dict[str, float]:
    """From how many entities there are; 0 where there are none, as seqeval has it."""
    return {
        "entity_precision": right / max(said, 1.0),
        "entity_recall": right / max(gold, 1.0),
        "entity_f1": 2 * right / max(gold + said, 1.0),
        "entity_f1_strict": 2 * strict_right / max(gold + strict_said, 1.0),
    }
