"""The kind of tagging: what is judged, and what is told of an answer."""

import dataclasses
import json

import numpy as np
import pytest
import seqeval.metrics
import seqeval.scheme
import sklearn.metrics
import tensorflow as tf

from model.settings import TaggingSettings
from pipeline.finetuning.kinds.tagging import TAGGING
from preprocessing import tags
from preprocessing.errors import InputError
from preprocessing.tasks.sentences import Sentence, Sentences
from preprocessing.tasks.tables import Columns
from preprocessing.tokenizer import BertTokenizer
from serving.signatures import TAG_WORDS
from serving.signatures.base import TextEncoder
from serving.signatures.tagging import TAG_LOGITS
from tests.serving import small_model


def row(words, tags=None):
    return Sentence("a.txt", tuple(range(1, len(words) + 1)), tuple(words), None if tags is None else tuple(tags))


def array(*texts):
    return np.array([text.encode() for text in texts], object)


def answer(*tags, scores=None):
    """As it comes from a batch: padded."""
    values = [*(scores or [0.9] * len(tags)), 0.0]
    return {"tags": array(*tags, ""), "scores": np.array(values, np.float32), "word_count": np.int32(len(tags))}


def judged(*pairs):
    judge = TAGGING.judge()
    return judge, [judge.add(row("abcdefgh"[: len(gold)], gold), answer(*said)) for gold, said in pairs]


def test_entities_are_judged_by_exact_span_and_type():
    """seqeval's README: one of two right; and what strict is."""
    judge, verdicts = judged(
        ("O O O B-MISC I-MISC I-MISC O".split(), "O O B-MISC I-MISC I-MISC I-MISC O".split()),  # noqa: SIM905
        ("B-PER I-PER O".split(), "B-PER I-PER O".split()),  # noqa: SIM905
    )
    found = judge.figures()
    assert (found["entity_f1"], found["entity_precision"], found["entity_recall"]) == (0.5, 0.5, 0.5)
    assert found["entity_f1_strict"] == 0.5
    assert judge.details()["f1_of_type"] == {"MISC": 0.0, "PER": 1.0}
    assert judge.details()["entities"] == {"MISC": 1, "PER": 1}
    assert [verdict.cost is None for verdict in verdicts] == [False, True]
    assert verdicts[0].text == "a b c [B-MISC, not O] d [I-MISC, not B-MISC] e f g"
    assert verdicts[0].cost == pytest.approx(-2 * np.log(0.1), rel=1e-5)
    judge, _ = judged((["B-NP", "I-NP", "O"], ["I-NP", "I-NP", "O"]))
    assert (judge.figures()["entity_f1"], judge.figures()["entity_f1_strict"]) == (1.0, 0.0)


def test_figures_of_entities_are_seqevals():
    random = np.random.default_rng(3)
    choices = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
    drawn = [[random.choice(choices, 8).tolist() for _ in range(200)] for _ in range(2)]
    gold, said = ([tags.written(tags.entities(one), 8) for one in drawn[0]], drawn[1])
    said = [one if random.random() < 0.5 else right for one, right in zip(said, gold, strict=True)]
    found = judged(*zip(gold, said, strict=True))[0].figures()
    metrics = seqeval.metrics
    assert found["entity_f1"] == pytest.approx(metrics.f1_score(gold, said))
    assert found["entity_precision"] == pytest.approx(metrics.precision_score(gold, said))
    assert found["entity_recall"] == pytest.approx(metrics.recall_score(gold, said))
    strict = metrics.f1_score(gold, said, mode="strict", scheme=seqeval.scheme.IOB2)
    assert found["entity_f1_strict"] == pytest.approx(strict)
    assert 0.1 < found["entity_f1"] < strict < 0.9


def test_words_are_judged_as_scikit_learn_does():
    random = np.random.default_rng(0)
    pairs = [(random.choice(list("ABC"), 8).tolist(), random.choice(list("ABD"), 8).tolist()) for _ in range(50)]
    judge, _ = judged(*pairs)
    gold, said = (np.concatenate(side) for side in zip(*pairs, strict=True))
    found = judge.figures()
    assert found["accuracy"] == pytest.approx(sklearn.metrics.accuracy_score(gold, said))
    assert found["macro_f1"] == pytest.approx(sklearn.metrics.f1_score(gold, said, average="macro"))
    assert set(found) == {"accuracy", "macro_f1", "majority_accuracy"}  # of tags that mark no entities
    assert judge.details()["words"] == 400
    assert judge.details()["entities"] == {}
    assert list(judge.notes()) == ["tags that the model never says: C"]


