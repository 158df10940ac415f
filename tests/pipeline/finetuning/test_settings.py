import json

import pytest

from pipeline import settings
from pipeline.finetuning.settings import PRESETS, FinetuningSettings
from preprocessing.errors import InputError


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_whole_and_survive_json(name):
    run = settings.load(name)
    run.check()
    assert settings.from_json(run.to_json()) == run


def test_a_task_tells_fine_tuning_from_pretraining():
    assert isinstance(settings.from_json('{"task": "classification"}'), FinetuningSettings)
    assert isinstance(settings.from_json("{}"), settings.PipelineSettings)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"task": "guessing"}, "task must be one of classification, .*Received: 'guessing'"),
        ({"name": "bert"}, "name must not be that of the pipeline that pretrains"),
        ({"train": "a.tsv"}, "train and eval must both be files"),
        ({"task": "tagging"}, "the embedded set is one for task classification"),
        ({"gate": {"max_drift": 1e999}}, r"settings.gate.max_drift must be of type float"),
        ({"options": {"epoch": 3}}, "options has no setting 'epoch'"),
        ({"options": {"epochs": "three"}}, "options.epochs must be of type"),
        ({"options": {"watch": "loss"}}, "--watch must be accuracy or"),
        ({"columns": {"texts": "a"}}, "columns has no setting 'texts'"),
        ({"train": "none.tsv", "eval": "none.tsv"}, "none.tsv: no such table"),
        ({"export": {"layers": "3"}}, "export.layers must be left out: options.layers has a model learn its task"),
        ({"export": {"tokens_of": ["/none.txt"]}}, "no file matches ./none.txt"),
        ({"init": "/none"}, "init must be a checkpoint. Received: '/none'"),
    ],
)
def test_what_cannot_be_is_refused_before_the_first_step(values, message):
    with pytest.raises(InputError, match=message):
        settings.from_json(json.dumps({"task": "classification", **values})).check()
