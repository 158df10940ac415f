"""Pretraining: masked tokens and next sentences.

The loss of a batch is `masked nll / (weights + 1e-5) + next-sentence nll / examples` (google-research/bert,
`run_pretraining.py`), where all four sums go over the whole batch.

Legend: B batch, L length, H hidden, P predictions, M = B * P, V vocabulary.
"""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from model.encoder.heads import MASKED_LM, NEXT_SENTENCE
from model.encoder.operations import cross_entropy
from model.tasks.task import Curve
from preprocessing import features
from preprocessing.errors import InputError, require

# Added to the number of predictions, so that a batch without any has loss 0.
NO_PREDICTIONS = 1e-5

# Figures are means: the sum of the same name over this total.
_MASKED_LM = {"masked_lm_loss": "predictions", "masked_lm_accuracy": "predictions"}
_NEXT_SENTENCE = {"next_sentence_loss": "pairs", "next_sentence_accuracy": "pairs"}


@dataclasses.dataclass(frozen=True)
class Pretraining:
    """Predicting masked tokens and, unless `next_sentence` is False, whether the second sentence follows the first.

    A `model.tasks.task.Task`. Figures: `masked_lm_loss` and `next_sentence_loss` in nats, `masked_lm_accuracy`,
    `next_sentence_accuracy`; of held-out examples also `unigram_loss` and `commonest_token_accuracy` (`baselines`).
    """

    next_sentence: bool = True

    heads = (MASKED_LM, NEXT_SENTENCE)  # both, whatever counts: so every pretrained checkpoint is like google's
    spec = features.MASKED_PAIRS
    watched, lower_is_better = "masked_lm_loss", True

    @property
    def description(self):
        return {"kind": "pretraining", "next_sentence": self.next_sentence}

    @property
    def _means(self) -> dict[str, str]:
        return _MASKED_LM | _NEXT_SENTENCE if self.next_sentence else _MASKED_LM

    @property
    def sum_names(self):
        return (*self._means, *dict.fromkeys(self._means.values()))

    @property
    def curves(self):
        masked = (
            Curve("Masked-token loss (nats)", "masked_lm_loss", "unigram_loss", "unigram distribution"),
            Curve(
                "Masked-token accuracy",
                "masked_lm_accuracy",
                "commonest_token_accuracy",
                "commonest token",
                shown="masked accuracy",
            ),
        )
        following = Curve("Next-sentence accuracy", "next_sentence_accuracy", shown="next accuracy")
        return (*masked, following) if self.next_sentence else masked

    def check(self, settings, examples, transform):
        require(
            settings.next_sentence == self.next_sentence,
            f"the task's next_sentence must be the training settings' ({settings.next_sentence})",
            self.next_sentence,
        )
        if transform is None and not examples.sums[features.MASKED_LM_WEIGHTS]:
            raise InputError(
                f"{examples.files[0]}: the examples must have masked tokens to predict. Received: none; they were "
                "written with masking none, which is for masking at training time"
            )
        alone = not examples.sums[features.SEGMENT_IDS] and not examples.sums[features.NEXT_SENTENCE_LABELS]
        if self.next_sentence and alone:
            raise InputError(
                f"{examples.files[0]}: the examples must be pairs of sentences for the next-sentence loss. Received: "
                "one segment and one label in all of them, as pairs none writes them; train with --no-next-sentence "
                "(next_sentence false)"
            )

    def totals(self, batch):
        totals = {"predictions": tf.reduce_sum(batch[features.MASKED_LM_WEIGHTS])}
        return totals | {"pairs": tf.reduce_sum(real_examples(batch))} if self.next_sentence else totals

    def sums(self, encoder, batch, **options):
        outputs = encoder_outputs(encoder, batch, **options)
        sums = dict(zip(_MASKED_LM, masked_lm(encoder, outputs, batch), strict=True))
        if self.next_sentence:
            logits = encoder.next_sentence(outputs["pooled_output"])
            sums |= zip(_NEXT_SENTENCE, next_sentence(logits, batch), strict=True)
        return sums | self.totals(batch)

    def loss(self, sums, totals):
        loss = sums["masked_lm_loss"] / (totals["predictions"] + NO_PREDICTIONS)
        if self.next_sentence:
            loss += sums["next_sentence_loss"] / tf.maximum(totals["pairs"], 1.0)
        return loss

    def held_out(self, encoder, batch):
        labels, weights = (
            tf.reshape(batch[name], [-1]) for name in (features.MASKED_LM_IDS, features.MASKED_LM_WEIGHTS)
        )
        counts_V = tf.math.unsorted_segment_sum(weights, labels, encoder.settings.vocab_size)
        return self.sums(encoder, batch) | {"label_counts": counts_V}

    def figures(self, sums: Mapping[str, np.ndarray | float]) -> dict[str, float]:
        figures = {name: float(sums[name]) / (float(sums[total]) or math.nan) for name, total in self._means.items()}
        return figures | baselines(np.asarray(sums["label_counts"])) if "label_counts" in sums else figures

    def samples(self, encoder, batch, tokens):
        def best(batch):
            positions = batch[features.MASKED_LM_POSITIONS]
            return tf.argmax(encoder.masked_lm(encoder(batch)["sequence_output"], positions), -1)

        if isinstance(encoder.weights[0].value, tf.distribute.DistributedValues):
            # Eagerly, custom gradients take the variables of several devices apart.
            best = tf.function(best, autograph=False)
        arrays = {name: value.numpy() for name, value in batch.items()}
        return {"filled_masks": filled_masks(arrays, best(batch).numpy(), tokens)}


