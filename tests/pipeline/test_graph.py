import json

import pytest
from tfx.orchestration.pipeline import Pipeline
from tfx.types.standard_artifacts import Model, ModelBlessing

from pipeline import graph, settings, steps
from preprocessing.errors import InputError


def test_every_step_has_a_title_and_the_graph_knows_no_orchestrator(tmp_path):
    pipeline = graph.create_pipeline(settings.smoke(), str(tmp_path))
    assert isinstance(pipeline, Pipeline)
    assert {node.id for node in pipeline.components} == set(steps.TITLES)


def test_settings_that_contradict_each_other_are_refused_before_anything_runs(tmp_path):
    run = settings.smoke()
    run = run.replace(vocabulary=settings.dataclasses.replace(run.vocabulary, lower_case=False))
    with pytest.raises(InputError, match=r"lower_case must be the vocabulary's \(False\). Received: True"):
        graph.create_pipeline(run, str(tmp_path))


def model(tmp_path, number, vocabulary="a\nb\n", length=64):
    folder = tmp_path / str(number) / "Format-Serving"
    (folder / "assets").mkdir(parents=True)
    (folder / "assets.extra").mkdir()
    (folder / "assets" / "vocab.txt").write_text(vocabulary)
    (folder / "assets.extra" / "export.json").write_text(json.dumps({"settings": {"max_seq_length": length}}))
    artifact = Model()
    artifact.id, artifact.uri = number, str(tmp_path / str(number))
    return artifact


def blessing(number, model):
    artifact = ModelBlessing()
    artifact.id = number
    artifact.set_int_custom_property("blessed", 1)
    artifact.set_int_custom_property("current_model_id", model.id)
    return artifact


def baseline(candidate, *blessed):
    """What a candidate is compared with, when these models were blessed in this order."""
    inputs = {
        "model": [candidate, *blessed],
        "model_blessing": [blessing(number, model) for number, model in enumerate(blessed)],
        "candidate": [candidate],
    }
    return graph.LatestOtherBlessedModel().resolve_artifacts(None, inputs)["model"]


def test_the_baseline_is_the_model_blessed_last_that_can_be_compared(tmp_path):
    old, other_words, shorter, newest = (
        model(tmp_path, 1),
        model(tmp_path, 2, vocabulary="a\nc\n"),
        model(tmp_path, 3, length=32),
        model(tmp_path, 4),
    )
    assert baseline(newest, old, other_words, shorter) == [old]
    assert baseline(newest, other_words, shorter) == []
    assert baseline(newest, newest) == []
    # Settings that are taken back: the candidate comes from the cache and is older than what it is compared with.
    assert baseline(old, old, newest) == [newest]
    assert baseline(newest, newest, old) == [old]
