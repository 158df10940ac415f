import dataclasses
import functools
import json
import pathlib
import types

import pytest

from model import checkpoints, training
from pipeline import settings, trainer
from pipeline.components.vocabulary import FILE
from preprocessing import vocab_file
from preprocessing.features import SPECIAL_TOKENS
from serving.export import exporting, golden
from serving.signatures.sentences import EMBEDDING
from tests.serving import small_model


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


def test_a_part_of_the_model_may_be_pushed(monkeypatch, tmp_path):
    """What is judged is the part; the checkpoint stays whole."""
    encoder, judged = small_model.encoder(layers=4), []

    def train(*_, output, **options):
        checkpoints.save(encoder, pathlib.Path(output, "model"), str(tmp_path / FILE), True)
        return training.TrainingResult(encoder, {}, 1)

    monkeypatch.setattr(training, "train", train)
    monkeypatch.setattr(trainer.slices, "of", lambda encoder, files: judged.append(encoder))
    monkeypatch.setattr(exporting, "export", functools.partial(exporting.export, signatures=(EMBEDDING,)))
    monkeypatch.setattr(exporting, "_answer_elsewhere", lambda folder: golden.answer(str(folder)))
    small_model.write_vocab(tmp_path, FILE)
    run = settings.smoke()
    run = run.replace(export=dataclasses.replace(run.export, layers="0,3"))
    (tmp_path / "run").mkdir()
    trainer.run_fn(
        types.SimpleNamespace(
            custom_config={"settings": run.to_json(), "work_folder": str(tmp_path / "work"), "fingerprint": "a"},
            train_files=[f"{tmp_path}/Split-train/*"],
            serving_model_dir=str(tmp_path / "served"),
            model_run_dir=str(tmp_path / "run"),
        )
    )
    said = json.loads((tmp_path / "served" / exporting.REPORT).read_text())
    assert (said["kept"], said["settings"]["layers"]) == ({"layers": [0, 3], "tokens": None}, "0,3")
    assert [part.settings.num_layers for part in judged] == [2]
    assert checkpoints.load(tmp_path / "run" / "model").settings.num_layers == 4
