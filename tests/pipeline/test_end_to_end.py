"""The whole pipeline on its smallest settings, in processes of their own as a person would start them."""

import dataclasses
import hashlib
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
from pipeline.history import lineage, runs
from pipeline.history.homes import Home
from preprocessing import features, vocab_file
from preprocessing.corpus import embedded
from tests.pipeline.runs import looked_at

pytestmark = [pytest.mark.timeout(900), pytest.mark.long]

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


def finish(home, run=None, status=0) -> str:
    process = start(home, run)
    output, _ = process.communicate()
    assert process.returncode == status, output
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


def test_its_report_opens_in_a_browser(first_run):
    titles = looked_at.sections(first_run[0] / "reports" / "report.html")
    parts = ["Gate", "On what the model has not seen", "Parts of it", "Curves", "Drift", "Data", "Steps", "Set aside"]
    assert titles == [*parts, "Lineage"]


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
    output = finish(home, run.replace(gate=settings.GateSettings(min_loss_gain=5.0)), status=3)
    assert output.splitlines()[-1].startswith(
        "bert: error: nothing was pushed, since the model did not pass the gate: see "
    )
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


def test_a_run_over_spans_goes_on_from_the_one_before_and_its_version_is_traced_to_files(tmp_path):
    home, documents = tmp_path / "home", [text for _, text in embedded.documents(400_000)]
    half = len(documents) // 2
    for span, part in ((1, documents[:half]), (2, documents[half:])):
        (tmp_path / f"day-{span}.txt").write_text("\n\n".join("\n".join(lines) for lines in part))
    run = settings.smoke()
    run = run.replace(
        corpus=dataclasses.replace(run.corpus, input=(f"{tmp_path}/day-{{SPAN}}.txt",), window=2, newest_span=1),
        vocabulary=dataclasses.replace(run.vocabulary, max_unknown_increase=0.1),
        spans=settings.SpanSettings(warm_start=True),
    )
    finish(home, run)
    first = report(home)
    later = run.replace(corpus=dataclasses.replace(run.corpus, newest_span=None))
    finish(home, later)
    second = report(home)
    for part in ("documents", "examples"):
        assert {span: counts["taken_over"] for span, counts in second[part]["spans"].items()} == {"1": True, "2": False}
    assert list(second["vocabulary"]["unknown_share_by_span"]) == ["1", "2"]
    assert second["vocabulary"]["file"] == f"{first['pushed_to']}/assets/vocab.txt"
    assert second["compared"]
    ends = steps(finish(home, later))
    assert set(ends.values()) == {"cached"}

    found = lineage.trace(Home.open(home), second["serving_folder"], os.path.basename(second["pushed_to"]))
    assert found["parent"]["versions"] == [found["evaluation"]["baseline"]] == [os.path.basename(first["pushed_to"])]
    sums = [hashlib.sha256((tmp_path / f"day-{span}.txt").read_bytes()).hexdigest() for span in (1, 2)]
    assert [file["sha256"] for file in found["data"]["files"]] == sums
    states = [(entry["state"], entry["version"]) for entry in runs.listed(Home.open(home))]
    pushed = [os.path.basename(made["pushed_to"]) for made in (first, second, second)]
    assert states == [("done", version) for version in pushed]
    assert "Lineage" in (home / "reports" / "report.html").read_text()


@pytest.mark.timeout(1800)
def test_a_backfill_computes_only_what_is_new_and_another_language_stops_before_training(tmp_path, monkeypatch):
    """Spans 1 to 3 one after the other, as a scheduler asks for them, and a fourth that is not like them."""
    home, documents = tmp_path / "home", [text for _, text in embedded.documents(400_000)]
    for span in (1, 2, 3):
        text = "\n\n".join("\n".join(lines) for lines in documents[span::3])
        (tmp_path / f"day-{span}.txt").write_text(text)
    german = "Man sagt, dass die Zeit von {} nicht so gut war wie die von {} für uns alle in dieser Stadt.\n"
    (tmp_path / "day-4.txt").write_text("\n".join(german.format(7 * n, n) * 20 for n in range(150)))
    run = settings.smoke()
    corpus = dataclasses.replace(run.corpus, input=(f"{tmp_path}/day-{{SPAN}}.txt",), window=2)
    run = run.replace(corpus=corpus, vocabulary=dataclasses.replace(run.vocabulary, max_unknown_increase=0.1))
    for span, window in ((1, {"1": False}), (2, {"1": True, "2": False}), (3, {"2": True, "3": False})):
        monkeypatch.setenv("BERT_SPAN", str(span))
        output = finish(home, run)
        found = report(home)
        for part in ("documents", "examples"):
            assert {number: counts["taken_over"] for number, counts in found[part]["spans"].items()} == window, span
        assert re.search(rf"Span {span}: [\d,]+ documents read, [\d,]+ examples made", output)
        assert ("taken over, " in output) == (span > 1)
        compared = {(line["against"], line["of"]) for line in found["drift"] if line["against"] != "the rule"}
        assert compared == ({(f"span {span - 1}", f"span {span}")} if span > 1 else set())
        assert list(found["slices"]["source"]) == [f"span {number}" for number in window]
    assert "language" in (home / "reports" / "report.html").read_text()
    assert set(steps(finish(home, run)).values()) == {"cached"}

    monkeypatch.setenv("BERT_SPAN", "4")
    output = finish(home, run, status=1)
    said = (
        r"CorpusGate: .*language: share of '(en|de)' [\d.]+ in span 3, [\d.]+ in span 4; distance [\d.]+, at most 0\.2"
    )
    assert re.search(said, output.replace("\n", " ")), output
    assert "Trainer" not in output
