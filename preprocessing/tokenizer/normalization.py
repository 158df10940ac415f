"""Text cleaning before WordPiece, exactly as google-research/bert's `BasicTokenizer` does it, as TensorFlow ops.

The specification, for a text as a string of characters: drop invalid bytes, NUL, U+FFFD and the categories Cc and Cf
except tab, line feed and carriage return; put blanks around Chinese characters; split at white space; lower each word,
decompose it (NFD) and drop the category Mn (uncased models only); split off every punctuation character; a word of more
than 200 characters is unknown (Hugging Face: 100). Splitting at white space, punctuation and Chinese characters is
done by `tf_text.FastWordpieceTokenizer` itself, so what remains is one string to one string.

Three ways through, the cheapest that is exact for a string: `plain` strings need ASCII lower-casing only; `ordinary`
ones pass through ICU (lower, NFD, drop Mn), after their control characters were dropped; the rest (invalid bytes,
possibly long words, characters that the C++ ops do not know) is taken apart into code points, which also gives the
alignment with the original text.

Shapes: N strings, C code points of all of them, U different ones among them.
"""

import functools
import re
from collections.abc import Iterable
from typing import NamedTuple

import tensorflow as tf
import tensorflow_text as text

from preprocessing import unicode_table
from preprocessing.characters import numbers, ranges

MAX_WORD_CHARACTERS = 200
# Characters that Unicode has not assigned, so that no vocabulary knows a word with one of them. The first two stand for
# what has to be unknown (in three and in four bytes); the others are the tokenizer's.
UNKNOWN, UNKNOWN_4_BYTES, MASK_SIGN, SEP_SIGN = RESERVED = "\u2fe0\U000efffd\u2fe1\u2fe2"
CHINESE = (  # google's list: CJK ideographs, without kana and Hangul
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)
ASCII_PUNCTUATION = ((33, 47), (58, 64), (91, 96), (123, 126))
# Of Unicode 13, the version of all here, the C++ ops of TensorFlow 2.16 (Unicode 12) lack these.
_PUNCTUATION_UNKNOWN_TO_OPS = "\u2e52\U00010ead\U0001145a\U00011944\U00011945\U00011946"
_COMPOSED_UNKNOWN_TO_OPS, _ITS_DECOMPOSITION = "\U00011938", "\U00011935\U00011930"
# What later versions assign, the ops of TensorFlow 2.21 (Unicode 16) decompose or take for punctuation. These stand for
# such characters in tokens; no version assigns them.
_SUBSTITUTES = (0xE1000, 0xEFFFC)
_SYMBOLS = 0x1F000  # from there on no letters, marks and punctuation come, but emoji and ideographs
_PLANES = range(0x10000, 0x110000, 0x10000)
_LARGEST_EXPANSION = 3  # characters that one character becomes under lower, NFD and drop Mn (Hangul syllables)


class Aligned(NamedTuple):
    """Normalized strings and where each of their bytes comes from."""

    texts: tf.Tensor  # string [N]
    row_starts: tf.Tensor  # int64 [N], where the bytes of string n begin in the two tensors below
    starts: tf.Tensor  # int64 [bytes of all strings], first byte of the original character
    ends: tf.Tensor  # int64 [bytes of all strings], the byte after it and after combining marks dropped behind it


def _class(characters, negated=False) -> str:
    """RE2 character class of ranges."""
    return ("[^" if negated else "[") + "".join(rf"\x{{{first:x}}}-\x{{{last:x}}}" for first, last in characters) + "]"


def _codes(string: str) -> list[tuple[int, int]]:
    return [(ord(character), ord(character)) for character in string]


@functools.lru_cache(maxsize=1)
def _dropped() -> list[tuple[int, int]]:
    return [r for r in ranges(unicode_table.DROPPED) if r[0] > 31] + [(0, 8), (11, 12), (14, 31), (0xFFFD, 0xFFFD)]


@functools.lru_cache(maxsize=1)
def _marks() -> str:
    return _class(ranges(unicode_table.MARKS))


