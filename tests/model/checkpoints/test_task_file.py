import json

import pytest

from model import checkpoints
from model.encoder.heads import CLASSIFIER, TAGGER
from model.settings import ClassificationSettings, TaggingSettings
from preprocessing.errors import InputError
from tests.serving import small_model

TASK = ClassificationSettings(("no", "yes", "é"), pair=True, max_seq_length=64, long="head-tail", temperature=1.5)


@pytest.fixture
def folder(tmp_path):
    checkpoints.save_huggingface(small_model.encoder((CLASSIFIER.with_labels(3),), 1), tmp_path)
    return tmp_path


def test_it_comes_back_from_beside_any_checkpoint(tmp_path):
    for kind in ("google", "ours"):
        checkpoints.save_as(kind, small_model.encoder((CLASSIFIER.with_labels(3),), 1), tmp_path / kind)
        assert checkpoints.read_task(tmp_path / kind) is None
        checkpoints.write_task(tmp_path / kind, TASK)
        assert checkpoints.read_task(tmp_path / kind) == TASK
    assert checkpoints.read_task(tmp_path / "google" / "bert_model.ckpt") == TASK


def test_hugging_faces_labels(folder):
    assert checkpoints.read_task(folder) == ClassificationSettings(("LABEL_0", "LABEL_1", "LABEL_2"))
    checkpoints.write_task(folder, TASK)
    config = json.loads((folder / "config.json").read_text())
    assert config["id2label"] == {"0": "no", "1": "yes", "2": "é"}
    assert config["label2id"] == {"no": 0, "yes": 1, "é": 2}
    assert config["problem_type"] == "single_label_classification"
    (folder / "task.json").unlink()
    assert checkpoints.read_task(folder) == ClassificationSettings(TASK.labels)


def test_the_tags_of_hugging_faces_token_classifiers(tmp_path):
    checkpoints.save_huggingface(small_model.encoder((TAGGER.with_labels(3),), 1), tmp_path)
    assert checkpoints.read_task(tmp_path) == TaggingSettings(("LABEL_0", "LABEL_1", "LABEL_2"))
    tags = TaggingSettings(("B-X", "I-X", "O"), max_seq_length=64, temperature=2.0)
    checkpoints.write_task(tmp_path, tags)
    assert checkpoints.read_task(tmp_path) == tags
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architectures"] == ["BertForTokenClassification"]
    assert config["id2label"] == {"0": "B-X", "1": "I-X", "2": "O"}
    (tmp_path / "task.json").unlink()
    assert checkpoints.read_task(tmp_path) == TaggingSettings(tags.labels)


@pytest.mark.parametrize(
    ("changed", "kind"),
    [
        ({"problem_type": "multi_label_classification"}, "multi-label"),
        ({"problem_type": "ordinal"}, "ordinal"),
        ({"problem_type": "regression", "id2label": {"0": "score"}}, "regression"),
        ({"problem_type": "regression"}, "regression of several numbers"),
        ({"problem_type": "single_label_classification"}, "classification"),
        ({"id2label": {"0": "LABEL_0"}}, "regression"),
    ],
)
def test_what_is_no_classification_is_known(folder, changed, kind):
    config = json.loads((folder / "config.json").read_text()) | changed
    (folder / "config.json").write_text(json.dumps(config))
    assert checkpoints.read_task(folder).kind == kind


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", {"id2label": {"0": "a", "2": "b"}}, "config.json: id2label must number the labels from 0 on"),
        ("config.json", {"id2label": {"0": "a", "1": "a"}}, "config.json: id2label: labels must differ"),
        ("task.json", {"labels": []}, "task.json: there must be labels"),
        ("task.json", {"labels": ["a", 1]}, "task.json: labels must be text"),
        ("task.json", {"labels": ["a"], "temperature": 0}, "task.json: temperature must be positive"),
        ("task.json", {"labels": ["a"], "thresholds": [0.5, 0.5]}, "a threshold, from 0 to 1, for each of the 1"),
        ("task.json", {"labels": ["a", "b"], "kind": "regression"}, "task.json: a number has one name"),
        ("task.json", {"labels": ["a"], "scale": 0}, "task.json: mean and scale must be finite, scale above 0"),
        ("task.json", {"kind": "tagging", "labels": ["a"]}, "task.json: there must be two tags at least"),
        ("task.json", {"kind": "tagging", "labels": ["a", ""]}, "task.json: tags must be text"),
        ("task.json", {"labels": ["a"], "colour": 0}, "task.json: got an unexpected keyword argument 'colour'"),
    ],
)
def test_bad_files(folder, name, content, message):
    (folder / name).write_text(json.dumps(content))
    with pytest.raises(InputError, match=message):
        checkpoints.read_task(folder)
