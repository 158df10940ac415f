import dataclasses
import json

import pytest

from pipeline import settings
from preprocessing.errors import InputError


@pytest.mark.parametrize("preset", settings.PRESETS)
def test_a_preset_is_consistent_and_survives_json(preset):
    value = settings.PRESETS[preset]()
    value.check()
    assert settings.from_json(value.to_json()) == value


def test_training_phases_survive_json():
    text = '{"training": {"steps": 10, "phases": [{"steps": 9, "max_seq_length": 64}, {"steps": 1}]}}'
    value = settings.from_json(text)
    assert [phase.steps for phase in value.training.phases] == [9, 1]
    assert settings.from_json(value.to_json()) == value


def test_parts_left_out_have_their_defaults():
    assert settings.from_json('{"examples": {"dupe_factor": 3}}').examples == dataclasses.replace(
        settings.PipelineSettings().examples, dupe_factor=3
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"exampels": {}}', "settings has no setting 'exampels'"),
        ('{"examples": {"dupe": 3}}', "settings.examples has no setting 'dupe'"),
        ('{"examples": 3}', "settings.examples must be a JSON object. Received: 3"),
        ('{"vocabulary": {"size": 5}}', "vocabulary size must exceed its 5 special tokens. Received: 5"),
        ('{"training": {"steps": "many"}}', "settings.training: "),
        ('{"eval_share": 1.0}', "eval_share must be between 0 and 1. Received: 1.0"),
        ('{"name": "../x"}', "name must be a folder name. Received: '../x'"),
        ('{\n"name": \n}', "settings:3: not JSON"),
    ],
)
def test_what_is_refused(text, message):
    with pytest.raises(InputError) as error:
        settings.from_json(text)
    assert message in str(error.value)


def test_examples_longer_than_the_models_positions_are_refused():
    value = settings.demo()
    value = value.replace(examples=dataclasses.replace(value.examples, max_seq_length=513))
    with pytest.raises(InputError, match=r"must not exceed the model's max_positions \(512\). Received: 513"):
        value.check()


def test_settings_from_a_file(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"name": "mine"}))
    assert settings.load(str(path)).name == "mine"
    with pytest.raises(InputError, match="must be demo, smoke, base or a JSON file"):
        settings.load(str(tmp_path / "none.json"))
