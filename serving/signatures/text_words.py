"""Where the words of texts are, and taking parts out of texts, in the graph.

Words are what stands between blanks, without the punctuation at its ends, each sign of which is a word; a Chinese
character is one by itself.

Shapes: N pieces and U parts (what BERT's tokenizer makes pieces of) of all texts.
"""

from collections.abc import Sequence

import tensorflow as tf

from preprocessing.tokenizer import Spans
from preprocessing.tokenizer.normalization import CHINESE

# As BERT's tokenizer has it: signs of ASCII, too, that Unicode does not count as punctuation.
_PUNCTUATION = r"[\p{P}$+<=>^`|~]\p{M}*"
_CHINESE = "[" + "".join(rf"\x{{{first:x}}}-\x{{{last:x}}}" for first, last in CHINESE) + r"]\p{M}*"


def word_begins(vocab: Sequence[str], spans: Spans, text_of_N: tf.Tensor, letters: "Letters") -> tf.Tensor:
    """bool [N]: whether a word begins with a piece."""
    goes_on = tf.constant([token.startswith("##") and len(token) > 2 for token in vocab])
    begins_N = ~tf.gather(goes_on, spans.ids.values)
    part_N = tf.cumsum(tf.cast(begins_N, tf.int32)) - 1
    first_U = tf.cast(tf.where(begins_N)[:, 0], tf.int32)
    text_of_U = tf.gather(text_of_N, first_U)
    start_U = tf.gather(flat(spans.byte_starts), first_U)
    end_U = tf.math.segment_max(flat(spans.byte_ends), part_N)
    parts_U = letters.between(start_U, end_U, text_of_U)
    is_chinese_U = tf.strings.regex_full_match(parts_U, _CHINESE)
    is_word_U = ~(is_chinese_U | tf.strings.regex_full_match(parts_U, _PUNCTUATION))

    # Parts without anything between them stand together, but for Chinese characters.
    apart_U = is_chinese_U[1:] | is_chinese_U[:-1] | (start_U[1:] != end_U[:-1]) | (text_of_U[1:] != text_of_U[:-1])
    chunk_U = tf.cumsum(tf.concat([tf.zeros_like(first_U[:1]), tf.cast(apart_U, tf.int32)], 0))
    place_U = tf.range(tf.size(first_U))
    count = tf.size(first_U)
    first_word = tf.math.segment_min(tf.where(is_word_U, place_U, count), chunk_U)
    last_word = tf.math.segment_max(tf.where(is_word_U, place_U, -1), chunk_U)
    inside_U = (place_U > tf.gather(first_word, chunk_U)) & (place_U <= tf.gather(last_word, chunk_U))
    return begins_N & ~tf.gather(inside_U, part_N)


class Letters:
    """The bytes of texts one by one. Taking parts out of long texts by `substr` would copy a text for each part."""

    def __init__(self, text):
        bytes_ = tf.strings.bytes_split(text)
        splits = tf.cast(bytes_.row_splits, tf.int32)
        self._bytes, self._begins = bytes_.values, splits[:-1]

    def between(self, start, end, text_of) -> tf.Tensor:
        """Strings [n] of parts that follow one another, int32 [n] each; invalid UTF-8 in them is left out."""
        count, size = tf.size(start), tf.size(self._bytes)
        begins = tf.gather(self._begins, text_of)
        place = tf.range(size)
        part = tf.searchsorted(begins + start, place, side="right") - 1
        padded = tf.concat([begins + end, [0]], 0)  # that there is one to look at
        inside = (part >= 0) & (place < tf.gather(padded, tf.maximum(part, 0)))
        joined = tf.strings.unsorted_segment_join(self._bytes, tf.where(inside, part, count), count + 1)
        return tf.strings.unicode_transcode(joined[:count], "UTF-8", "UTF-8", errors="ignore")


def flat(ragged: tf.RaggedTensor) -> tf.Tensor:
    return tf.cast(ragged.values, tf.int32)
