"""Masked-token predictions, vectorised over a batch of examples.

Rules (google-research/bert's `create_masked_lm_predictions`): n = min(P, max(1, round(length * masked_lm_prob))) tokens
of an example are predicted, length counting [CLS] and [SEP] and halves rounding to even; of those 80 % become [MASK],
10 % stay, 10 % become a random token. Two deviations, both for the better: random tokens are ordinary ones (google
draws [PAD] and [unused*] too), and a word does not reach across a [SEP].

Shapes: N examples, L = max_seq_length, P = max_predictions, W = words of the longest example.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from preprocessing import features
from preprocessing.errors import InputError
from preprocessing.examples import counter_random
from preprocessing.examples import phrases as phrase_lists
from preprocessing.examples.counter_random import Keys
from preprocessing.examples.phrases import Phrases
from preprocessing.settings import Masking

Ints = npt.NDArray[np.integer]

MASKED_SHARE, KEPT_SHARE = 0.8, 0.1

# Purposes of an example's random numbers; positions are added to them.
_ORDER, _FATE, _TOKEN, _LENGTH = (np.uint64(purpose << 20) for purpose in range(1, 5))
_LONGEST_NGRAM = 3
_NGRAM_SHARES = np.cumsum([6 / 11, 3 / 11, 2 / 11])  # proportional to 1/n (SpanBERT and ALBERT prefer short ones too)


@dataclasses.dataclass(frozen=True)
class MaskingVocabulary:
    """What masking must know of the vocabulary. `continues` bool [V]: the token is a `##` piece. `phrases`: those that
    masking `phrases` masks whole."""

    mask_id: int
    special_ids: tuple[int, ...]  # never predicted: [CLS], [SEP], [PAD]
    ordinary_ids: Ints
    continues: npt.NDArray[np.bool_]
    phrases: Phrases | None = None

    @classmethod
    def of(cls, tokenizer, phrases: Sequence[Sequence[int]] = ()) -> "MaskingVocabulary":
        """From a `tokenizer.BertTokenizer`, and the pieces of phrases (`phrases.load`), if there are any."""
        if tokenizer.mask_id is None:
            raise InputError(
                f"masking needs the token {features.MASK}. Received: a vocabulary without it; write it on the line of "
                "a token that is not used"
            )
        return cls(
            int(tokenizer.mask_id),
            (int(tokenizer.cls_id), int(tokenizer.sep_id), int(tokenizer.pad_id)),
            np.asarray(tokenizer.ordinary_ids, np.int32),
            np.array([token.startswith("##") for token in tokenizer.vocab]),
            Phrases(phrases, len(tokenizer.vocab)) if phrases else None,
        )


@dataclasses.dataclass(frozen=True)
class Masked:
    """input_ids [N, L] with masks applied; positions and ids int [N, P]; weights float32 [N, P]; count int [N];
    phrases that were found, and those of them that are predicted, whole, int [N]."""

    input_ids: Ints
    positions: Ints
    ids: Ints
    weights: npt.NDArray[np.float32]
    count: Ints
    phrases_found: Ints
    phrases_masked: Ints


def mask_batch(
    input_ids: Ints,
    keys: Keys,
    vocabulary: MaskingVocabulary,
    *,
    max_predictions: int,
    masked_lm_prob: float = 0.15,
    masking: Masking = "token",
    masked_share: float = MASKED_SHARE,
    kept_share: float = KEPT_SHARE,
) -> Masked:
    """Chooses and masks predictions in `input_ids` int [N, L] (padding is [PAD]). Each example's outcome depends on its
    ids and its key (uint64 [N]) alone."""
    candidates = ~np.isin(input_ids, vocabulary.special_ids)
    lengths = (input_ids != vocabulary.special_ids[2]).sum(axis=1)
    limit = np.minimum(max_predictions, np.maximum(1, np.rint(lengths * masked_lm_prob).astype(np.int64)))
    limit = np.minimum(limit, candidates.sum(axis=1))
    if masking == "none":
        limit = np.zeros_like(limit)
    phrases = np.zeros_like(input_ids)  # how many pieces the phrase has that begins there
    if masking in ("whole-word", "ngram", "phrases"):
        longest = _LONGEST_NGRAM if masking == "ngram" else 1
        starts = _word_starts(input_ids, candidates, vocabulary)
        if masking == "phrases":
            phrases = _phrase_lengths(input_ids, candidates, starts, vocabulary)
            starts &= ~phrase_lists.inside(phrases)
        positions, count = _choose_words(candidates, starts, keys, limit, max_predictions, longest)
    else:
        positions, count = _choose_tokens(candidates, keys, limit, max_predictions), limit
    chosen = np.arange(max_predictions) < count[:, None]
    positions = np.where(chosen, positions, 0)
    ids = np.where(chosen, np.take_along_axis(input_ids, positions, axis=1), 0)

    fate = counter_random.uniform(keys[:, None], _FATE + positions.astype(np.uint64))
    drawn = counter_random.uniform(keys[:, None], _TOKEN + positions.astype(np.uint64))
    random_ids = vocabulary.ordinary_ids[counter_random.below(drawn, len(vocabulary.ordinary_ids))]
    written = np.where(
        fate < masked_share, vocabulary.mask_id, np.where(fate < masked_share + kept_share, ids, random_ids)
    )
    masked = input_ids.copy()
    rows, columns = np.nonzero(chosen)
    masked[rows, positions[rows, columns]] = written[rows, columns]
    whole = chosen & (np.take_along_axis(phrases, positions, axis=1) > 0)
    counts = np.count_nonzero(phrases, axis=1), np.count_nonzero(whole, axis=1)
    return Masked(masked, positions, ids, chosen.astype(np.float32), count, *counts)


def content_keys(input_ids: Ints, seed: int, epoch: int) -> Keys:
    """A key for each example [N] from its content, a seed and an epoch: masks drawn at training time are then the same
    in every run whatever the order and the batches, and new in each epoch."""
    length = np.arange(1, input_ids.shape[1] + 1, dtype=np.uint64)
    mixed = counter_random.bits(input_ids.astype(np.uint64) + counter_random.named_key(seed, epoch), length)
    return counter_random.bits(np.bitwise_xor.reduce(mixed, axis=1), 1)


def mask_features(batch: dict, vocabulary: MaskingVocabulary, *, seed: int, epoch: int, masked_lm_prob: float = 0.15,
                  masking: Masking = "token") -> dict:  # fmt: skip
    """Masks a batch of examples that were stored with masking `none`: dict of arrays with the names of
    `preprocessing.features`, in and out, P as in the batch."""
    input_ids = np.asarray(batch[features.INPUT_IDS])
    masked = mask_batch(
        input_ids,
        content_keys(input_ids, seed, epoch),
        vocabulary,
        max_predictions=np.shape(batch[features.MASKED_LM_IDS])[1],
        masked_lm_prob=masked_lm_prob,
        masking=masking,
    )
    return dict(batch) | {
        features.INPUT_IDS: masked.input_ids.astype(input_ids.dtype),
        features.MASKED_LM_POSITIONS: masked.positions.astype(np.int32),
        features.MASKED_LM_IDS: masked.ids.astype(np.int32),
        features.MASKED_LM_WEIGHTS: masked.weights,
    }


def _choose_tokens(candidates, keys, limit, max_predictions):
    """Positions [N, P], of which the first `limit` are a uniform sample of the candidates, ascending."""
    length = candidates.shape[1]
    width = min(max_predictions, length)
    places = np.arange(length, dtype=np.uint64)
    order = counter_random.bits(keys[:, None], _ORDER + places)
    # The position rides in the low bits, so that one plain sort of integers gives the sample.
    low = np.uint64((1 << length.bit_length()) - 1)
    order |= low
    order ^= low ^ places
    order[~candidates] = np.uint64(2**64 - 1)
    order.sort(axis=1)
    sample = (order[:, :width] & low).astype(np.int64)
    sample[np.arange(width) >= limit[:, None]] = length
    sample.sort(axis=1)
    return np.pad(sample, ((0, 0), (0, max_predictions - width)))


def _word_starts(input_ids, candidates, vocabulary):
    """bool [N, L]"""
    after_special = np.pad(~candidates[:, :-1], ((0, 0), (1, 0)), constant_values=True)
    return candidates & (after_special | ~vocabulary.continues[input_ids])


def _phrase_lengths(input_ids, candidates, starts, vocabulary):
    if vocabulary.phrases is None:
        raise InputError("masking phrases needs a list of phrases. Received: none; give --phrases FILE")
    return vocabulary.phrases.lengths(input_ids, starts, candidates & ~starts)


def _choose_words(candidates, starts, keys, limit, max_predictions, longest):
    """As `_choose_tokens`, in whole words, which begin at `starts` (a phrase is one, too), or runs of up to `longest`
    neighbouring words of one segment.

    Words come in random order; one that would exceed the limit, or that touches what is chosen already, is skipped
    (a run is shortened first). Loops over the ranks of the words, all examples at once.
    """
    number, length = candidates.shape
    rows = np.arange(number)
    word = np.cumsum(starts, axis=1)  # 1-based; 0 before the first
    words = int(word.max(initial=0))
    # sizes, first position and segment of each word, [N, W + longest + 1]; word 0 and those past the end have size 0
    shape = (number, words + longest + 1)
    sizes = np.zeros(shape, np.int64)
    np.add.at(sizes, (np.broadcast_to(rows[:, None], word.shape)[candidates], word[candidates]), 1)
    segment = np.full(shape, -1)
    where = np.nonzero(starts)
    segment[where[0], word[where]] = np.cumsum(~candidates, axis=1)[where]
    order = np.full((number, words), np.uint64(2**64 - 1))
    order[where[0], word[where] - 1] = counter_random.bits(
        keys[where[0]], _ORDER + where[1].astype(np.uint64)
    ) >> np.uint64(1)
    ranked = np.argsort(order, axis=1, kind="stable") + 1
    wanted = 1 + np.searchsorted(
        _NGRAM_SHARES[:-1], counter_random.uniform(keys[:, None], _LENGTH + ranked.astype(np.uint64))
    )

    covered = np.zeros(shape, bool)
    count = np.zeros(number, np.int64)
    for rank in range(words):
        at = ranked[:, rank]
        free = (sizes[rows, at] > 0) & ~covered[rows, at]
        room = limit - count
        taken = np.zeros(number, np.int64)  # words taken from `at` on
        total = np.zeros(number, np.int64)
        going = free
        for step in range(longest):
            nearby = at + step
            total = total + sizes[rows, nearby]
            going = (
                going
                & (step < wanted[:, rank] if longest > 1 else going)
                & (sizes[rows, nearby] > 0)
                & (segment[rows, nearby] == segment[rows, at])
                & ~covered[rows, nearby]
                & (total <= room)
            )
            taken += going
        for step in range(longest):
            use = np.flatnonzero(step < taken)
            covered[use, at[use] + step] = True
            count[use] += sizes[use, at[use] + step]
        if np.array_equal(count, limit):
            break
    chosen = candidates & covered[rows[:, None], word]
    sample = np.where(chosen, np.arange(length), length)
    sample.sort(axis=1)
    width = min(max_predictions, length)
    return np.pad(sample[:, :width], ((0, 0), (0, max_predictions - width))), count
