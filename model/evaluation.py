"""How good an encoder is on held-out examples, beside what needs no model."""

import numpy as np
import tensorflow as tf

from model import losses, metrics
from model.encoder import BertEncoder
from model.training_records import filled_masks
from preprocessing import batches, features
from preprocessing.errors import InputError


class Evaluation:
    """`evaluation(limit)` -> figures by name; compiled once for as many calls as there are.

    The figures: `masked_lm_loss` and `next_sentence_loss` in nats, `masked_lm_accuracy`, `next_sentence_accuracy`, and
    `unigram_loss` and `commonest_token_accuracy` on the same examples (see `metrics.baselines`).
    """

    def __init__(
        self,
        encoder: BertEncoder,
        examples: batches.Examples,
        batch_size: int,
        transform: batches.Transform | None = None,
    ):
        self._encoder, self._examples, self._batch_size, self._transform = encoder, examples, batch_size, transform
        self._sums_of = tf.function(self._batch_sums)

    def __call__(self, limit: int | None = None) -> dict[str, float]:
        """On the first `limit` examples, rounded down to whole batches but one; None: on all."""
        dataset = self._examples.batches(self._batch_size, shuffle=False, transform=self._transform)
        if limit is not None:
            dataset = dataset.take(max(1, limit // self._batch_size))
        sums, counts = np.zeros(len(metrics.SUMS)), np.zeros(self._encoder.settings.vocab_size)
        for batch in dataset:
            batch_sums, batch_counts = self._sums_of(batch)
            sums += batch_sums.numpy()
            counts += batch_counts.numpy()
        return metrics.figures(sums, self._encoder.next_sentence is not None) | metrics.baselines(counts)

    def samples(self, tokens: list[str], count: int = 4) -> str:
        """Markdown of the first examples with the model's choices at the masked positions."""
        batch = next(iter(self._examples.batches(count, shuffle=False, transform=self._transform)))
        head = self._encoder.masked_lm
        if head is None:
            raise InputError(f"filling masks needs the masked_lm head. Received: heads {self._encoder.heads}")
        logits = head(self._encoder(batch)["sequence_output"], batch[features.MASKED_LM_POSITIONS])
        arrays = {name: value.numpy() for name, value in batch.items()}
        return filled_masks(arrays, tf.argmax(logits, -1).numpy(), tokens)

    def _batch_sums(self, batch):
        encoder = self._encoder
        outputs = losses.encoder_outputs(encoder, batch)
        labels = tf.reshape(batch[features.MASKED_LM_IDS], [-1])
        weights = tf.reshape(batch[features.MASKED_LM_WEIGHTS], [-1])
        counts = tf.math.unsorted_segment_sum(weights, labels, encoder.settings.vocab_size)
        return metrics.batch_sums(encoder, outputs, batch), counts
