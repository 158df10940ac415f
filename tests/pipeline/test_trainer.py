import json
import types

import pytest

from model import training
from pipeline import settings, trainer
from pipeline.components.vocabulary import FILE
from preprocessing import vocab_file
from preprocessing.features import SPECIAL_TOKENS


def given_to_train(monkeypatch, folder, run):
    """The options with which the Trainer calls `train` for the examples in the folder."""
    given = {}

    def train(*_, **options):
        given.update(options)
        raise StopIteration

    vocab_file.save(SPECIAL_TOKENS, folder / FILE)
    monkeypatch.setattr(training, "train", train)
    custom = {"settings": run.to_json(), "work_folder": str(folder), "fingerprint": "a"}
    with pytest.raises(StopIteration):
        trainer.run_fn(types.SimpleNamespace(custom_config=custom, train_files=[f"{folder}/Split-train/*"]))
    return given


@pytest.mark.parametrize("lower_case", [True, False])
def test_the_model_is_told_the_kind_of_vocabulary(monkeypatch, tmp_path, lower_case):
    run = settings.smoke().replace(vocabulary=settings.VocabularySettings(lower_case=lower_case))
    assert given_to_train(monkeypatch, tmp_path, run)["lower_case"] is lower_case


def test_files_are_taken_in_order(monkeypatch, tmp_path):
    """A filesystem may list them in any."""
    monkeypatch.setattr(trainer.fileio, "glob", lambda pattern: [pattern.replace("*", name) for name in "cab"])
    given = given_to_train(monkeypatch, tmp_path, settings.smoke())
    for name, part in (("train_files", "train"), ("eval_files", "eval")):
        assert given[name] == [f"{tmp_path}/Split-{part}/{letter}" for letter in "abc"]


@pytest.mark.parametrize("counts", [True, False])
def test_the_task_is_the_one_of_the_settings(monkeypatch, tmp_path, counts):
    run = settings.from_json(json.dumps({"training": {"next_sentence": counts}}))
    assert given_to_train(monkeypatch, tmp_path, run)["task"].next_sentence is counts
