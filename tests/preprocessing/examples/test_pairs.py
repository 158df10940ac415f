"""Pairs: google's rules, checked against a plain statement of them, and what must hold for every pair."""

import collections
import dataclasses
import hashlib
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocessing.corpus.documents import ID_TYPE
from preprocessing.examples import counter_random, pairs
from preprocessing.examples.token_store import Pool, TokenizedDocuments, concatenate, from_bytes, merge
from preprocessing.settings import ExampleSettings


def documents(sentence_lengths):
    """Tokenized documents from lists of sentence lengths; token t of the whole is t."""
    flat = [length for lengths in sentence_lengths for length in lengths]
    ids = b"".join(hashlib.md5(str(number).encode()).digest() for number in range(len(sentence_lengths)))
    return TokenizedDocuments(
        np.frombuffer(ids, ID_TYPE),
        np.array([len(lengths) for lengths in sentence_lengths], np.int32),
        np.array(flat, np.int32),
        np.arange(sum(flat), dtype=np.int32),
    )


def make(sentence_lengths, copy=0, **options):
    pool = Pool(documents(sentence_lengths))
    return pool, pairs.make_pairs(pool, np.arange(len(pool)), copy, ExampleSettings(**options))


DOCUMENTS = st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=12), min_size=2, max_size=6)
MANY = [[1 + (7 * n + 3 * m) % 50 for m in range(1 + n % 30)] for n in range(300)]


def google_cuts(ends, target, divide, change):
    """The loop of google's `create_instances_from_document`, sentence by sentence, given its random draws."""
    sentences = [list(range(a, b)) for a, b in itertools.pairwise(ends)]
    out, chunk, length, i, ordinal = [], [], 0, 0, 0
    while i < len(sentences):
        chunk.append(sentences[i])
        length += len(sentences[i])
        if i == len(sentences) - 1 or length >= target:
            a_end = 1
            if len(chunk) >= 2:
                a_end = 1 + int(divide[ordinal] * (len(chunk) - 1))  # randint(1, len - 1)
            tokens_a = [token for sentence in chunk[:a_end] for token in sentence]
            if len(chunk) == 1 or change[ordinal] < 0.5:
                out.append((tokens_a, None))
                i -= len(chunk) - a_end
            else:
                out.append((tokens_a, [token for sentence in chunk[a_end:] for token in sentence]))
            ordinal += 1
            chunk, length = [], 0
        i += 1
    return out


@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=30),
    target=st.integers(2, 125),
    random=st.randoms(use_true_random=False),
)
@settings(deadline=None)
def test_cuts_are_googles(lengths, target, random):
    ends = np.cumsum([5, *lengths]).tolist()
    divide, change = ([random.random() for _ in lengths] for _ in range(2))
    cuts: list[int] = []
    pairs._next_sentence(ends, target, divide, change, 0, cuts)
    ours = [cuts[at : at + 5] for at in range(0, len(cuts), 5)]
    wanted = google_cuts(ends, target, divide, change)
    assert [list(range(a, b)) for a, b, *_ in ours] == [a for a, _ in wanted]
    assert [None if b == -1 else list(range(b, c)) for _, _, b, c, _ in ours] == [b for _, b in wanted]


@given(a=st.integers(1, 200), b=st.integers(1, 200), room=st.integers(2, 60))
def test_truncation_takes_from_the_longer_side(a, b, room):
    size_a, size_b = a, b
    while size_a + size_b > room:  # google's truncate_seq_pair
        if size_a > size_b:
            size_a -= 1
        else:
            size_b -= 1
    one = [np.array([value]) for value in (0, a, 1000, 1000 + b, 0)]
    cut = pairs._truncate(pairs.SegmentPairs(*one, np.array([7], np.uint64), *one[:2]), room)
    assert (cut.a_end - cut.a_start, cut.b_end - cut.b_start) == (size_a, size_b)
    assert 0 <= cut.a_start[0] <= cut.a_end[0] <= a
    assert 1000 <= cut.b_start[0] <= cut.b_end[0] <= 1000 + b


def test_truncation_at_the_front_and_the_back_alike():
    keys = counter_random.bits(5, np.arange(20_000))
    heads = pairs._heads(keys, np.uint64(0), np.full(20_000, 100))
    assert abs(heads.mean() - 50) < 0.2
    assert abs(heads.std() - 5) < 0.1
    assert heads.min() >= 25