def encoder_outputs(encoder, batch, **options) -> dict[str, tf.Tensor]:
    """The encoder's outputs at [CLS] and the masked positions only, which is all that the losses need."""
    return encoder(batch, positions=tf.pad(batch[features.MASKED_LM_POSITIONS], [[0, 0], [1, 0]]), **options)


def masked_lm(encoder, outputs, batch) -> tuple[tf.Tensor, tf.Tensor]:
    """(summed negative log likelihood, number predicted rightly), each weighted by `masked_lm_weights`.

    `outputs` are the encoder's at [CLS] and the masked positions (`encoder_outputs`)."""
    nll_M, right_M = predicted(encoder, outputs, batch)
    weights_M = tf.reshape(batch[features.MASKED_LM_WEIGHTS], [-1])
    return tf.reduce_sum(weights_M * nll_M), tf.reduce_sum(weights_M * right_M)


def predicted(encoder, outputs, batch) -> tuple[tf.Tensor, tf.Tensor]:
    """Negative log likelihood, and 1 for rightly, of each prediction [M], those that only fill up among them."""
    positions_BP = batch[features.MASKED_LM_POSITIONS]
    after_first_BP = tf.ones_like(positions_BP) * tf.range(1, tf.shape(positions_BP)[1] + 1)
    x_MH = encoder.masked_lm.before_logits(outputs["sequence_output"], after_first_BP)
    labels_M = tf.reshape(batch[features.MASKED_LM_IDS], [-1])
    return cross_entropy(x_MH, encoder.embeddings.word.value, encoder.masked_lm.output_bias.value, labels_M)


def next_sentence(logits_B2: tf.Tensor, batch) -> tuple[tf.Tensor, tf.Tensor]:
    """(summed negative log likelihood, number predicted rightly) over the examples that are not filling."""
    labels_B = batch[features.NEXT_SENTENCE_LABELS][:, 0]
    real_B = real_examples(batch)
    nll_B = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels_B, logits=logits_B2)
    right_B = tf.cast(tf.argmax(logits_B2, axis=-1, output_type=tf.int32) == labels_B, tf.float32)
    return tf.reduce_sum(real_B * nll_B), tf.reduce_sum(real_B * right_B)


def real_examples(batch) -> tf.Tensor:
    """[B] float32: 1 for an example, 0 for one that only fills the batch (it has no token)."""
    return tf.cast(batch[features.INPUT_MASK][:, 0], tf.float32)


def baselines(counts: np.ndarray) -> dict[str, float]:
    """What a model must beat, from how often each token [V] is a held-out label.

    `unigram_loss`: the loss, in nats, of predicting the held-out distribution itself, that is its entropy.
    `commonest_token_accuracy`: the accuracy of always saying the commonest token.
    """
    shares = counts[counts > 0] / max(counts.sum(), 1)
    return {
        "unigram_loss": float(-(shares * np.log(shares)).sum()),
        "commonest_token_accuracy": float(shares.max(initial=0.0)),
    }


def filled_masks(batch: dict[str, np.ndarray], predicted: np.ndarray, tokens: Sequence[str], examples: int = 4) -> str:
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
