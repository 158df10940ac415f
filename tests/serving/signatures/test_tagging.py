"""Tags of words, called as functions, against the encoder called by hand on windows made elsewhere."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from model.settings import TaggingSettings
from preprocessing import tags
from preprocessing.tasks.word_windows import pack, pieces
from preprocessing.tokenizer import BertTokenizer
from serving.signatures import TAG, TAG_WORDS, word_windows
from serving.signatures.base import TextEncoder
from tests.serving import small_model
from tests.serving.small_model import TAGGING, TEXTS, VOCAB

TOKENIZER = BertTokenizer(VOCAB)
STRANGE = [
    *TEXTS,
    "Zoë’s naïve café, 東京 und Übergröße: e\u0301!  \u200b a\u0301\u0301b ﬁ ½ İstanbul",
    "👩‍👩‍👧 paris👍🏽 (Paris)… “it”—is 3,000.5$ U.S. don't paris/france!?",
    "\x00paris\x00 is\u200b.\u200dthe \ufffd\ufeffriver \udc80".encode("utf-8", "surrogateescape"),
    "각 각 Ωmega ΑΣ Σ. ≠a≠b≠ . , ...",
    ("Paris lies on a river, here. " * 40).strip(),
]


def texts(longest=None, **changes):
    task = dataclasses.replace(TAGGING, max_seq_length=longest, **changes)
    return TextEncoder(small_model.tagger(), TOKENIZER, small_model.EXPORT, task)


@pytest.fixture(scope="module")
def tagger():
    return texts()


def answered(signature, encoder, column):
    column = tf.constant(column, tf.string)
    return {name: value.numpy() for name, value in signature.answer(encoder, column).items()}


def padded(rows):
    most = max(map(len, rows))
    return [[*row, *[""] * (most - len(row))] for row in rows]


def words_of(outputs, row):
    return [word.decode() for word in outputs["words"][row, : outputs["word_count"][row]]]


def probabilities(rows, length):
    """[words, tags], by the encoder on the windows of words that training sees."""
    windows = pack(TOKENIZER, pieces(TOKENIZER, rows), length)
    encoder = small_model.tagger()
    features = {name: tf.constant(value, tf.int32) for name, value in windows.features.items()}
    logits = encoder.tagger(encoder(features)["sequence_output"])
    return tf.nn.softmax(logits).numpy()[windows.words >= 0]


@pytest.mark.parametrize("longest", [None, 8, 13])
def test_words_that_are_given_get_the_tags_that_training_saw(longest):
    random = np.random.default_rng(0)
    some = ["Paris", "runs", "running", "\u200b", " ", "東京", "unknowable", "U.S.", "a"]
    rows = [random.choice(some, random.integers(1, 60)).tolist() for _ in range(12)]
    outputs = answered(TAG_WORDS, texts(longest), padded(rows))
    expected = probabilities(rows, longest or 48)
    begin = 0
    for row, words in enumerate(rows):
        own = expected[begin : begin + len(words)]
        assert outputs["word_count"][row] == len(words)
        said = [tag.decode() for tag in outputs["tags"][row, : len(words)]]
        assert said == [TAGGING.labels[best] for best in own.argmax(-1)]
        np.testing.assert_allclose(outputs["scores"][row, : len(words)], own.max(-1), atol=1e-5)
        assert not outputs["tags"][row, len(words) :].astype(bool).any()
        begin += len(words)


def test_every_word_has_one_tag_whatever_is_left_of_it(tagger):
    rows = [["\u200b"], ["a", "", "b"], ["\x00", "\ufffd", "\u0301"], [], ["run" * 100]]
    outputs = answered(TAG_WORDS, tagger, padded(rows))
    assert outputs["word_count"].tolist() == [1, 3, 3, 0, 1]
    for row, words in enumerate(rows):
        assert {tag.decode() for tag in outputs["tags"][row, : len(words)]} <= set(TAGGING.labels)


def test_no_words_at_all(tagger):
    for words in (np.zeros([0, 0]), np.zeros([3, 0]), [["", ""]]):
        outputs = answered(TAG_WORDS, tagger, words)
        assert outputs["tags"].shape == (len(words), 0)
        assert not outputs["word_count"].any()


def test_a_word_stands_where_it_is_said_to_stand(tagger):
    outputs = answered(TAG, tagger, STRANGE)
    for row, text in enumerate(STRANGE):
        raw = text.encode() if isinstance(text, str) else text
        read = raw.decode("utf-8", "ignore")
        for kind, names in (("word", ["words", "", ""]), ("entity", ["entities", "entity_", "entity_"])):
            count = outputs[f"{kind}_count"][row]
            prefix = "" if kind == "word" else "entity_"
            last = 0
            for place in range(count):
                said = outputs[names[0]][row, place].decode()
                start, end = (outputs[f"{prefix}byte_{side}"][row, place] for side in ("starts", "ends"))
                assert raw[start:end].decode("utf-8", "ignore") == said
                assert last <= start < end
                last = end
                start, end = (outputs[f"{prefix}char_{side}"][row, place] for side in ("starts", "ends"))
                assert read[start:end] == said
    assert outputs["entity_count"].sum() > 10


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Paris is in (France).", "Paris|is|in|(|France|)|."),
        ("don't U.S. 3,000.5 a/b", "don't|U.S|.|3,000.5|a/b"),
        ("«No», it's…", "«|No|»|,|it's|…"),
        ("...!? $5 5$", ".|.|.|!|?|$|5|5|$"),
        ("東京a京.b", "東|京|a|京|.|b"),
        ("a\u200bb \u200b c\u00a0d\u3000e", "a\u200bb|c|d|e"),
        ("e\u0301a.\u0301 b", "e\u0301a|.\u0301|b"),
        ("", ""),
    ],
)
def test_what_the_words_of_a_text_are(tagger, text, words):
    assert "|".join(words_of(answered(TAG, tagger, [text]), 0)) == words


def test_a_text_is_tagged_as_its_words_are(tagger):
    outputs = answered(TAG, tagger, STRANGE)
    rows = [words_of(outputs, row) for row in range(len(STRANGE))]
    expected = answered(TAG_WORDS, tagger, padded(rows))
    np.testing.assert_array_equal(outputs["tags"], expected["tags"])
    np.testing.assert_allclose(outputs["scores"], expected["scores"], atol=1e-5)
    np.testing.assert_array_equal(outputs["entity_types"], expected["entity_types"])


@pytest.mark.parametrize("at_once", [1, 100, 8192])
def test_a_long_text_is_answered_a_few_windows_at_a_time(tagger, monkeypatch, at_once):
    expected = answered(TAG, tagger, STRANGE)
    monkeypatch.setattr(word_windows, "TOKENS_AT_ONCE", at_once)
    sizes = []
    model, pack_rows = tagger.model, tagger.pack_rows
    monkeypatch.setattr(
        tagger, "pack_rows", lambda rows, **how: sizes.append(len(rows.starts)) or pack_rows(rows, **how)
    )
    found = answered(TAG, tagger, STRANGE)
    assert max(sizes) * 48 <= max(at_once, 48) or at_once == 8192
    assert model is tagger.model
    for name, value in expected.items():
        if value.dtype.kind == "f":
            np.testing.assert_allclose(found[name], value, atol=1e-5)
        else:
            np.testing.assert_array_equal(found[name], value)


def test_entities_are_those_of_the_tags(tagger):
    outputs = answered(TAG, tagger, STRANGE)
    given = answered(TAG_WORDS, tagger, padded([words_of(outputs, row) for row in range(len(STRANGE))]))
    for row, text in enumerate(STRANGE):
        said = [tag.decode() for tag in outputs["tags"][row, : outputs["word_count"][row]]]
        expected = tags.entities(said)
        count = outputs["entity_count"][row]
        assert count == given["entity_count"][row] == len(expected)
        raw = text.encode() if isinstance(text, str) else text
        for place, (kind, start, end) in enumerate(expected):
            assert outputs["entity_types"][row, place].decode() == kind
            assert (given["entity_starts"][row, place], given["entity_ends"][row, place]) == (start, end)
            begins, ends = outputs["byte_starts"][row, start], outputs["byte_ends"][row, end - 1]
            assert outputs["entities"][row, place].decode() == raw[begins:ends].decode("utf-8", "ignore")
            assert outputs["entity_scores"][row, place] == pytest.approx(
                outputs["scores"][row, start:end].mean(), abs=1e-5
            )


def test_tags_that_mark_no_entities():
    plain = texts(labels=("NOUN", "VERB", "ADJ", "X", "O"))
    for signature, column in ((TAG, TEXTS[:2]), (TAG_WORDS, [["a"], ["b"]])):
        outputs = answered(signature, plain, column)
        assert outputs["entity_count"].tolist() == [0, 0]
        assert outputs["entity_types"].shape == (2, 0)
        assert set(outputs["tags"].ravel()) <= {b"NOUN", b"VERB", b"ADJ", b"X", b"O", b""}


def test_a_temperature_makes_less_sure():
    sure, less = (answered(TAG, texts(temperature=value), TEXTS[:1]) for value in (1.0, 4.0))
    assert (sure["tags"] == less["tags"]).all()
    assert (less["scores"] < sure["scores"]).all()


def test_why_it_is_left_out():
    nothing_said = TextEncoder(small_model.tagger(), TOKENIZER, small_model.EXPORT)
    for signature in (TAG, TAG_WORDS):
        assert "the checkpoint has no tagger" in signature.missing(nothing_said)
    added = BertTokenizer(VOCAB, added={"paris": True})
    encoder = TextEncoder(small_model.tagger(), added, small_model.EXPORT, TAGGING)
    assert TAG.missing(encoder) == "the vocabulary has added tokens"
    assert TAG_WORDS.missing(encoder) is None


def test_labels_of_another_model():
    with pytest.raises(ValueError, match=r"as many as those of the tagger \(5\).*Received: 2"):
        TextEncoder(small_model.tagger(), TOKENIZER, small_model.EXPORT, TaggingSettings(("a", "b")))
