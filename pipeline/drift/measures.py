"""What is measured of a document, a served text and an example, so that many of them can be compared with many."""

import re
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from preprocessing import character_kinds, features, languages

Measures = dict[str, list]  # name -> values of one record

LANGUAGE, CHARACTERS, WORDS, TOKENS = "language", "characters", "words", "tokens"
MASKED, LABEL, UNKNOWN = "masked", "label", "unknown"
_WORD = re.compile(r"\S+")


def of_text(text: str) -> Measures:
    """The language that it seems to be in, the kinds of up to a hundred of its characters, and its number of words."""
    return {
        LANGUAGE: [languages.of(text)],
        CHARACTERS: character_kinds.sample(text),
        WORDS: [sum(1 for _ in _WORD.finditer(text))],
    }


def of_document(record: bytes) -> Measures:
    """`of_text`, of a document as `pipeline.components.documents` writes it."""
    text = tf.train.Example.FromString(record).features.feature["text"].bytes_list.value[0]
    return of_text(text.decode())


def of_example(record: bytes, vocabulary: Sequence[str]) -> Measures:
    """Of a masked pair: its tokens as they were before masking, without padding, [CLS] and [SEP]; the share of [MASK]
    where something is predicted; its label; the share of [UNK]. An id that the vocabulary does not have is a token of
    its own."""
    feature = tf.train.Example.FromString(record).features.feature
    values = {name: np.asarray(feature[name].int64_list.value) for name in features.SEQUENCE_FEATURES}
    ids = values[features.INPUT_IDS].copy()
    predicted = np.asarray(feature[features.MASKED_LM_WEIGHTS].float_list.value) > 0
    positions = np.asarray(feature[features.MASKED_LM_POSITIONS].int64_list.value)[predicted]
    mask = vocabulary.index(features.MASK)
    is_mask = ids[positions] == mask
    ids[positions] = np.asarray(feature[features.MASKED_LM_IDS].int64_list.value)[predicted]
    tokens = [
        vocabulary[number] if 0 <= number < len(vocabulary) else f"id {number}"
        for number in ids[values[features.INPUT_MASK] > 0].tolist()
    ]
    tokens = [token for token in tokens if token not in (features.CLS, features.SEP)]
    return {
        TOKENS: tokens,
        MASKED: [float(is_mask.mean())] if is_mask.size else [],
        LABEL: [float(feature[features.NEXT_SENTENCE_LABELS].int64_list.value[0])],
        UNKNOWN: [tokens.count(features.UNK) / max(len(tokens), 1)],
    }
