"""Text to WordPiece ids, exactly those of google-research/bert's `FullTokenizer`, as a TensorFlow graph.

The only text-to-ids code of the project: the same object works eagerly (Beam), in `tf.data` and inside a SavedModel.
Its custom ops (`NormalizeUTF8`, `FastWordpieceTokenizeWithOffsets`) are among those that TensorFlow Serving links.
"""

import os
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_text as text

from preprocessing import vocabulary
from preprocessing.features import CLS, MASK, PAD, SEP, SPECIAL_TOKENS, UNK
from preprocessing.normalization import (
    MASK_SIGN,
    MAX_WORD_CHARACTERS,
    RESERVED,
    SEP_SIGN,
    UNKNOWN,
    Normalizer,
    row_ids,
    substitutes,
)


class Spans(NamedTuple):
    """Tokens and where each stands in the original string: [start, end) in bytes and in characters.

    A span begins with the first character that went into the token and ends behind the last one, combining marks that
    were dropped behind it included. Pieces of one character (of a Hangul syllable, say) all span that character.
    Characters are those of `bytes.decode("utf-8", "ignore")`.
    """

    ids: tf.RaggedTensor  # int32 [batch, (tokens)]
    byte_starts: tf.RaggedTensor  # int64 [batch, (tokens)], and so the next three
    byte_ends: tf.RaggedTensor
    char_starts: tf.RaggedTensor
    char_ends: tf.RaggedTensor


class BertTokenizer:
    """WordPiece tokenizer with google's ids for every string.

        tokenizer = BertTokenizer.from_vocab("vocab.txt")
        tokenizer.tokenize(["Hello, wörld"])  # <tf.RaggedTensor [[7592, 1010, 2088]]>

    With `special_tokens_in_text`, a literal `[MASK]` or `[SEP]` in a text becomes the id of that token; without, it is
    text like any other (`[`, `mask`, `]`), as google has it.
    """

    def __init__(self, vocab: Sequence[str], lower_case: bool = True, special_tokens_in_text: bool = False):
        self.vocab = vocabulary.check(list(vocab))
        self.lower_case = lower_case
        self.special_tokens_in_text = special_tokens_in_text
        ids = {token: index for index, token in enumerate(self.vocab)}
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = (
            ids[token] for token in (PAD, UNK, CLS, SEP, MASK)
        )
        special = [ids[t] for t in self.vocab if t in SPECIAL_TOKENS or re.fullmatch(r"\[unused\d+\]", t)]
        self.ordinary_ids = np.setdiff1d(np.arange(self.vocab_size, dtype=np.int32), special)
        moved = substitutes(self.vocab)
        self._normalizer = Normalizer(lower_case, moved)
        with tf.init_scope():  # the model is a constant of whatever graph uses it, not of the one it was made in
            self._wordpiece = text.FastWordpieceTokenizer(
                [token.translate(moved) for token in _reachable(self.vocab)]
                + ([MASK_SIGN, SEP_SIGN] if special_tokens_in_text else []),
                max_bytes_per_word=4 * MAX_WORD_CHARACTERS,  # never binds: the normalizer has seen to long words
                token_out_type=tf.int32,
                unknown_token=UNK,
            )
            batch = tf.TensorSpec([None], tf.string)
            self._tokenize_batch = tf.function(self._tokenize, input_signature=[batch], autograph=False)
            self._span_batch = tf.function(self._span, input_signature=[batch], autograph=False)

    @classmethod
    def from_vocab(
        cls, path: str | os.PathLike, lower_case: bool = True, special_tokens_in_text: bool = False
    ) -> "BertTokenizer":
        """Reads `vocab.txt`. Raises InputError for a file that is no vocabulary."""
        return cls(vocabulary.load(path), lower_case, special_tokens_in_text)

    @property
    def vocab_size(self) -> int:
        return len(self.vocab)

    def tokenize(self, texts) -> tf.RaggedTensor:
        """Texts, string [batch] -> ids, int32 [batch, (tokens)], without special tokens."""
        return self._tokenize_batch(_batch_of_strings(texts))

    def tokenize_with_offsets(self, texts) -> Spans:
        """The same ids, with the place of each token in the original text."""
        return self._span_batch(_batch_of_strings(texts))

    def _tokenize(self, texts):
        if self.special_tokens_in_text:
            texts = _mark_special(texts)
        return self._resolve(self._wordpiece.tokenize(self._normalizer.normalize(texts)))

    def _resolve(self, ids):
        """The ids behind the vocabulary's end are those of the signs."""
        if not self.special_tokens_in_text:
            return ids
        values = tf.where(ids.values == self.vocab_size, self.mask_id, ids.values)
        return ids.with_values(tf.where(values == self.vocab_size + 1, self.sep_id, values))

    def _span(self, original):
        texts = _mark_special(original) if self.special_tokens_in_text else original
        moved_rows = tf.where(~self._normalizer.is_plain(texts))
        plain = tf.strings.lower(texts) if self.lower_case else texts
        aligned = self._normalizer.align(tf.gather_nd(texts, moved_rows))
        ids, starts, ends = self._wordpiece.tokenize_with_offsets(
            tf.tensor_scatter_nd_update(plain, moved_rows, aligned.texts)
        )
        token_rows = row_ids(ids.row_splits)
        # Where the bytes of a row begin in the alignment; -1 for plain rows, which have none.
        base = tf.fill(tf.shape(texts, tf.int64), tf.constant(-1, tf.int64))
        base = tf.gather(tf.tensor_scatter_nd_update(base, moved_rows, aligned.row_starts), token_rows)
        is_moved = base >= 0
        last = tf.maximum(tf.size(aligned.starts, tf.int64) - 1, 0)

        def original_offset(offsets, by_byte):
            place = tf.clip_by_value(base + offsets, 0, last)
            return tf.where(is_moved, tf.gather(tf.concat([by_byte, [0]], 0), place), offsets)

        byte_starts = original_offset(tf.cast(starts.values, tf.int64), aligned.starts)
        byte_ends = original_offset(tf.cast(ends.values, tf.int64) - 1, aligned.ends)
        byte_ends = tf.where(is_moved, byte_ends, byte_ends + 1)
        if self.special_tokens_in_text:  # a sign stands one byte behind the opening bracket and is three bytes long
            is_mask, is_sep = ids.values == self.vocab_size, ids.values == self.vocab_size + 1
            byte_starts -= tf.cast(is_mask | is_sep, tf.int64)
            byte_ends += tf.cast(is_sep, tf.int64) + 2 * tf.cast(is_mask, tf.int64)
        byte_starts, byte_ends = ids.with_values(byte_starts), ids.with_values(byte_ends)
        return Spans(
            self._resolve(ids),
            byte_starts,
            byte_ends,
            _bytes_to_characters(original, byte_starts),
            _bytes_to_characters(original, byte_ends),
        )