@given(lengths=DOCUMENTS, seed=st.integers(0, 99), length=st.sampled_from([5, 12, 64, 128]))
@settings(deadline=None)
def test_next_sentence_pairs(lengths, seed, length):
    pool, found = make(lengths, seed=seed, max_seq_length=length)
    a, b = found.a_end - found.a_start, found.b_end - found.b_start
    assert (a >= 1).all()
    assert (b >= 1).all()
    assert (a + b <= length - 3).all()
    true = found.label == 0
    assert (found.b_row[~true] != found.row[~true]).all()  # never from itself
    assert (found.b_row[true] == found.row[true]).all()
    assert (found.b_start[true] >= found.a_end[true]).all()
    for row, start, end in ((found.row, found.a_start, found.a_end), (found.b_row, found.b_start, found.b_end)):
        assert (start >= pool.sentence_ends[pool.first_sentence[row]]).all()
        assert (end <= pool.sentence_ends[pool.end_sentence[row]]).all()
    # Every document gives examples, and its first token stands in one of them unless truncation took it.
    assert set(found.row) == set(range(len(pool)))


def test_no_token_is_lost_where_nothing_is_truncated():
    pool, found = make([[3] * 40, [4] * 40, [5] * 7], max_seq_length=512, short_seq_prob=0.0)
    seen = collections.Counter()
    for start, end in zip(found.a_start, found.a_end, strict=True):
        seen.update(range(start, end))
    for start, end in zip(found.b_start[found.label == 0], found.b_end[found.label == 0], strict=True):
        seen.update(range(start, end))
    assert seen == collections.Counter(range(len(pool.tokens)))


def test_every_other_document_is_drawn_alike():
    pool, _ = make([[8] * 5] * 9, short_seq_prob=0.0)
    drawn = collections.Counter()
    for copy in range(400):
        found = pairs.make_pairs(pool, np.array([4]), copy, ExampleSettings(short_seq_prob=0.0))
        drawn.update(found.b_row[found.label == 1].tolist())
    total = sum(drawn.values())
    assert set(drawn) == set(range(9)) - {4}
    assert all(abs(count - total / 8) < 5 * (total / 8) ** 0.5 for count in drawn.values())


def test_half_of_the_pairs_are_random():
    _, found = make([[20] * 200] * 50, dupe_factor=1, short_seq_prob=0.0)
    assert len(found) > 1500
    assert abs(found.label.mean() - 0.5) < 0.06


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_short_targets(probability):
    _, found = make([[1] * 2000] * 100, short_seq_prob=probability, max_seq_length=128)
    total = (found.a_end - found.a_start) + (found.b_end - found.b_start)
    by_document = [total[(found.row == row)].max() for row in range(100)]
    if probability:
        assert min(by_document) < 30
        assert len(set(by_document)) > 40  # uniform in [2, 125], drawn once a document
    else:
        assert set(by_document) == {125}


def test_copies_and_seeds_differ_and_repeat():
    pool = Pool(documents(MANY))
    rows = np.arange(len(pool))
    one, again, copy, seed = (
        pairs.make_pairs(pool, rows, c, ExampleSettings(seed=s)) for c, s in ((0, 1), (0, 1), (1, 1), (0, 2))
    )
    assert np.array_equal(one.key, again.key)
    assert np.array_equal(one.b_start, again.b_start)
    assert not set(one.key.tolist()) & set(copy.key.tolist())
    assert not set(one.key.tolist()) & set(seed.key.tolist())
    assert len(set(one.key.tolist())) == len(one)


def test_the_order_of_the_documents_does_not_matter():
    all_ = documents(MANY)
    shuffled = merge([all_], np.random.default_rng(0).permutation(len(MANY)))
    twice = concatenate([shuffled, all_])
    settings_ = ExampleSettings()

    def texts(of):
        pool = Pool(of)
        found = pairs.make_pairs(pool, np.arange(len(pool)), 0, settings_)
        return pairs.assemble(pool.tokens, found, 128, -1, -2, -3)[0].tolist()

    assert texts(all_) == texts(shuffled) == texts(twice)
    assert Pool(twice).duplicates == len(MANY)


def test_rows_can_be_worked_off_in_parts():
    pool = Pool(documents(MANY))
    whole = pairs.make_pairs(pool, np.arange(len(pool)), 3, ExampleSettings())
    parts = [pairs.make_pairs(pool, np.arange(a, b), 3, ExampleSettings()) for a, b in ((0, 7), (7, 8), (8, 300))]
    for field in dataclasses.fields(whole):
        assert np.array_equal(getattr(whole, field.name), np.concatenate([getattr(p, field.name) for p in parts]))


def test_a_pool_of_one_document_is_refused():
    with pytest.raises(ValueError, match="two documents or more"):
        make([[1, 2, 3]])
    assert len(make([[1, 2, 3]], pairs="none")[1]) == 1