@functools.lru_cache(maxsize=1)
def _spaces() -> str:
    return _class(ranges(unicode_table.SPACES))


@functools.lru_cache(maxsize=1)
def _separators() -> str:
    """Characters that are words of their own: punctuation and Chinese characters."""
    return _class([*ranges(unicode_table.PUNCTUATION), *ASCII_PUNCTUATION, *CHINESE])


def _bounded_words(words: str, breaks: str, bound: int) -> str:
    """Pattern of strings whose runs of `words` are at most `bound` long. For RE2 as cheap as one class, if the classes
    are of few ranges (the program grows with their product with the bound)."""
    return rf"(?:{words}{{0,{bound}}}{breaks})*{words}{{0,{bound}}}"


_BREAKS = [(9, 10), (13, 13), (32, 32), *ASCII_PUNCTUATION, (0x3001, 0x3002), (0x4E00, 0x9FFF)]
# Besides letters and digits: Latin-1 signs, quotes and dashes, currency, Chinese and full-width punctuation.
_NOTHING_TO_FOLD = [(48, 57), (65, 90), (97, 122), (0xA1, 0xAC), (0xAE, 0xBF), (0x2010, 0x2027), (0x2030, 0x203E)]
_NOTHING_TO_FOLD += [(0x20A0, 0x20BF), (0x3003, 0x3029), (0xFF01, 0xFF20)]


@functools.lru_cache(maxsize=1)
def _later() -> list[tuple[int, int]]:
    """Characters that the ops may know and we do not, and those that stand for them."""
    found = [(first, last) for first, last in ranges(unicode_table.UNASSIGNED) if first < _SYMBOLS]
    for hole_first, hole_last in [*CHINESE, *_codes(RESERVED)]:
        parts = [
            part
            for first, last in found
            for part in ((first, min(last, hole_first - 1)), (max(first, hole_last + 1), last))
        ]
        found = [(first, last) for first, last in dict.fromkeys(parts) if first <= last]
    return [*found, _SUBSTITUTES]


@functools.lru_cache(maxsize=1)
def _known() -> str:
    """Pattern of strings of nothing to drop, nothing that some op lacks or knows too well, and no invalid bytes."""
    lacking = _codes(_PUNCTUATION_UNKNOWN_TO_OPS + _COMPOSED_UNKNOWN_TO_OPS)
    return _class([*_dropped(), *lacking, *_later(), (0xD800, 0xDFFF)], negated=True) + "*"


def substitutes(vocab: Iterable[str]) -> dict[int, int]:
    """{character: what stands for it} of the characters in a vocabulary that the ops may not see, by code point."""
    later = re.compile(f"[{''.join(f'{chr(first)}-{chr(last)}' for first, last in _later())}]")
    found = sorted(set(later.findall(" ".join(vocab))))
    return {ord(character): _SUBSTITUTES[0] + index for index, character in enumerate(found)}