def test_one_tag_alone_is_an_alarm(tmp_path):
    judge, _ = judged((["A", "B"], ["A", "A"]))
    judge.draw(tmp_path)
    assert (tmp_path / "confusion.png").read_bytes().startswith(b"\x89PNG")
    assert any(note.startswith("ALARM: the model says 'A' of every word") for note in judge.notes())


def test_fewer_tags_than_words_are_never_passed_over():
    with pytest.raises(ValueError, match="zip"):
        judged((["A", "B"], ["A"]))


def test_what_is_said_of_words_and_of_texts():
    found = answer("B-X", "I-X", "O") | {"entity_count": np.int32(1), "entity_types": array("X", "")}
    found |= {"entity_scores": np.array([0.5, 0], np.float32), "entities": array("ab", "")}
    given = found | {"entity_starts": np.array([0, 0]), "entity_ends": np.array([2, 0])}
    expected = {
        "tags": ["B-X", "I-X", "O"],
        "entities": [{"text": "a b", "type": "X", "start": 0, "end": 2, "score": 0.5}],
    }
    assert TAGGING.said(row("abc"), given) == expected
    text = found | {
        "words": array("a", "b", "c"),
        "entity_char_starts": np.array([3]),
        "entity_char_ends": np.array([5]),
    }
    entity = {"text": "ab", "type": "X", "start": 3, "end": 5, "score": 0.5}
    said = TAGGING.said(object(), text)
    assert said == {"words": ["a", "b", "c"], "tags": ["B-X", "I-X", "O"], "entities": [entity]}
    assert json.loads(json.dumps(said)) == said


def test_sources(tmp_path):
    (tmp_path / "a.txt").write_text("a O\n")
    (tmp_path / "a.csv").write_text("text\na b\n")
    words = TAGGING.source(str(tmp_path / "a.txt"), Columns())
    assert isinstance(words, Sentences)
    assert TAGGING.signature(words) == "tag_words"
    texts = TAGGING.source(str(tmp_path / "a.csv"), Columns(labelled=False))
    assert TAGGING.signature(texts) == "tag"
    (only,) = texts.rows(lambda line, why: None)
    assert TAGGING.inputs("tag", [only]) == {"text": ["a b"]}
    inputs = TAGGING.inputs("tag_words", [row("ab"), row("é")])["words"]
    assert inputs.tolist() == [[b"a", b"b"], ["é".encode(), b""]]
    for columns in (Columns(second="2"), Columns(header=True), Columns(id="1"), Columns(more=("x",))):
        with pytest.raises(InputError, match="files of words and tags have no --"):
            TAGGING.source(str(tmp_path / "a.txt"), columns)
    assert TAGGING.source(str(tmp_path / "a.csv"), Columns(labelled=False, header=True))


def test_a_temperature_is_chosen_on_the_words_of_dev():
    """Logits that are three times too large; words of other tags have no part in it."""
    random, labels = np.random.default_rng(0), ("A", "B", "C")
    true = random.normal(size=(4000, 3))
    gold = (true + random.gumbel(size=true.shape)).argmax(1)
    answered = []
    for start in range(0, 4000, 4):
        tags = [*(labels[number] for number in gold[start : start + 4]), "unheard"]
        logits = np.concatenate([3 * true[start : start + 4], np.full((2, 3), 9.0)]).astype(np.float32)
        answered.append((row("abcde", tags), {"logits": logits, "word_count": np.int32(5)}))
    found = TAGGING.calibrated(TaggingSettings(labels), iter(answered))
    assert found.chosen["temperature"] == found.settings.temperature == pytest.approx(3, rel=0.1)
    assert found.after["cross_entropy"] < found.before["cross_entropy"] == found.figures["cross_entropy"]
    assert found.after["calibration_error"] < found.before["calibration_error"]


def test_it_is_chosen_on_what_is_served():
    """The logits, divided by the temperature, are the probabilities of the answers."""
    task = dataclasses.replace(small_model.TAGGING, temperature=2.5)
    texts = TextEncoder(small_model.tagger(), BertTokenizer(small_model.VOCAB), small_model.EXPORT, task)
    request = TAG_WORDS.golden(texts)[-1]
    logits, words = (signature.answered(texts, request) for signature in (TAG_LOGITS, TAG_WORDS))
    assert logits["word_count"].numpy().tolist() == words["word_count"].numpy().tolist()
    for of_words, scores, count in zip(logits["logits"], words["scores"], words["word_count"], strict=True):
        shares = tf.nn.softmax(of_words[:count] / 2.5).numpy()
        np.testing.assert_allclose(shares.max(-1), scores[:count], rtol=1e-5)
        assert not np.any(of_words[count:])
