"""Masking: counts, positions, the 80/10/10 rule, whole words and runs, and masking at training time."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocessing.examples import counter_random, masking

PAD, UNK, CLS, SEP, MASK = range(5)
# 40 whole words, then 60 pieces that continue a word; ids 5 to 9 are [unused*].
VOCABULARY = masking.MaskingVocabulary(MASK, (CLS, SEP, PAD), np.arange(10, 110, dtype=np.int32), np.arange(110) >= 50)


def batch(lengths, width, seed=0):
    """input_ids [N, width]: [CLS] A [SEP] B [SEP] and padding; B begins with a `##` piece now and then."""
    random = np.random.default_rng(seed)
    ids = np.zeros((len(lengths), width), np.int32)
    for row, length in enumerate(lengths):
        ids[row, :length] = random.integers(10, 110, length)
        ids[row, 0] = CLS
        ids[row, length - 1] = SEP
        if length > 4:
            ids[row, random.integers(2, length - 2)] = SEP
    return ids


def mask(ids, masking_="token", key=1, **options):
    keys = counter_random.bits(key, np.arange(len(ids)))
    return masking.mask_batch(ids, keys, VOCABULARY, masking=masking_, **({"max_predictions": 20} | options))


MASKINGS = ["token", "whole-word", "ngram"]


@pytest.mark.parametrize("kind", MASKINGS)
@given(
    lengths=st.lists(st.integers(3, 64), min_size=1, max_size=20),
    most=st.integers(1, 70),
    probability=st.sampled_from([0.01, 0.15, 0.5, 1.0]),
    seed=st.integers(0, 1000),
)
@settings(deadline=None, max_examples=60)
def test_what_must_hold_for_every_example(kind, lengths, most, probability, seed):
    ids = batch(lengths, 64, seed)
    found = mask(ids, kind, seed, max_predictions=most, masked_lm_prob=probability)
    weights = found.weights > 0
    candidates = ~np.isin(ids, (PAD, CLS, SEP))
    wanted = np.minimum(most, np.maximum(1, np.rint(np.array(lengths) * probability)))
    wanted = np.minimum(wanted, candidates.sum(axis=1))
    count = weights.sum(axis=1)
    assert found.positions.shape == found.ids.shape == weights.shape == (len(ids), most)
    assert (count == found.count).all()
    assert (count <= wanted).all()
    if kind == "token":
        assert (count == wanted).all()
    rows, slots = np.nonzero(weights)
    positions = found.positions[rows, slots]
    assert candidates[rows, positions].all()  # specials and padding are never predicted
    assert np.array_equal(found.ids[rows, slots], ids[rows, positions])
    restored = found.input_ids.copy()
    restored[rows, positions] = found.ids[rows, slots]
    assert np.array_equal(restored, ids)  # and nothing else was touched
    for row in range(len(ids)):
        chosen = found.positions[row, : count[row]]
        assert (np.diff(chosen) > 0).all()
        assert weights[row, : count[row]].all()
    assert not found.positions[~weights].any()
    assert not found.ids[~weights].any()
    replaced = found.input_ids[rows, positions]
    assert np.isin(replaced, [MASK, *VOCABULARY.ordinary_ids]).all()


def test_number_of_predictions_rounds_halves_to_even():
    ids = batch([10, 30, 50], 64)  # 1.5, 4.5 and 7.5 at 0.15
    assert mask(ids).count.tolist() == [2, 4, 8] == [round(length * 0.15) for length in (10, 30, 50)]
    assert mask(ids, max_predictions=3).count.tolist() == [2, 3, 3]


@pytest.mark.parametrize(("masked", "kept"), [(1.0, 0.0), (0.0, 1.0), (0.0, 0.0)])
def test_forced_fates(masked, kept):
    ids = batch([64] * 200, 64)
    found = mask(ids, masked_share=masked, kept_share=kept)
    now = np.take_along_axis(found.input_ids, found.positions, axis=1)[found.weights > 0]
    if masked:
        assert (now == MASK).all()
    elif kept:
        assert np.array_equal(found.input_ids, ids)
    else:
        assert np.isin(now, VOCABULARY.ordinary_ids).all()
        assert len(np.unique(now)) == 100


def test_shares_and_positions_over_100_000_examples():
    ids = np.broadcast_to(batch([32], 32), (100_000, 32))
    found = mask(ids, max_predictions=5)
    now = np.take_along_axis(found.input_ids, found.positions, axis=1)
    total = found.count.sum()
    assert total == 500_000
    share = (now == MASK).sum() / total
    kept = (now == found.ids).sum() / total
    assert abs(share - 0.8) < 0.003
    assert abs(kept - (0.1 + 0.1 / 100)) < 0.002  # a random token is the old one now and then
    times = np.bincount(found.positions.reshape(-1), minlength=32)
    candidates = ~np.isin(ids[0], (PAD, CLS, SEP))
    expected = total / candidates.sum()
    assert (np.abs(times[candidates] - expected) < 5 * expected**0.5).all()


def test_the_batch_does_not_matter():
    ids = batch(list(range(3, 64)), 64)
    keys = counter_random.bits(9, np.arange(len(ids)))
    for kind in MASKINGS:
        whole = masking.mask_batch(ids, keys, VOCABULARY, max_predictions=8, masking=kind)
        order = np.random.default_rng(1).permutation(len(ids))
        mixed = masking.mask_batch(ids[order], keys[order], VOCABULARY, max_predictions=8, masking=kind)
        assert np.array_equal(whole.input_ids[order], mixed.input_ids)
        assert np.array_equal(whole.positions[order], mixed.positions)


def words_of(row):
    """Lists of positions of the words of one example."""
    words, before_special = [], True
    for position, token in enumerate(row):
        if token in (PAD, CLS, SEP):
            before_special = True
            continue
        if VOCABULARY.continues[token] and not before_special:
            words[-1].append(position)
        else:
            words.append([position])
        before_special = False
    return words


@pytest.mark.parametrize("probability", [0.15, 0.6])
def test_whole_words_are_masked_whole(probability):
    ids = batch(np.random.default_rng(3).integers(5, 64, 300), 64)
    found = mask(ids, "whole-word", masked_lm_prob=probability)
    for row in range(len(ids)):
        chosen = set(found.positions[row, : found.count[row]].tolist())
        for word in words_of(ids[row]):
            assert chosen.issuperset(word) or chosen.isdisjoint(word)
        # A word is only skipped where it does not fit: none of what is left would.
        limit = min(20, max(1, round(int((ids[row] > 0).sum()) * probability)))
        left = [len(word) for word in words_of(ids[row]) if chosen.isdisjoint(word)]
        assert all(len(chosen) + size > limit for size in left)


def test_a_word_does_not_reach_across_a_separator():
    ids = np.array([[CLS, 10, SEP, 50, 51, SEP]])  # B begins with ##
    for key in range(50):
        found = mask(ids, "whole-word", key, masked_lm_prob=0.2)
        assert found.positions[0, : found.count[0]].tolist() == [1]  # the only word of one token
    assert words_of(ids[0]) == [[1], [3, 4]]


def test_runs_of_words():
    ids = np.full((4000, 64), 10, np.int32)  # whole words all
    ids[:, 0], ids[:, 63], ids[:, 31] = CLS, SEP, SEP
    found = mask(ids, "ngram", masked_lm_prob=0.15)
    single = mask(ids, "whole-word", masked_lm_prob=0.15)
    assert (found.count == 10).all()

    def neighbours(of):
        return (np.diff(of.positions[:, :10]) == 1).mean()

    assert neighbours(single) < 0.2
    assert neighbours(found) > 0.35


def test_none_leaves_everything():
    ids = batch([20, 30], 32)
    found = mask(ids, "none")
    assert np.array_equal(found.input_ids, ids)
    assert not found.weights.any()


class TestAtTrainingTime:
    def features(self, ids):
        empty = np.zeros((len(ids), 6), np.int32)
        return {
            "input_ids": ids,
            "masked_lm_positions": empty,
            "masked_lm_ids": empty,
            "masked_lm_weights": empty.astype(np.float32),
            "next_sentence_labels": np.zeros(len(ids), np.int32),
        }

    def test_same_for_an_epoch_whatever_the_batches_and_new_in_the_next(self):
        ids = batch([30] * 40, 32)
        whole = masking.mask_features(self.features(ids), VOCABULARY, seed=1, epoch=0)
        some = masking.mask_features(self.features(ids[7:9]), VOCABULARY, seed=1, epoch=0)
        assert np.array_equal(whole["input_ids"][7:9], some["input_ids"])
        later = masking.mask_features(self.features(ids), VOCABULARY, seed=1, epoch=1)
        other = masking.mask_features(self.features(ids), VOCABULARY, seed=2, epoch=0)
        assert not np.array_equal(whole["masked_lm_positions"], later["masked_lm_positions"])
        assert not np.array_equal(whole["masked_lm_positions"], other["masked_lm_positions"])

    def test_features_keep_their_names_shapes_and_types(self):
        before = self.features(batch([30] * 4, 32))
        after = masking.mask_features(before, VOCABULARY, seed=1, epoch=0)
        assert {name: (v.shape, v.dtype) for name, v in before.items()} == {
            name: (v.shape, v.dtype) for name, v in after.items()
        }
        assert after["masked_lm_weights"].sum() > 0