class Normalizer:
    """Cleans texts; graph-compatible. Words of more than `longest_word` characters become unknown.

    With the `substitutes` of a vocabulary, what this version of Unicode has not assigned is replaced by them, or is
    unknown: so the text is one for the tokenizer's op. Without, it is one to be read.
    """

    def __init__(
        self,
        lower_case: bool,
        longest_word: int = MAX_WORD_CHARACTERS,
        substitutes: dict[int, int] | None = None,
    ):
        self.lower_case = lower_case
        self._longest_word = longest_word
        self._substitutes = substitutes
        bound = longest_word // _LARGEST_EXPANSION if lower_case else longest_word
        self._plain = _bounded_words(_class(_NOTHING_TO_FOLD), _class(_BREAKS), longest_word)
        self._short_words = _bounded_words(_class(_BREAKS, negated=True), _class(_BREAKS), bound)

    def normalize(self, texts: tf.Tensor) -> tf.Tensor:
        """String [N] -> string [N], to be split at white space, punctuation and Chinese characters."""
        simple = tf.strings.lower(texts) if self.lower_case else texts
        return self._replace_where(~self.is_plain(texts), texts, simple, self._normalize_ordinary)

    def is_plain(self, texts: tf.Tensor) -> tf.Tensor:
        """Bool [N]: whether normalizing is ASCII lower-casing at most, which leaves every byte where it is."""
        return tf.strings.regex_full_match(texts, self._plain) if self.lower_case else self._is_ordinary(texts)

    def align(self, texts: tf.Tensor) -> Aligned:
        """The same as `normalize`, with the alignment; several times slower."""
        moved = None if self._substitutes is None else tuple(self._substitutes.items())
        return _taking_apart(self.lower_case, self._longest_word, moved)(texts)

    def words(self, texts: tf.Tensor) -> tf.Tensor:
        """String [N] -> string [N], the words that WordPiece gets, with blanks between them."""
        texts = tf.strings.regex_replace(self.normalize(texts), _spaces(), " ")
        return tf.strings.regex_replace(texts, _separators(), r" \0 ")

    def _is_ordinary(self, texts):
        has_short_words = tf.strings.regex_full_match(texts, self._short_words)
        return has_short_words & tf.strings.regex_full_match(texts, _known())

    def _normalize_ordinary(self, texts):
        return self._fold_or(texts, self._normalize_cleaned)

    def _normalize_cleaned(self, texts):
        """Most strings that are not ordinary have a control character or two (Persian's zero-width ones, say)."""
        # Of invalid bytes around a control character, dropping it could make a character.
        is_valid = tf.strings.regex_full_match(texts, _class([(0xD800, 0xDFFF)], negated=True) + "*")
        cleaned = tf.strings.regex_replace(texts, _class(_dropped()) + "+", "")
        return self._fold_or(tf.where(is_valid, cleaned, texts), self._normalize_rare)

    def _normalize_rare(self, texts):
        return self.align(texts).texts

    def _fold_or(self, texts, otherwise):
        """Folds the ordinary texts; `otherwise(texts)` for the others."""
        is_ordinary = self._is_ordinary(texts)
        folded = texts
        if self.lower_case:
            # ICU refuses invalid bytes, so that strings which are not ordinary must not reach it.
            folded = tf.where(is_ordinary, texts, "")
            # ASCII first: ICU makes a dotless i of I in Turkish surroundings. Other such rules add dots, dropped below.
            folded = tf.strings.lower(tf.strings.lower(folded), encoding="utf-8")
            folded = tf.strings.regex_replace(text.normalize_utf8(folded, "NFD"), _marks() + "+", "")
        return self._replace_where(~is_ordinary, texts, folded, otherwise)

    @staticmethod
    def _replace_where(condition, texts, otherwise, function):
        """`function(texts)` where the condition holds, else `otherwise`; the function sees only the texts it is for."""
        rows = tf.where(condition)

        def replace():
            return tf.tensor_scatter_nd_update(otherwise, rows, function(tf.gather_nd(texts, rows)))

        return tf.cond(tf.size(rows) > 0, replace, lambda: otherwise)


@functools.lru_cache(maxsize=8)
def _taking_apart(lower_case: bool, longest_word: int, substitutes: tuple[tuple[int, int], ...] | None):
    """`_take_apart` as a function that is traced once for all tokenizers alike: of each one's graph it is the most."""
    given = None if substitutes is None else dict(substitutes)
    batch = tf.TensorSpec([None], tf.string)
    return tf.function(
        lambda texts: _take_apart(texts, lower_case, longest_word, given), input_signature=[batch], autograph=False
    )


