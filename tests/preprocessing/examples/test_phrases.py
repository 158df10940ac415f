"""Phrases: found in token ids as a plain search finds them, masked whole; and how their list is read."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocessing import features, vocab_file
from preprocessing.errors import InputError
from preprocessing.examples import counter_random, masking, phrases
from preprocessing.tokenizer import BertTokenizer

WORDS, PIECES = 12, 6
PAD, UNK, CLS, SEP, MASK = range(5)
V = 5 + WORDS + PIECES
CONTINUES = np.arange(V) >= 5 + WORDS
SPECIAL = (CLS, SEP, PAD)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    path = tmp_path_factory.mktemp("vocab") / "vocab.txt"
    vocab_file.save([*features.SPECIAL_TOKENS, "new", "york", "##er", "city", "the"], path)
    return BertTokenizer.from_vocab(path)


phrase = st.lists(st.integers(5, V - 1), min_size=1, max_size=4).filter(lambda ids: not CONTINUES[ids[0]])
row = st.lists(st.integers(5, V - 1) | st.just(SEP), min_size=0, max_size=20)


def padded(rows, width=24):
    ids = np.zeros((len(rows), width), np.int32)
    for at, tokens in enumerate(rows):
        ids[at, : len(tokens) + 2] = [CLS, *tokens, SEP]
    return ids


def starts_and_inside(ids):
    candidates = ~np.isin(ids, SPECIAL)
    starts = masking._word_starts(ids, candidates, vocabulary([]))
    return starts, candidates & ~starts


def vocabulary(known):
    found = phrases.Phrases(known, V) if known else None
    return masking.MaskingVocabulary(MASK, SPECIAL, np.arange(5, V, dtype=np.int32), CONTINUES, found)


def plainly(ids, starts, inside, known):
    """{(row, column): pieces}: from left to right, the longest that fits and ends with a word."""
    found = {}
    for at in range(len(ids)):
        column = 0
        while column < ids.shape[1]:
            fits = [
                len(phrase)
                for phrase in known
                if starts[at, column]
                and ids[at, column : column + len(phrase)].tolist() == list(phrase)
                and not inside[at, column + len(phrase) : column + len(phrase) + 1].any()
            ]
            if fits:
                found[at, column] = max(fits)
            column += max(fits, default=1)
    return found


@given(st.lists(phrase, min_size=1, max_size=30), st.lists(row, min_size=1, max_size=6))
@settings(deadline=None, max_examples=150)
def test_found_as_a_plain_search_finds_them(known, rows):
    ids = padded(rows)
    starts, inside = starts_and_inside(ids)
    lengths = phrases.Phrases(known, V).lengths(ids, starts, inside)
    assert {place: lengths[place] for place in zip(*np.nonzero(lengths), strict=True)} == plainly(
        ids, starts, inside, known
    )
    going_on = phrases.inside(lengths)
    assert going_on.sum() == (lengths - 1)[lengths > 0].sum()


def test_the_longest_counts_and_only_between_borders_of_words():
    new, york, city, er = 5, 6, 7, 5 + WORDS
    ids = padded([[new, york, city, new, york], [new, york, er], [york, new, york], [new, SEP, york]])
    found = phrases.Phrases([[new, york], [new, york, city]], V).lengths(ids, *starts_and_inside(ids))
    assert [(r, c, found[r, c]) for r, c in np.argwhere(found)] == [(0, 1, 3), (0, 4, 2), (2, 2, 2)]


@given(st.lists(phrase, min_size=1, max_size=20), st.lists(row, min_size=1, max_size=6), st.integers(0, 100))
@settings(deadline=None, max_examples=100)
def test_masked_whole_or_not_at_all(known, rows, seed):
    ids = padded(rows)
    made = masking.mask_batch(
        ids,
        counter_random.bits(seed, np.arange(len(ids))),
        vocabulary(known),
        max_predictions=8,
        masked_lm_prob=0.4,
        masking="phrases",
    )
    starts, inside = starts_and_inside(ids)
    found = plainly(ids, starts, inside, known)
    masked = np.zeros(len(ids), int)
    for (at, column), length in found.items():
        chosen = set(made.positions[at, : made.count[at]].tolist())
        pieces = set(range(column, column + length))
        assert chosen >= pieces or not chosen & pieces
        masked[at] += chosen >= pieces
    assert made.phrases_found.tolist() == [sum(place[0] == at for place in found) for at in range(len(ids))]
    assert made.phrases_masked.tolist() == masked.tolist()


def test_without_a_phrase_that_is_there_it_is_whole_word_masking():
    ids = padded([[5, 6, 5 + WORDS, 7, 8, 9]] * 50)
    keys = counter_random.bits(1, np.arange(50))
    one, other = (
        masking.mask_batch(ids, keys, vocabulary([[10, 11]]), max_predictions=4, masking=kind)
        for kind in ("phrases", "whole-word")
    )
    assert np.array_equal(one.input_ids, other.input_ids)
    with pytest.raises(InputError, match="masking phrases needs a list"):
        masking.mask_batch(ids, keys, vocabulary([]), max_predictions=4, masking="phrases")


class TestList:
    def test_what_is_set_aside_is_told_by_file_and_line(self, tokenizer, tmp_path):
        path = tmp_path / "phrases.txt"
        path.write_bytes(
            b"\xef\xbb\xbfNew York\r\n\nnew yorker\n\xff\xfe\nnew delhi\n NEW  york \n"
            b"\xe2\x80\x8b\nthe city the city\nthe\n"
        )
        known = phrases.load(str(path), tokenizer, longest=3)
        assert known.pieces == [(5, 6), (5, 6, 7), (9,)]
        assert [(row["line"], row["reason"]) for row in known.set_aside] == [
            (4, "not UTF-8"),
            (5, "a word of it is [UNK] to the vocabulary"),
            (6, "the pieces of line 1"),
            (7, "nothing is left of it when it is tokenized"),
            (8, "4 pieces, more than the 3 that can be masked together"),
        ]
        assert known.report() == {"phrase_lines": 8, "phrase_lines_set_aside": 5}
        assert next(known.told()).endswith(f"the first is {path}:4: not UTF-8")
        shuffled = tmp_path / "shuffled.txt"
        shuffled.write_text("the\nnew yorker\nnew york")
        assert phrases.load(str(shuffled), tokenizer).fingerprint() == known.fingerprint()

    @pytest.mark.parametrize(
        ("text", "reason"), [("", "no line"), ("\n new delhi\n", r"line 2: a word of it is \[UNK\]")]
    )
    def test_none_that_can_be_masked(self, tokenizer, tmp_path, text, reason):
        (tmp_path / "a.txt").write_text(text)
        with pytest.raises(InputError, match=rf"a\.txt: a list of phrases must have one.*Received: {reason}"):
            phrases.load(str(tmp_path / "a.txt"), tokenizer)

    def test_no_file(self, tokenizer, tmp_path):
        with pytest.raises(InputError, match=r"none\.txt: the list of phrases cannot be read \(No such file"):
            phrases.load(str(tmp_path / "none.txt"), tokenizer)
