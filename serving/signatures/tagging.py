"""A tag for each word, of texts or of words that are given; and the entities that tags like `B-PER` mark.

A word's first piece decides, as it was trained, and no text is cut. What the words of a raw text are:
`serving.signatures.text_words`.

Shapes: B batch, N pieces and M words of all texts, W most words and E most entities of a text.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from model.settings import TaggingSettings
from model.tasks import entities
from preprocessing import tags
from preprocessing.errors import InputError
from preprocessing.tokenizer.normalization import row_ids
from serving.signatures import word_windows
from serving.signatures.base import GOLDEN_TEXTS, PROBABILITIES, TEXT, Inputs, Outputs, Signature, TextEncoder
from serving.signatures.packing import Rows
from serving.signatures.text_words import Letters, flat, word_begins

WORDS = tf.TensorSpec([None, None], tf.string, name="words")
GOLDEN_WORDS = (
    ("Paris", "is", "unbelievable", ".", "", ""),
    ("", "\u200b", "東京", "Zoë's", " ", "a b"),
    ("", "", "", "", "", ""),
)

_NONE = "the checkpoint has no tagger, or nothing says what its tags are"
_OF_WORDS, _OF_ENTITIES = "word_count", "entity_count"


@dataclasses.dataclass(frozen=True)
class Tagged:
    """The words of a batch with their answers."""

    text_of: tf.Tensor  # int32 [M], ascending
    tags: tf.Tensor  # int32 [M]
    scores: tf.Tensor  # float32 [M]
    logits: tf.Tensor  # float32 [M, C], before the temperature
    batch: tf.Tensor  # int32 (), B

    def rows(self, values: tf.Tensor) -> tf.Tensor:
        """What each word has [M, ...], text by text [B, W, ...], padded with zero or empty."""
        return _rows(values, self.text_of, self.batch)

    def count(self) -> tf.Tensor:
        return _count(self.text_of, self.batch)


class Entities(NamedTuple):
    """Of all texts one behind the other: the first and last word of each, the number of its type, its score, the text
    that it is of."""

    first: tf.Tensor
    last: tf.Tensor
    type: tf.Tensor
    score: tf.Tensor
    text_of: tf.Tensor


def _tag(encoder: TextEncoder, text) -> Outputs:
    """Returns, padded with empty or zero behind each row's `word_count` int32 [B]: `words`, `tags` string and `scores`
    float32 [B, W] (the tag's probability), and where a word stands in the text, [start, end) in bytes and in
    characters: `byte_starts`, `byte_ends`, `char_starts`, `char_ends` int32 [B, W].

    And behind each row's `entity_count` int32 [B], which is 0 where tags mark no entities: `entities` (texts) and
    `entity_types` string, `entity_scores` float32 (the mean of its words'), and `entity_byte_starts`,
    `entity_byte_ends`, `entity_char_starts`, `entity_char_ends` int32 [B, E].
    """
    spans = encoder.tokenizer.tokenize_with_offsets(text)
    text_of_N = row_ids(tf.cast(spans.ids.row_splits, tf.int32))
    letters = Letters(text)
    is_first_N = word_begins(encoder.tokenizer.vocab, spans, text_of_N, letters)
    word_N = tf.cumsum(tf.cast(is_first_N, tf.int32)) - 1
    first_M = tf.cast(tf.where(is_first_N)[:, 0], tf.int32)
    found = _tagged(encoder, spans.ids, first_M, tf.gather(text_of_N, first_M))
    starts = {name: tf.gather(flat(getattr(spans, f"{name}_starts")), first_M) for name in ("byte", "char")}
    ends = {name: tf.math.segment_max(flat(getattr(spans, f"{name}_ends")), word_N) for name in ("byte", "char")}
    outputs = _answers(encoder, found)
    outputs |= {"words": found.rows(letters.between(starts["byte"], ends["byte"], found.text_of))}
    outputs |= {f"{name}_starts": found.rows(values) for name, values in starts.items()}
    outputs |= {f"{name}_ends": found.rows(values) for name, values in ends.items()}

    of = _entities(encoder, found)
    first, last = ({name: tf.gather(values, at) for name, values in places.items()}
                   for places, at in ((starts, of.first), (ends, of.last)))  # fmt: skip
    outputs |= _of_entities(encoder, found, of)
    outputs |= {"entities": _rows(letters.between(first["byte"], last["byte"], of.text_of), of.text_of, found.batch)}
    outputs |= {f"entity_{name}_starts": _rows(values, of.text_of, found.batch) for name, values in first.items()}
    return outputs | {f"entity_{name}_ends": _rows(values, of.text_of, found.batch) for name, values in last.items()}


def _given(encoder: TextEncoder, words) -> Tagged:
    """Of words as `_tag_words` takes them."""
    place = tf.range(1, tf.shape(words)[1] + 1)
    lengths = tf.reduce_max(tf.where(words != "", place, 0), 1)
    lengths = tf.maximum(lengths, 0)  # of no word at all the greatest is the least number there is
    given = tf.where(place <= lengths[:, None])
    tokens = encoder.tokenizer.tokenize(tf.gather_nd(words, given))
    # A word of which nothing is left is one [UNK].
    counts = tf.cast(tokens.row_lengths(), tf.int32)
    kept = tf.maximum(counts, 1)
    first_M = tf.cumsum(kept, exclusive=True)
    shift = tf.gather(first_M - tf.cumsum(counts, exclusive=True), row_ids(tokens.row_splits))
    place_N = (tf.range(tf.size(shift)) + shift)[:, None]
    unknown = tf.fill([tf.reduce_sum(kept)], encoder.tokenizer.unk_id)
    ids_N = tf.tensor_scatter_nd_update(unknown, place_N, tokens.values)
    text_of_M = tf.cast(given[:, 0], tf.int32)
    pieces = tf.math.unsorted_segment_sum(kept, text_of_M, tf.shape(words)[0])
    ids = tf.RaggedTensor.from_row_lengths(ids_N, tf.cast(pieces, tf.int64), validate=False)
    return _tagged(encoder, ids, first_M, text_of_M)


def _tag_words(encoder: TextEncoder, words) -> Outputs:
    """Words that are given, string [B, W]; empty ones behind a text's last word are none.

    Returns: `tags` string and `scores` float32 [B, W] and `word_count` int32 [B], as of `tag`, one for each word; and
    `entity_types`, `entity_scores`, `entity_starts`, `entity_ends` [B, E] (from which word to which, [start, end)) and
    `entity_count`.
    """
    found = _given(encoder, words)
    of = _entities(encoder, found)
    begins = tf.gather(tf.cumsum(found.count(), exclusive=True), of.text_of)
    outputs = _answers(encoder, found) | _of_entities(encoder, found, of)
    return outputs | {
        "entity_starts": _rows(of.first - begins, of.text_of, found.batch),
        "entity_ends": _rows(of.last + 1 - begins, of.text_of, found.batch),
    }


def _tag_logits(encoder: TextEncoder, words) -> Outputs:
    """Returns: `logits` float32 [B, W, C], before the temperature, which is chosen by them; zero behind `word_count`
    int32 [B]. Words as of `tag_words`."""
    found = _given(encoder, words)
    return {"logits": found.rows(found.logits), _OF_WORDS: found.count()}


def _tagged(encoder: TextEncoder, ids: tf.RaggedTensor, first_M, text_of_M) -> Tagged:
    """Of words, by their first pieces, and the texts that these are of."""
    task = _task(encoder)
    longest = min(task.max_seq_length or encoder.lengths[-1], encoder.lengths[-1])
    lengths = (*(length for length in encoder.lengths if length < longest), longest)
    splits = tf.cast(ids.row_splits, tf.int32)
    texts = Rows(ids.values, splits[:-1], splits[1:] - splits[:-1])
    found = word_windows.places(texts, first_M, text_of_M, longest - 2)
    logits = word_windows.answered(encoder, found, lengths, encoder.model.tagger, len(task.labels))
    best = tf.argmax(logits, -1, tf.int32)
    scores = tf.reduce_max(tf.nn.softmax(logits / task.temperature), -1)
    return Tagged(text_of_M, best, scores, logits, tf.size(splits) - 1)


def _answers(encoder: TextEncoder, found: Tagged) -> Outputs:
    labels = tf.constant(_task(encoder).labels)
    return {
        "tags": found.rows(tf.gather(labels, found.tags)),
        "scores": found.rows(found.scores),
        _OF_WORDS: found.count(),
    }


def _entities(encoder: TextEncoder, found: Tagged) -> Entities:
    reading = tags.reading(_task(encoder).labels)
    if reading is None:
        none = tf.zeros([0], tf.int32)
        return Entities(none, none, none, tf.zeros([0]), none)
    is_first = tf.concat([[True], found.text_of[1:] != found.text_of[:-1]], 0)[: tf.size(found.tags)]
    runs = entities.runs(reading, found.tags, is_first)
    sums = tf.math.unsorted_segment_sum(found.scores, runs.last, tf.size(runs.last))
    first = tf.cast(tf.where(runs.begins)[:, 0], tf.int32)
    last = tf.gather(runs.last, first)
    score = tf.gather(sums, last) / tf.cast(last + 1 - first, tf.float32)
    return Entities(first, last, tf.gather(runs.type, first), score, tf.gather(found.text_of, first))


def _of_entities(encoder: TextEncoder, found: Tagged, of: Entities) -> Outputs:
    reading = tags.reading(_task(encoder).labels)
    types = tf.constant(reading.types if reading else [""])
    return {
        "entity_types": _rows(tf.gather(types, of.type), of.text_of, found.batch),
        "entity_scores": _rows(of.score, of.text_of, found.batch),
        _OF_ENTITIES: _count(of.text_of, found.batch),
    }


def _rows(values, text_of, batch) -> tf.Tensor:
    """Values [n, ...] of texts, which are ascending, as [B, most of one text, ...]."""
    count = _count(text_of, batch)
    place = tf.range(tf.size(text_of)) - tf.gather(tf.cumsum(count, exclusive=True), text_of)
    shape = tf.concat([[batch, tf.reduce_max(tf.concat([count, [0]], 0))], tf.shape(values)[1:]], 0)
    return tf.scatter_nd(tf.stack([text_of, place], 1), values, shape)


def _count(text_of, batch) -> tf.Tensor:
    return tf.math.unsorted_segment_sum(tf.ones_like(text_of), text_of, batch)


def _task(encoder: TextEncoder) -> TaggingSettings:
    if not isinstance(encoder.task, TaggingSettings):
        raise InputError(_NONE)
    return encoder.task


def _missing(encoder: TextEncoder) -> str | None:
    return None if isinstance(encoder.task, TaggingSettings) else _NONE


def _no_places(encoder: TextEncoder) -> str | None:
    return _missing(encoder) or ("the vocabulary has added tokens" if encoder.tokenizer.added else None)


def _golden_texts(encoder: TextEncoder) -> list[Inputs]:
    """One of them in several windows."""
    return [{TEXT.name: [*GOLDEN_TEXTS, encoder.text_of(encoder.lengths[-1] + 5)]}]


def _golden_words(encoder: TextEncoder) -> list[Inputs]:
    return [{WORDS.name: [list(words) for words in GOLDEN_WORDS]}]


def _long_words(encoder: TextEncoder, length: int) -> tuple:
    return (encoder.text_of(length - 2).split(),)


def _of_words(name: str, of_entities: Sequence[str], **what) -> Signature:
    """`of_entities`: the outputs that have a value for each entity."""
    # Rounding may change which of two tags that are about as likely is said, and with it all about entities.
    rounded = {"scores": PROBABILITIES} | dict.fromkeys(("tags", _OF_ENTITIES, *of_entities))
    counts = dict.fromkeys(of_entities, _OF_ENTITIES)
    return Signature(name, rounded=rounded, kind="tagging", row_count=_OF_WORDS, other_counts=counts, **what)


_ALIKE = ("entity_types", "entity_scores")
_SPANS = tuple(f"entity_{unit}_{end}" for unit in ("byte", "char") for end in ("starts", "ends"))
TAG = _of_words(
    "tag",
    ("entities", *_ALIKE, *_SPANS),
    inputs=(TEXT,),
    answer=_tag,
    missing=_no_places,
    golden=_golden_texts,
    often=True,
)
TAG_WORDS = _of_words(
    "tag_words",
    (*_ALIKE, "entity_starts", "entity_ends"),
    inputs=(WORDS,),
    answer=_tag_words,
    missing=_missing,
    golden=_golden_words,
    warm_up=_long_words,
)
# Not exported: a distribution over all tags for each word is much to send.
TAG_LOGITS = Signature("tag_logits", (WORDS,), _tag_logits, rounded={}, missing=_missing)