class TestSentenceOrder:
    @given(lengths=DOCUMENTS)
    @settings(deadline=None)
    def test_neighbours_one_way_or_the_other(self, lengths):
        _, found = make(lengths, pairs="sentence-order", max_seq_length=512, short_seq_prob=0.0)
        swapped = found.label == 1
        assert np.array_equal(found.a_end[~swapped], found.b_start[~swapped])
        assert np.array_equal(found.b_end[swapped], found.a_start[swapped])
        assert (found.row == found.b_row).all()

    def test_half_are_swapped_and_nothing_is_lost(self):
        pool, found = make([[20] * 200] * 40, pairs="sentence-order", max_seq_length=128, short_seq_prob=0.0)
        assert abs(found.label.mean() - 0.5) < 0.06
        total = (found.a_end - found.a_start) + (found.b_end - found.b_start)
        assert total.sum() > 0.85 * len(pool.tokens)  # what truncation leaves

    def test_one_sentence_gives_no_pair(self):
        assert len(make([[5], [6]], pairs="sentence-order")[1]) == 0


class TestPacked:
    @given(lengths=DOCUMENTS, length=st.sampled_from([5, 16, 128]))
    @settings(deadline=None)
    def test_every_token_once_in_whole_sentences(self, lengths, length):
        pool, found = make(lengths, pairs="none", max_seq_length=length, short_seq_prob=0.0)
        assert (found.b_end == found.b_start).all()
        assert (found.label == 0).all()
        sizes = found.a_end - found.a_start
        assert sizes.max() <= length - 2
        starts = sorted(zip(found.a_start.tolist(), found.a_end.tolist(), strict=True))
        assert starts[0][0] == 0
        assert all(one[1] == two[0] for one, two in itertools.pairwise(starts))
        assert starts[-1][1] == len(pool.tokens)
        cut_inside = set(found.a_end.tolist()) - set(pool.sentence_ends.tolist())
        assert bool(cut_inside) == any(size > length - 2 for document in lengths for size in document)

    def test_full(self):
        _, found = make([[10] * 500], pairs="none", max_seq_length=128, short_seq_prob=0.0)
        assert (found.a_end - found.a_start).tolist()[:-1] == [120] * (len(found) - 1)


class TestAssemble:
    def test_the_contract_s_example(self):
        tokens = np.array([1996, 2158, 2253, 2000, 1996, 3573], np.int32)
        one = [np.array([value]) for value in (0, 3, 3, 6, 0)]
        pair = pairs.SegmentPairs(*one, np.array([1], np.uint64), *one[:2])
        input_ids, input_mask, segment_ids = pairs.assemble(tokens, pair, 12, 101, 102, 0)
        assert input_ids.tolist() == [[101, 1996, 2158, 2253, 102, 2000, 1996, 3573, 102, 0, 0, 0]]
        assert input_mask.tolist() == [[1] * 9 + [0] * 3]
        assert segment_ids.tolist() == [[0] * 5 + [1] * 4 + [0] * 3]

    def test_single_segment(self):
        one = [np.array([value]) for value in (1, 3, 0, 0, 0)]
        pair = pairs.SegmentPairs(*one, np.array([1], np.uint64), *one[:2])
        input_ids, input_mask, segment_ids = pairs.assemble(np.array([7, 8, 9], np.int32), pair, 6, 101, 102, 0)
        assert input_ids.tolist() == [[101, 8, 9, 102, 0, 0]]
        assert input_mask.tolist() == [[1, 1, 1, 1, 0, 0]]
        assert segment_ids.tolist() == [[0] * 6]


class TestTokenStore:
    @given(lengths=st.lists(st.lists(st.integers(1, 5), min_size=1, max_size=4), min_size=1, max_size=6))
    def test_bytes_round_trip(self, lengths):
        one = documents(lengths)
        back = concatenate(list(from_bytes(one.to_bytes() + one.to_bytes())))
        for field in dataclasses.fields(one):
            value = getattr(one, field.name)
            assert np.array_equal(getattr(back, field.name), np.concatenate([value, value]))

    def test_runs_and_merge(self):
        all_ = documents([[1, 2], [3], [4, 5], [6]])
        assert [(label, part.tokens.tolist()) for label, part in all_.runs(np.array([3, 3, 1, 2]))] == [
            (3, [0, 1, 2, 3, 4, 5]),
            (1, list(range(6, 15))),
            (2, list(range(15, 21))),
        ]
        merged = merge([all_, documents([[2]])], np.array([3, 4, 1]))
        assert merged.tokens.tolist() == [*range(15, 21), 0, 1, *range(3, 6)]
        assert merged.sentence_lengths.tolist() == [6, 2, 3]
