"""Words as BERT's tokenizer divides text, and how often they come: what a vocabulary is learned from."""

import collections
import functools
import re
import sys
import unicodedata
from collections.abc import Sequence

import tensorflow as tf

from preprocessing.normalization import ASCII_PUNCTUATION, CHINESE, Normalizer

_MAX_CHARACTERS = 200  # longer words become [UNK]


@functools.lru_cache(maxsize=1)
def _word() -> re.Pattern:
    """A run of characters that are neither white space, punctuation nor Chinese, or one of the latter two."""
    alone = [code for first, last in (*ASCII_PUNCTUATION, *CHINESE) for code in range(first, last + 1)]
    alone += [code for code in range(128, sys.maxunicode + 1) if unicodedata.category(chr(code))[0] == "P"]
    ranges: list[list[int]] = []
    for code in sorted(set(alone)):
        if ranges and ranges[-1][1] == code - 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    members = "".join(rf"\U{first:08x}-\U{last:08x}" for first, last in ranges)
    return re.compile(rf"[^\s{members}]+|[{members}]")


@functools.lru_cache(maxsize=2)
def _normalizer(lower_case: bool):
    normalizer = Normalizer(lower_case)
    return tf.function(normalizer.normalize, input_signature=[tf.TensorSpec([None], tf.string)])


def count_words(texts: Sequence[str], lower_case: bool) -> collections.Counter[str]:
    """How often each word comes in the texts; words that the tokenizer cannot read (too long) are left out."""
    normal = b"\n".join(_normalizer(lower_case)(tf.constant(list(texts), tf.string)).numpy()).decode()
    counts = collections.Counter(_word().findall(normal))
    for word in [word for word in counts if len(word) > _MAX_CHARACTERS]:
        del counts[word]
    return counts
