"""Windows of words, of the tables and of the served graph alike."""

import numpy as np
import pytest
import tensorflow as tf

from preprocessing import features
from preprocessing.tasks.word_windows import pack, pieces
from preprocessing.tokenizer import BertTokenizer
from serving.signatures import packing, word_windows

WORDS = ["a", "b", "run", "##s", "##ning"]
VOCAB = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
TOKENIZER = BertTokenizer(VOCAB)


def sentences(seed, count, longest):
    random = np.random.default_rng(seed)
    some = ["a", "runs", "running", "\u200b", "xyz", "a.b", "b"]
    return [random.choice(some, random.integers(1, longest)).tolist() for _ in range(count)]


def test_pieces_are_those_of_the_words():
    found = pieces(TOKENIZER, [["runs", "\u200b"], [" ", "a", "running"]])
    assert [VOCAB[number] for number in found.ids] == ["run", "##s", "[UNK]", "[UNK]", "a", "run", "##ning"]
    assert found.is_first.tolist() == [True, False, True, True, True, True, False]
    assert (found.lengths.tolist(), found.removed.tolist()) == ([3, 4], [1, 1])


@pytest.mark.parametrize("length", [8, 9, 12, 16, 40])
def test_every_word_is_answered_once_at_its_first_piece(length):
    given = sentences(length, 60, 60)
    of = pieces(TOKENIZER, given)
    found = pack(TOKENIZER, of, length)
    answered = found.words[found.words >= 0]
    assert answered.tolist() == list(range(sum(map(len, given))))  # once, and in order
    ids, mask = found.features[features.INPUT_IDS], found.features[features.INPUT_MASK]
    firsts = of.ids[of.is_first]
    assert (ids[found.words >= 0] == firsts).all()
    for row in range(len(ids)):
        kept = int(mask[row].sum())
        assert (ids[row, 0], ids[row, kept - 1], mask[row, :kept].all()) == (2, 3, True)
        assert not ids[row, kept:].any()
    # A word inside of a long sentence has an eighth of a window around it.
    around = np.argwhere(found.words >= 0)
    for row, place in around[np.isin(found.sentences[around[:, 0]], np.flatnonzero(of.lengths > length - 2))]:
        is_start = row == 0 or found.sentences[row - 1] != found.sentences[row]
        is_end = row + 1 == len(ids) or found.sentences[row + 1] != found.sentences[row]
        assert is_start or place - 1 >= (length - 2) // 8
        assert is_end or mask[row].sum() - 2 - place >= (length - 2) // 8 - 1


@pytest.mark.parametrize("length", [8, 11, 16, 48])
def test_the_graph_makes_the_same(length):
    given = sentences(length, 40, 50)
    of = pieces(TOKENIZER, given)
    expected = pack(TOKENIZER, of, length)
    starts = np.cumsum(of.lengths) - of.lengths
    texts = packing.Rows(*(tf.constant(values, tf.int32) for values in (of.ids, starts, of.lengths)))
    text_of = np.repeat(np.arange(len(given)), [len(words) for words in given])
    first = tf.constant(np.flatnonzero(of.is_first), tf.int32)
    found = word_windows.places(texts, first, tf.constant(text_of, tf.int32), length - 2)
    packed = packing.pack_single(found.windows, lengths=(length,), cls_id=2, sep_id=3, pad_id=0)
    for name, value in packed.features.items():
        np.testing.assert_array_equal(value, expected.features[name], err_msg=name)
    places = np.stack([found.window, found.position], 1)
    np.testing.assert_array_equal(places, np.argwhere(expected.words >= 0))
