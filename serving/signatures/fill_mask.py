"""The likeliest words for each `[MASK]` of a text.

Shapes: B batch, K top_k, M most `[MASK]`s in a text of the batch.
"""

import tensorflow as tf

from preprocessing import features
from serving.signatures import packing
from serving.signatures.base import DISTRIBUTIONS, PRETRAINING, TEXT, Inputs, Outputs, Signature, TextEncoder

GOLDEN_MASKED = ("Paris is the [MASK] of France.", "No mask here.", "[MASK] [MASK]ing the other one[MASK]")
MAX_SEQUENCE_BYTES = 8192  # longer texts get no `sequence`: it repeats the text once per mask and candidate


def _fill_mask(encoder: TextEncoder, text) -> Outputs:
    """The likeliest tokens for each literal `[MASK]`, the first `max_predictions` of a text.

    Returns: `tokens` string and `scores` float32 (probabilities, descending) [B, M, K], `sequence` string [B, M, K]
    (the text with that token in that place; empty for texts above 8 KiB), all padded with empty or zero behind each
    row's `mask_count` int32 [B]; `truncated` bool [B].
    """
    settings, tokenizer = encoder.settings, encoder.tokenizer
    text = tf.strings.unicode_transcode(text, "UTF-8", "UTF-8")
    packed = _pack_with_masks(encoder, text)

    is_mask = packed.input_ids == tokenizer.mask_id
    answered = tf.cumsum(tf.cast(is_mask, tf.int32), 1) <= settings.max_predictions
    where = tf.where(is_mask & answered)
    row, batch = where[:, 0], tf.shape(text, tf.int64)[0]
    # One prediction per row of a batch of masks, so that texts with few masks do not wait for one with many.
    only = row * tf.shape(is_mask, tf.int64)[1] + where[:, 1]
    hidden = encoder.encode(packed, only=only)["sequence_output"]
    logits = encoder.model.masked_lm(hidden[:, None, :], tf.zeros([tf.size(row), 1], tf.int32))
    logits = logits[:, 0, : tokenizer.vocab_size]
    best, ids = tf.math.top_k(logits, min(settings.top_k, tokenizer.vocab_size))
    scores = tf.exp(best - tf.reduce_logsumexp(logits, -1, keepdims=True))
    tokens = tf.gather(encoder.vocab, ids)

    rows = tf.RaggedTensor.from_value_rowids(tf.range(tf.size(row)), row, batch)
    ordinal = tf.range(tf.size(row)) - tf.cast(tf.gather(rows.row_starts(), row), tf.int32)

    def padded(values):
        dense = rows.with_values(values).to_tensor()
        return tf.ensure_shape(dense, [None, None, values.shape[1]])

    return {
        "tokens": padded(tokens),
        "scores": padded(scores),
        "sequence": padded(sequences(tf.gather(text, row), ordinal, tokens)),
        "mask_count": tf.cast(rows.row_lengths(), tf.int32),
        "truncated": packed.truncated,
    }


def _pack_with_masks(encoder: TextEncoder, text) -> packing.Packed:
    """As `encoder.pack`, with [MASK]'s id for each literal `[MASK]`, which the tokenizer itself would take apart."""
    pieces = tf.strings.split(text, features.MASK)
    tokens = encoder.tokenizer.tokenize(pieces.values)
    mask = tf.fill([tokens.nrows(), 1], encoder.tokenizer.mask_id)
    followed = packing.rows(tf.concat([tokens, tf.RaggedTensor.from_tensor(mask)], 1))
    # A text's tokens are those of its pieces, each followed by a mask, without the last mask.
    ends = tf.concat([[0], tf.cumsum(followed.lengths)], 0)
    splits = tf.gather(ends, pieces.row_splits)
    return encoder.pack_rows(packing.Rows(followed.values, splits[:-1], tf.maximum(splits[1:] - splits[:-1] - 1, 0)))


def sequences(text, ordinal, tokens):
    """The text of each mask (string [n]) with its `ordinal`-th `[MASK]` (int32 [n]) replaced by each of `tokens`
    [n, K]; a word piece (`##ing`) is joined to what stands before it. Other masks stay."""
    short = tf.strings.length(text) <= MAX_SEQUENCE_BYTES
    text = tf.where(short, text, "")
    # Each piece of the text with the mask behind it; the running sum of their bytes is where the next piece starts.
    sizes = tf.strings.length(tf.strings.split(text, features.MASK)) + len(features.MASK)
    ends = tf.cumsum(sizes.to_tensor(), axis=1)
    ends = tf.pad(ends, [[0, 0], [0, tf.maximum(tf.reduce_max(ordinal) + 1 - tf.shape(ends)[1], 0)]])
    end = tf.minimum(tf.gather(ends, ordinal, axis=1, batch_dims=1), tf.strings.length(text))
    before = tf.strings.substr(text, tf.zeros_like(end), tf.maximum(end - len(features.MASK), 0))
    after = tf.strings.substr(text, end, tf.strings.length(text) - end)

    candidates = tf.shape(tokens)[1]
    is_piece = tf.strings.regex_full_match(tokens, "##.+")
    without_blanks = tf.strings.regex_replace(before, r"\s+$", "")
    before = tf.where(is_piece, without_blanks[:, None], before[:, None])
    words = tf.where(is_piece, tf.strings.regex_replace(tokens, "^##", ""), tokens)
    joined = tf.strings.join([before, words, tf.repeat(after[:, None], candidates, 1)])
    return tf.where(short[:, None], joined, "")


def _no_masked_lm(encoder: TextEncoder) -> str | None:
    if not encoder.model.masked_lm:
        return "the checkpoint has no masked-language head"
    return "the vocabulary has no [MASK]" if encoder.tokenizer.mask_id is None else None


def _masked_texts(encoder: TextEncoder) -> list[Inputs]:
    return [{TEXT.name: list(GOLDEN_MASKED)}]


def _long_masked(encoder: TextEncoder, length: int) -> tuple[str, ...]:
    return (f"{encoder.text_of(length - 3)} {features.MASK}",)


FILL_MASK = Signature(
    "fill_mask",
    (TEXT,),
    _fill_mask,
    # Rounding may change the places of candidates that are about as likely.
    rounded={"scores": DISTRIBUTIONS, "tokens": None, "sequence": None},
    missing=_no_masked_lm,
    golden=_masked_texts,
    warm_up=_long_masked,
    kind=PRETRAINING,
    row_count="mask_count",
)