def _batch_of_strings(texts) -> tf.Tensor:
    if not tf.is_tensor(texts):
        texts = tf.constant(texts, tf.string)
    if texts.dtype != tf.string or texts.shape.rank not in (1, None):
        raise ValueError(f"texts must be strings [batch]. Received: {texts.dtype.name} {texts.shape}")
    return texts


def _reachable(vocab: list[str]) -> list[str]:
    """The vocabulary with placeholders for tokens that google's code can never give, but the op would: those with white
    space (the official Chinese one has U+2028) or a reserved character."""
    never = re.compile(rf"[\s{RESERVED}]")
    return [f"[never{index}]" if never.search(token) else token for index, token in enumerate(vocab)]


def _mark_special(texts):
    """Replaces `[MASK]` and `[SEP]` by signs, bytes for bytes, so that offsets stay."""
    texts = tf.strings.regex_replace(texts, f"[{MASK_SIGN}{SEP_SIGN}]", UNKNOWN)
    texts = tf.strings.regex_replace(texts, re.escape(MASK), f" {MASK_SIGN}  ")
    return tf.strings.regex_replace(texts, re.escape(SEP), f" {SEP_SIGN} ")


def _bytes_to_characters(texts, offsets: tf.RaggedTensor) -> tf.RaggedTensor:
    """Byte offsets at character boundaries -> number of characters before them."""
    is_ascii = tf.reduce_all(tf.strings.length(texts) == tf.strings.length(texts, unit="UTF8_CHAR"))

    def count():
        _, starts = tf.strings.unicode_decode_with_offsets(texts, "UTF-8", errors="ignore")
        # One ascending sequence over the batch: each row's bytes come behind those of the rows before it.
        shift = tf.cumsum(tf.cast(tf.strings.length(texts), tf.int64) + 1, exclusive=True)
        rows = row_ids(offsets.row_splits)
        places = starts.values + tf.gather(shift, row_ids(starts.row_splits))
        found = tf.searchsorted(places, offsets.values + tf.gather(shift, rows), out_type=tf.int64)
        return found - tf.gather(starts.row_starts(), rows)

    return offsets.with_values(tf.cond(is_ascii, lambda: offsets.values, count))