def _take_apart(texts: tf.Tensor, lower_case: bool, longest_word: int, substitutes: dict[int, int] | None) -> Aligned:
    """Normalizes by code points, each with the index of the original character that it comes from."""
    # The op takes noncharacters for errors.
    texts = tf.strings.regex_replace(texts, _class([(0xFDD0, 0xFDEF), (0xFFFE, 0xFFFF)]), UNKNOWN)
    texts = tf.strings.regex_replace(texts, _class([(p + 0xFFFE, p + 0xFFFF) for p in _PLANES]), UNKNOWN_4_BYTES)
    decoded, starts = tf.strings.unicode_decode_with_offsets(texts, "UTF-8", errors="ignore")
    count = decoded.nrows()
    code_C, row_C, start_C = decoded.values, row_ids(decoded.row_splits), starts.values
    end_C = start_C + _utf8_length(code_C)
    if lower_case:
        end_C = _extend_over_marks(code_C, row_C, end_C)
    kept = ~_matches(code_C, _class(_dropped()))
    code_C, row_C, start_C, end_C = _only(kept, code_C, row_C, start_C, end_C)

    if lower_case:
        # The only character that lower-casing makes two of, of which the second, a dot, is dropped.
        code_C = tf.where(code_C == 0x130, ord("i"), code_C)
        # By table, not by ICU, which knows other rules in Turkish, Azeri and Lithuanian surroundings; but a final sigma
        # depends on its neighbours, and is all that ICU finds to do then.
        code_C = _lower(code_C)
        code_C = tf.strings.unicode_decode(tf.strings.lower(_encode(code_C, row_C, count), "utf-8"), "UTF-8").values
    different, index_C = tf.unique(code_C)
    pieces = _characters(different)
    if lower_case:
        pieces = tf.strings.regex_replace(pieces, _COMPOSED_UNKNOWN_TO_OPS, _ITS_DECOMPOSITION)
        is_later = tf.strings.regex_full_match(pieces, _class(_later()))
        pieces = tf.where(is_later, pieces, text.normalize_utf8(pieces, "NFD"))
    pieces = tf.strings.regex_replace(pieces, f"([{_PUNCTUATION_UNKNOWN_TO_OPS}])", r" \1 ")
    expanded = tf.gather(tf.strings.unicode_decode(pieces, "UTF-8"), index_C)
    code_C = expanded.values
    becomes_C = row_ids(expanded.row_splits)
    row_C, start_C, end_C = (tf.gather(values, becomes_C) for values in (row_C, start_C, end_C))
    if lower_case:
        is_mark_C = _matches(code_C, _marks())
        code_C, is_kept_C = _reorder(code_C, ~is_mark_C, row_C)
        (code_C,) = _only(is_kept_C, code_C)
        row_C, start_C, end_C = _only(~is_mark_C, row_C, start_C, end_C)
    code_C = _mark_long_words(code_C, row_C, longest_word)
    if substitutes is not None:
        code_C = _substitute(code_C, substitutes)

    length_C = _utf8_length(code_C)
    row_lengths = tf.math.unsorted_segment_sum(length_C, row_C, count)
    return Aligned(
        texts=_encode(code_C, row_C, count),
        row_starts=tf.cumsum(row_lengths, exclusive=True),
        starts=tf.gather(start_C, _repeat(length_C)),
        ends=tf.gather(end_C, _repeat(length_C)),
    )


def _substitute(code_C, substitutes):
    unknown_C = tf.where(_matches(code_C, _class(_later())), ord(UNKNOWN_4_BYTES), code_C)
    return _look_up(code_C, list(substitutes), list(substitutes.values()), unknown_C) if substitutes else unknown_C


def _only(is_kept_C, *all_C):
    """(`tf.boolean_mask` finds the places of each anew.)"""
    kept = tf.where(is_kept_C)[:, 0]
    return [tf.gather(values_C, kept) for values_C in all_C]


def row_ids(row_splits):
    """The row of each value of a ragged tensor. (`value_rowids` takes rows times longest row.)"""
    ones = tf.ones_like(row_splits[1:])
    return tf.cumsum(tf.scatter_nd(row_splits[1:, tf.newaxis], ones, tf.reshape(row_splits[-1] + 1, [1])))[:-1]


def _repeat(counts_C):
    """Index of each value after repeating the k-th one `counts_C[k]` times. (`tf.repeat` has the same trouble.)"""
    return row_ids(tf.concat([[0], tf.cumsum(counts_C)], 0))


