"""Several models that were tuned from one encoder, in one export."""

import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf

from model import checkpoints
from model.checkpoints.names import arrays_of, assign
from model.encoder import BertEncoder
from model.encoder.heads import CLASSIFIER, TAGGER
from model.settings import ClassificationSettings
from pipeline.finetuning import asking
from preprocessing import vocab_file
from preprocessing.errors import InputError
from preprocessing.tokenizer import BertTokenizer
from serving.export import exporting, golden
from serving.export.models import Named
from serving.signatures import EMBEDDING, FILL_MASK, TAG, TAG_WORDS
from serving.signatures.base import TextEncoder
from serving.signatures.classification import CLASSIFY, CLASSIFY_PAIR
from tests.serving import small_model

FEW = (EMBEDDING, FILL_MASK, CLASSIFY, CLASSIFY_PAIR, TAG, TAG_WORDS)
MOOD = ClassificationSettings(("bad", "good", "so"), pair=False)
TOPIC = ClassificationSettings(("land", "water"), pair=False, temperature=0.5)
QUERY = "bert/encoder/layer_1/attention/self/query/kernel"


def tuned(head, *changed):
    """The small encoder with another head, and other values in these arrays."""
    base = small_model.encoder((), 2)
    encoder, random = BertEncoder(base.settings, (head,)), np.random.default_rng(len(changed))
    arrays = arrays_of(base)
    assign(encoder, arrays | {name: arrays[name] + random.normal(0, 0.5, arrays[name].shape) for name in changed})
    return encoder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Checkpoints: mood, tuned with its pooler; topic, of which a kernel differs; tags, with a pooler that its task
    does without; other, tuned from nothing they know; base, without a task."""
    folder = tmp_path_factory.mktemp("models")
    vocab, pooler = small_model.write_vocab(folder), "bert/pooler/dense/kernel"
    every = arrays_of(small_model.encoder((), 2))
    models = {
        "mood": (tuned(CLASSIFIER.with_labels(3), pooler), MOOD),
        "topic": (tuned(CLASSIFIER.with_labels(2), QUERY), TOPIC),
        "tags": (tuned(TAGGER.with_labels(len(small_model.TAGGING.labels)), pooler, pooler), small_model.TAGGING),
        "other": (tuned(CLASSIFIER.with_labels(3), *every), MOOD),
        "base": (small_model.encoder((), 2), None),
    }
    for name, (encoder, task) in models.items():
        checkpoints.save(encoder, folder / name, vocab, True)
        if task:
            checkpoints.write_task(folder / name, task)
    return folder


def export(folder, *models, settings=small_model.EXPORT, **options):
    named = [Named(str(folder / path), name) for name, path in models]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporting, "_answer_elsewhere", lambda written: golden.answer(str(written)))
        return exporting.export_version(
            named, folder / "served", settings=settings, signatures=options.pop("signatures", FEW), **options
        )


@pytest.fixture(scope="module")
def version(folder):
    return export(folder, ("", "mood"), ("about", "topic"), ("", "tags"))


def report_of(version):
    return json.loads((version / exporting.REPORT).read_text())


def test_each_answers_its_task_as_it_does_alone(folder, version):
    loaded = tf.saved_model.load(str(version)).signatures
    assert set(loaded) == {"serving_default", "classify", "about_classify", "tag", "tag_words"}
    for path, signature, name in (
        ("mood", CLASSIFY, "classify"),
        ("topic", CLASSIFY, "about_classify"),
        ("tags", TAG, "tag"),
    ):
        encoder, task = checkpoints.load(folder / path), checkpoints.read_task(folder / path)
        alone = TextEncoder(encoder, BertTokenizer(small_model.VOCAB), small_model.EXPORT, task)
        outputs = loaded[name](text=tf.constant(small_model.TEXTS))
        for output, expected in signature.answered(alone, {"text": small_model.TEXTS}).items():
            if expected.dtype.is_floating:
                np.testing.assert_allclose(outputs[output], expected, atol=1e-5)
            else:
                np.testing.assert_array_equal(outputs[output], expected)


def test_equal_weights_are_stored_once(folder, version):
    report, base = report_of(version), small_model.encoder((), 2)
    shapes = {name: array.size for name, array in arrays_of(base).items()}
    width, tags = base.settings.hidden_size, len(small_model.TAGGING.labels)
    whole = sum(shapes.values())
    # Of topic the kernel of query, key and value, which are one; and that of the pooler, which mood's is not like.
    own = (whole + 3 * width + 3, 4 * width**2 + 2 * width + 2, tags * width + tags)
    assert [model["own_weight_bytes"] for model in report["models"]] == [4 * size for size in own]
    assert [model["weight_bytes"] for model in report["models"]] == [
        4 * (whole + labels * width + labels) for labels in (3, 2, tags)
    ]
    stored = [
        shape for name, shape in tf.train.list_variables(str(version / "variables/variables")) if "weights" in name
    ]
    assert sum(np.prod(shape, dtype=int) for shape in stored) == report["parameters"] == sum(own)


def test_the_report_says_who_answers_what(version):
    report = report_of(version)
    assert [model["signatures"] for model in report["models"]] == [
        ["serving_default", "classify"],
        ["about_classify"],
        ["tag", "tag_words"],
    ]
    assert [model["task"]["kind"] for model in report["models"]] == ["classification", "classification", "tagging"]
    assert report["task"]["labels"] == ["bad", "good", "so"]
    assert report["left_out"] == {"classify_pair": "the classifier judges single texts"}
    requests = json.loads((version / golden.REQUESTS).read_text())
    assert {request["signature_name"] for request in requests} == set(report["signatures"])


def test_one_of_them_is_asked_by_its_name(version):
    with asking.opened(str(version), "about") as served:
        assert served.signatures == ["classify"]
        assert set(served.ask("classify", {"text": ["the river"]})["labels"][0]) == {b"land", b"water"}
    with pytest.raises(InputError, match=r"has no signature of nobody. Received: .*about_classify"):
        asking.opened(str(version), "nobody").__enter__()


@pytest.mark.long
@pytest.mark.parametrize(("weights", "compute"), [("bfloat16", "bfloat16"), ("int8", "float32")])
def test_rounded_weights_are_shared_too(folder, weights, compute):
    rounded = dataclasses.replace(small_model.EXPORT, weights=weights, compute=compute)
    few = (EMBEDDING, CLASSIFY, TAG_WORDS)
    report = report_of(export(folder, ("", "mood"), ("", "tags"), settings=rounded, signatures=few))
    assert report["models"][1]["own_weight_bytes"] < report["models"][0]["own_weight_bytes"] / 10


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ((("", "mood"), ("", "topic")), "topic: classify is answered by .*mood, too; give names: .* second_classify"),
        ((("", "mood"), ("", "base")), "base: a model beside another must answer a task. Received: pretraining"),
        (
            (("", "mood"), ("b", "other")),
            "other: models in one export must share weights, and none is like one of .*mood",
        ),
    ],
)
def test_models_that_cannot_stand_together(folder, models, message):
    with pytest.raises(InputError, match=message):
        export(folder, *models)


def test_another_vocabulary_is_refused(folder, tmp_path):
    words = [*small_model.VOCAB]
    words[-2:] = reversed(words[-2:])
    vocab_file.save(words, tmp_path / "vocab.txt")
    checkpoints.save(checkpoints.load(folder / "tags"), tmp_path / "tags", tmp_path / "vocab.txt", True)
    checkpoints.write_task(tmp_path / "tags", small_model.TAGGING)
    with pytest.raises(InputError, match=r"models in one export must have one vocabulary, that of .*mood"):
        export(folder, ("", "mood"), ("", tmp_path / "tags"))


def test_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a=b").mkdir()
    assert Named.read("a=b") == Named("a=b")
    assert Named.read("a=c/model") == Named("c/model", "a")
    assert Named.read("c/model") == Named("c/model")
    with pytest.raises(InputError, match=r"NAME of --model NAME=CHECKPOINT must be .* Received: '1-2'"):
        Named.read("1-2=c")
