"""Examples of a pool of documents: pairs drawn, assembled, masked and serialized, a batch at a time.

Shapes: N examples, L = max_seq_length, P = max_predictions.
"""

import numpy as np
import numpy.typing as npt

from preprocessing import features
from preprocessing.examples import encoding, masking, pairs
from preprocessing.examples import phrases as phrase_lists
from preprocessing.examples.pairs import SegmentPairs
from preprocessing.examples.token_store import Pool
from preprocessing.settings import ExampleSettings

Columns = dict[str, npt.NDArray]


class ExampleMaker:
    """Draws pairs from a pool of documents, masks them and writes them as tf.Examples; knows nothing of Beam."""

    def __init__(self, settings: ExampleSettings, tokenizer):
        self._settings = settings
        known = phrase_lists.load(settings.phrases, tokenizer, settings.max_predictions) if settings.phrases else None
        self._vocabulary = masking.MaskingVocabulary.of(tokenizer, known.pieces if known else ())
        self._ids = int(tokenizer.cls_id), int(tokenizer.sep_id), int(tokenizer.pad_id)

    def draw(self, pool: Pool, copy: int, rows) -> SegmentPairs:
        """Pairs of the documents `rows`, in an order that mixes the documents."""
        found = pairs.make_pairs(pool, rows, copy, self._settings)
        return found.take(np.argsort(found.key, kind="stable"))

    def columns(self, pool: Pool, found: SegmentPairs) -> tuple[Columns, dict[str, int]]:
        """Features [N, length] by google's names, and what of them cannot be told: phrases found and masked."""
        settings = self._settings
        input_ids, input_mask, segment_ids = pairs.assemble(pool.tokens, found, settings.max_seq_length, *self._ids)
        masked = masking.mask_batch(
            input_ids,
            found.key,
            self._vocabulary,
            max_predictions=settings.max_predictions,
            masked_lm_prob=settings.masked_lm_prob,
            masking=settings.masking,
        )
        columns = {
            features.INPUT_IDS: masked.input_ids,
            features.INPUT_MASK: input_mask,
            features.SEGMENT_IDS: segment_ids,
            features.MASKED_LM_POSITIONS: masked.positions,
            features.MASKED_LM_IDS: masked.ids,
            features.MASKED_LM_WEIGHTS: masked.weights,
            features.NEXT_SENTENCE_LABELS: found.label[:, None],
        }
        phrases = {"phrases_found": masked.phrases_found, "phrases_masked": masked.phrases_masked}
        return columns, {name: int(values.sum()) for name, values in phrases.items() if settings.phrases}

    def serialize(self, columns: Columns) -> list[bytes]:
        """Serialized tf.Examples, one for each row."""
        names = features.MODEL_GARDEN_NAMES if self._settings.names == "model-garden" else {}
        return encoding.serialize({names.get(name, name): values for name, values in columns.items()})