def _encode(code_C, row_C, count):
    return _strings(code_C, tf.searchsorted(row_C, tf.range(count + 1)))


def _strings(code_C, row_splits):
    """(`tf.strings.unicode_encode` makes ragged tensors of them first, some 50 operations.)"""
    return tf.raw_ops.UnicodeEncode(input_values=code_C, input_splits=row_splits, output_encoding="UTF-8")


def _characters(code_U):
    return _strings(code_U, tf.range(tf.size(code_U, tf.int64) + 1))


def _utf8_length(code_C):
    """Int64 [C], bytes of each character."""
    return 1 + tf.add_n([tf.cast(code_C >= bound, tf.int64) for bound in (0x80, 0x800, 0x10000)])


def _matches(code_C, pattern):
    """Bool [C], by looking at each different character once."""
    different, index_C = tf.unique(code_C)
    found_U = tf.strings.regex_full_match(_characters(different), pattern)
    return tf.gather(found_U, index_C)


def _begins_row(row_C):
    return tf.concat([tf.ones_like(row_C[:1], tf.bool), row_C[1:] != row_C[:-1]], 0)


def _extend_over_marks(code_C, row_C, end_C):
    """End of each character, moved over the combining marks that follow it and that will be dropped."""
    begins = ~_matches(code_C, _marks()) | _begins_row(row_C)
    group_C = tf.cumsum(tf.cast(begins, tf.int32)) - 1
    return tf.gather(tf.math.segment_max(end_C, group_C), group_C)


@functools.lru_cache(maxsize=1)
def _lower_table() -> tuple[list[int], list[int]]:
    """Characters with a lower case, ascending, without capital sigma; and their lower cases."""
    lower = {code: code + distance for code, distance in numbers(unicode_table.LOWER).items() if code != 0x3A3}
    return list(lower), list(lower.values())


def _lower(code_C):
    return _look_up(code_C, *_lower_table(), code_C)


def _look_up(code_C, keys: list[int], values: list[int], default):
    """Dictionary of ascending keys."""
    place_C = tf.minimum(tf.searchsorted(keys, code_C), len(keys) - 1)
    return tf.where(tf.gather(keys, place_C) == code_C, tf.gather(values, place_C), default)


@functools.lru_cache(maxsize=1)
def _combining_classes() -> tuple[list[int], list[int]]:
    """Characters of a canonical combining class other than 0, ascending, and these classes."""
    return list(numbers(unicode_table.COMBINING)), list(numbers(unicode_table.COMBINING).values())


def _reorder(code_C, is_kept_C, row_C):
    """Characters in canonical order, with whether each is kept. Only these move, not the origins: the k-th kept
    character has the k-th kept origin, so that spans stay ascending.

    What matters is the order of kept characters that combine (a few viramas and musical stems), so that there is hardly
    ever anything to do.
    """
    class_C = _look_up(code_C, *_combining_classes(), 0)

    def sort():
        run_C = tf.cumsum(tf.cast((class_C == 0) | _begins_row(row_C), tf.int64))
        order_C = tf.argsort(run_C * 256 + tf.cast(class_C, tf.int64), stable=True)
        return tf.gather(code_C, order_C), tf.gather(is_kept_C, order_C)

    return tf.cond(tf.reduce_any(is_kept_C & (class_C > 0)), sort, lambda: (code_C, is_kept_C))


def _mark_long_words(code_C, row_C, longest_word):
    """Makes longer words unknown by their first character."""
    is_break_C = _matches(code_C, f"{_spaces()}|{_separators()}")
    begins_row_C = _begins_row(row_C)
    word_C = tf.cumsum(tf.cast(is_break_C | begins_row_C, tf.int32)) - 1
    lengths = tf.math.segment_sum(tf.cast(~is_break_C, tf.int32), word_C)
    is_first_C = ~is_break_C & (begins_row_C | tf.concat([[True], is_break_C[:-1]], 0)[: tf.size(code_C)])
    return tf.where(is_first_C & (tf.gather(lengths, word_C) > longest_word), ord(UNKNOWN), code_C)
