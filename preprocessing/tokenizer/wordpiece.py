"""Text to WordPiece ids, exactly those of google-research/bert's `FullTokenizer`, as a TensorFlow graph.

The only text-to-ids code of the project: the same object works eagerly (Beam), in `tf.data` and inside a SavedModel.
Its custom ops (`NormalizeUTF8`, `FastWordpieceTokenizeWithOffsets`) are among those that TensorFlow Serving links.
"""

import os
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_text as text

from preprocessing import vocab_file
from preprocessing.errors import require
from preprocessing.features import CLS, MASK, PAD, SEP, SPECIAL_TOKENS, UNK
from preprocessing.tokenizer.normalization import (
    MASK_SIGN,
    MAX_WORD_CHARACTERS,
    RESERVED,
    SEP_SIGN,
    UNKNOWN,
    UNKNOWN_4_BYTES,
    Normalizer,
    row_ids,
    substitutes,
)

# Stand for added tokens in a text; not assigned either.
ADDED_SIGNS = tuple(map(chr, range(0xE01F0, 0xE1000)))


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

    `added` are tokens of the vocabulary that are one id wherever a text has them: True, as they are spelled; False, in
    whatever case and with whatever accents the tokenizer reads over. A word of more than `longest_word` characters is
    unknown. `mask_id` is None where the vocabulary has no [MASK].
    """

    def __init__(
        self,
        vocab: Sequence[str],
        lower_case: bool = True,
        special_tokens_in_text: bool = False,
        added: Mapping[str, bool] | None = None,
        longest_word: int = MAX_WORD_CHARACTERS,
    ):
        self.vocab = vocab_file.check(list(vocab))
        self.lower_case = lower_case
        self.special_tokens_in_text = special_tokens_in_text
        self.added, self.longest_word = added or {}, longest_word
        ids = vocab_file.ids(self.vocab)
        self.unk_id, self.cls_id, self.sep_id = (ids[token] for token in (UNK, CLS, SEP))
        self.pad_id, self.mask_id = ids.get(PAD, 0), ids.get(MASK)  # google pads with 0 whatever that is
        special = {token for token in ids if token in SPECIAL_TOKENS or re.fullmatch(r"\[unused[0-9]+\]", token)}
        self.ordinary_ids = np.array(sorted(ids[token] for token in ids.keys() - special), np.int32)
        moved = substitutes(self.vocab)
        self._normalizer = Normalizer(lower_case, longest_word, moved)
        # Ids behind the vocabulary's end, by what stands in the text for a token; longer tokens are looked for first.
        masked = self.unk_id if self.mask_id is None else self.mask_id
        self._signs = {MASK_SIGN: masked, SEP_SIGN: self.sep_id} if special_tokens_in_text else {}
        self._added = sorted(self.added.items(), key=lambda item: -len(item[0]))
        self._signs |= {sign: ids[token] for (token, _), sign in zip(self._added, ADDED_SIGNS, strict=False)}
        require(
            len(self._added) <= len(ADDED_SIGNS), f"added tokens must be {len(ADDED_SIGNS)} at most", len(self._added)
        )
        with tf.init_scope():  # the model is a constant of whatever graph uses it, not of the one it was made in
            self._wordpiece = text.FastWordpieceTokenizer(
                [token.translate(moved) for token in _reachable(self.vocab)] + list(self._signs),
                max_bytes_per_word=4
                * max(MAX_WORD_CHARACTERS, longest_word),  # never binds: the normalizer has seen to
                token_out_type=tf.int32,
                unknown_token=UNK,
            )
            self._folded = [(self._fold(token, exact), exact) for token, exact in self._added]
            batch = tf.TensorSpec([None], tf.string)
            self._tokenize_batch = tf.function(self._tokenize, input_signature=[batch], autograph=False)
            self._span_batch = tf.function(self._span, input_signature=[batch], autograph=False)

    @classmethod
    def from_vocab(
        cls, path: str | os.PathLike, lower_case: bool = True, special_tokens_in_text: bool = False
    ) -> "BertTokenizer":
        """Reads `vocab.txt`. Raises InputError for a file that is no vocabulary."""
        return cls(vocab_file.load(path), lower_case, special_tokens_in_text)

    def with_tokens(self, numbers: Sequence[int]) -> "BertTokenizer":
        """The same rules with these tokens of the vocabulary alone, each one's place its new id."""
        vocab = [self.vocab[number] for number in numbers]
        return BertTokenizer(vocab, self.lower_case, self.special_tokens_in_text, self.added, self.longest_word)

    @property
    def vocab_size(self) -> int:
        return len(self.vocab)

    def tokenize(self, texts) -> tf.RaggedTensor:
        """Texts, string [batch] -> ids, int32 [batch, (tokens)], without special tokens."""
        return self._tokenize_batch(_batch_of_strings(texts))

    def tokenize_with_offsets(self, texts) -> Spans:
        """The same ids, with the place of each token in the original text. Not with added tokens."""
        require(not self._added, "places need a tokenizer without added tokens", [token for token, _ in self._added])
        return self._span_batch(_batch_of_strings(texts))

    def _tokenize(self, texts):
        if self.special_tokens_in_text:
            texts = _mark_special(texts)
        if self._added:
            texts = tf.strings.regex_replace(texts, f"[{ADDED_SIGNS[0]}-{ADDED_SIGNS[-1]}]", UNKNOWN_4_BYTES)
        texts = self._normalizer.normalize(self._mark_added(texts, True))
        return self._resolve(self._wordpiece.tokenize(self._mark_added(texts, False)))

    def _fold(self, token: str, exact: bool) -> str:
        """What to look for: in the text, or in the normalized one."""
        return token if exact else self._normalizer.normalize(tf.constant([token])).numpy()[0].decode()

    def _mark_added(self, texts, wanted: bool):
        for (token, exact), sign in zip(self._folded, ADDED_SIGNS, strict=False):
            if exact is wanted:
                texts = tf.strings.regex_replace(texts, re.escape(token), f" {sign} ")
        return texts

    def _resolve(self, ids):
        """The ids behind the vocabulary's end are those of the signs."""
        if not self._signs:
            return ids
        behind = tf.constant(list(self._signs.values()), tf.int32)
        place = tf.maximum(ids.values - self.vocab_size, 0)
        return ids.with_values(tf.where(ids.values < self.vocab_size, ids.values, tf.gather(behind, place)))

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
    space (the official Chinese one has U+2028) or a reserved character, and those that stand there again."""
    never, ids = re.compile(rf"[\s{RESERVED}{ADDED_SIGNS[0]}-{ADDED_SIGNS[-1]}]"), vocab_file.ids(vocab)
    return [
        f"[never{index}]" if never.search(token) or ids.get(token) != index else token
        for index, token in enumerate(vocab)
    ]


def _mark_special(texts):
    """Replaces `[MASK]` and `[SEP]` by signs, bytes for bytes, so that offsets stay."""
    texts = tf.strings.regex_replace(texts, f"[{MASK_SIGN}{SEP_SIGN}]", UNKNOWN)
    texts = tf.strings.regex_replace(texts, re.escape(MASK), f" {MASK_SIGN}  ")
    return tf.strings.regex_replace(texts, re.escape(SEP), f" {SEP_SIGN} ")


def _bytes_to_characters(texts, offsets: tf.RaggedTensor) -> tf.RaggedTensor:
    """Byte offsets at character boundaries -> number of characters before them."""
    is_ascii = tf.reduce_all(tf.strings.regex_full_match(texts, r"[\x00-\x7f]*"))

    def count():
        _, starts = tf.strings.unicode_decode_with_offsets(texts, "UTF-8", errors="ignore")
        # One ascending sequence over the batch: each row's bytes come behind those of the rows before it.
        shift = tf.cumsum(tf.cast(tf.strings.length(texts), tf.int64) + 1, exclusive=True)
        rows = row_ids(offsets.row_splits)
        places = starts.values + tf.gather(shift, row_ids(starts.row_splits))
        found = tf.searchsorted(places, offsets.values + tf.gather(shift, rows), out_type=tf.int64)
        return found - tf.gather(starts.row_starts(), rows)

    return offsets.with_values(tf.cond(is_ascii, lambda: offsets.values, count))
