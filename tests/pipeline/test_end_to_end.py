"""The whole pipeline on its smallest settings, in processes of their own as a person would start them."""

import dataclasses
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest
import tensorflow as tf

from pipeline import local_runner, settings
from preprocessing import features, vocab_file

pytestmark = pytest.mark.timeout(900)

RUNNER = local_runner.__file__
DATA_STEPS = (
    "CorpusGen",
    "CorpusStatistics",
    "CorpusSchema",
    "VocabularyGen",
    "MaskedExamplesGen",
    "ExampleStatistics",
)


def environment(home, run=None):
    variables = {**os.environ, "BERT_HOME": str(home), "BERT_SETTINGS": "smoke"}
    if run is not None:
        path = pathlib.Path(home).with_suffix(".json")
        path.write_text(run.to_json())
        variables["BERT_SETTINGS"] = str(path)
    return variables


def start(home, run=None):
    return subprocess.Popen(
        [sys.executable, RUNNER],
        env=environment(home, run),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(home, run=None) -> str:
    process = start(home, run)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    return output


def steps(output: str) -> dict[str, str]:
    """Step -> how it ended."""
    return dict(re.findall(r"\] (\w+): .*\n(?:  \S.*\n)*        (cached|done)", output))


def records(home, component: str, key: str, split: str) -> list[tf.train.Example]:
    files = sorted(map(str, pathlib.Path(home).glob(f"artifacts/{component}/{key}/*/Split-{split}/*")))
    assert files
    return [tf.train.Example.FromString(r.numpy()) for r in tf.data.TFRecordDataset(files, "GZIP")]


@pytest.fixture(scope="module")
def first_run(tmp_path_factory):
    home = tmp_path_factory.mktemp("home") / "home [1] *x"  # which globs take for a pattern
    return home, finish(home)


def report(home) -> dict:
    return json.loads((home / "reports" / "report.json").read_text())


def test_a_model_is_trained_evaluated_and_pushed(first_run):
    home, output = first_run
    found = report(home)
    assert found["blessed"]
    assert found["state"] == "done"
    ran = json.loads((home / "reports" / "run.json").read_text())
    assert ran["run"] == found["run"]
    assert [node["state"] for node in ran["nodes"]] == ["ran"] * 15
    sides = found["documents"]
    assert sides["documents_train"] + sides["documents_eval"] == found["examples"]["documents"]
    assert found["vocabulary"]["size"] == 1000
    version = pathlib.Path(found["pushed_to"])
    assert (version / "saved_model.pb").is_file()
    assert version.parent == home / "serving" / "bert"
    assert re.search(r"masked-token loss +\d\.\d+ +without a model +\d\.\d+", output)
    assert (home / "reports" / "curves.png").stat().st_size > 1000
    assert settings.load(str(home / "settings.json")) == settings.smoke()
    assert not list((home / "training").iterdir())


def test_nothing_of_third_parties_reaches_the_terminal(first_run):
    ours = re.compile(r"\[ ?\d+/15\] |  +\S|\nOn documents|On documents|There is no earlier model|The gate|$")
    assert [line for line in first_run[1].splitlines() if not ours.match(line)] == []


def test_no_document_is_on_both_sides(first_run):
    home, _ = first_run
    ids = [
        {record.features.feature["id"].bytes_list.value[0] for record in records(home, "CorpusGen", "documents", split)}
        for split in ("train", "eval")
    ]
    assert all(ids)
    assert not ids[0] & ids[1]


def test_the_examples_are_as_the_feature_contract_says(first_run):
    home, _ = first_run
    (path,) = home.glob("artifacts/MaskedExamplesGen/examples/*/vocab.txt")
    size = len(vocab_file.load(str(path)))
    expected = features.lengths(64, 10)
    found = records(home, "MaskedExamplesGen", "examples", "eval")
    assert found
    for record in found:
        values = {
            name: list((feature.float_list if name == features.MASKED_LM_WEIGHTS else feature.int64_list).value)
            for name, feature in record.features.feature.items()
        }
        assert {name: len(value) for name, value in values.items()} == expected
        assert all(0 <= token < size for token in values[features.INPUT_IDS])


def test_a_changed_training_setting_repeats_no_data_step_and_a_closed_gate_pushes_nothing(first_run):
    home, _ = first_run
    run = settings.smoke()
    run = run.replace(training=dataclasses.replace(run.training, steps=10))
    output = finish(home, run.replace(gate=settings.GateSettings(min_loss_gain=5.0)))
    ends = steps(output)
    assert {ends[name] for name in DATA_STEPS} == {"cached"}
    assert {ends[name] for name in ("Trainer", "Evaluator", "ServingCheck", "Pusher")} == {"done"}
    assert "The gate is NOT passed, so nothing was pushed:" in output
    assert re.search(r"masked_lm_loss_gain is -?\d", output)
    assert report(home)["pushed_to"] is None

    # With the gate open, the same model is evaluated anew and pushed; nothing else runs.
    ends = steps(finish(home, run))
    assert {name for name, end in ends.items() if end == "done"} == {"Evaluator", "Pusher"}
    assert pathlib.Path(report(home)["pushed_to"], "saved_model.pb").is_file()


@pytest.mark.long
@pytest.mark.parametrize("step", ["CorpusGen", "VocabularyGen", "MaskedExamplesGen", "Trainer", "Evaluator", "Pusher"])
def test_a_killed_run_is_finished_by_the_next(tmp_path, step):
    process = start(tmp_path / "bert")
    finished = []
    for line in process.stdout:
        if match := re.match(r"\[ ?\d+/15\] (\w+)", line):
            finished.append(match[1])
            if match[1] == step:
                time.sleep(0.5)
                process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    ends = steps(finish(tmp_path / "bert"))
    assert {ends[name] for name in finished[:-1]} <= {"cached"}
    assert report(tmp_path / "bert")["blessed"]
