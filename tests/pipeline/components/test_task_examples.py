"""Rows on their way into the pipeline: what is written, counted and refused."""

import json
import pathlib

import pytest
from tfx.types import standard_artifacts

from pipeline.components import split, task_examples
from pipeline.finetuning.kinds.classification import CLASSIFICATION
from pipeline.finetuning.settings import FinetuningSettings
from pipeline.graphs import fingerprint
from preprocessing.errors import InputError
from preprocessing.tasks.tables import Columns
from tests import remote


def made(tmp_path, train, held_out, suffix=".tsv", place=str, **columns) -> str:
    files = [tmp_path / f"{name}{suffix}" for name in ("learned", "held-out")]
    for path, text in zip(files, (train, held_out), strict=True):
        path.write_text(text)
    run = FinetuningSettings("classification", train=place(files[0]), eval=place(files[1]), columns=columns)
    run.check()
    artifact = standard_artifacts.Examples()
    artifact.uri = str(tmp_path / "examples")
    task_examples.TaskExamplesGen.test_call(examples=artifact, settings=run.to_json(), input_fingerprint="")
    assert json.loads(artifact.split_names) == list(split.NAMES)
    return artifact.uri


def test_rows_are_written_and_those_set_aside_counted(tmp_path):
    uri = made(tmp_path, "wet river\twet\n\tdry\nfrance\tdry\n", "a run\twet\nparis\t\n")
    report = task_examples.report(uri)
    counts = {name: {key: report[name][key] for key in ("rows", "unlabelled", "set_aside")} for name in report}
    assert counts == {
        "train": {"rows": 2, "unlabelled": 0, "set_aside": 1},
        "eval": {"rows": 2, "unlabelled": 1, "set_aside": 0},
    }
    assert report["train"]["first_set_aside"] == [f"{tmp_path}/learned.tsv:2 text (1) is empty"]
    aside = (tmp_path / "examples" / "set_aside.tsv").read_text()
    assert aside == f"{tmp_path}/learned.tsv\t2\ttext (1) is empty\n"
    (row,) = task_examples.first_rows(uri, "train", CLASSIFICATION, 1)
    assert (row.text, row.label, row.place) == ("wet river", "wet", "learned.tsv:1")


def test_the_files_are_kept_as_they_are(tmp_path):
    lines = '{"a": "wet river", "b": "wet"}\n{"a": "france", "b": "dry"}\n'
    uri = made(tmp_path, lines, lines, ".jsonl", text="a", label="b")
    source = CLASSIFICATION.source(task_examples.file_of(uri, "eval"), Columns(text="a", label="b"))
    assert [row.label for row in source.rows(print)] == ["wet", "dry"]


def test_rows_may_lie_on_a_filesystem_of_beams(tmp_path):
    uri = made(tmp_path, "wet river\twet\n\tdry\n", "a run\twet\n", place=remote.shelved)
    report = task_examples.report(uri)
    assert report["train"]["first_set_aside"] == [f"shelf:/{tmp_path}/learned.tsv:2 text (1) is empty"]
    assert pathlib.Path(task_examples.file_of(uri, "eval")).read_text() == "a run\twet\n"
    assert fingerprint.of_files((remote.shelved(tmp_path / "learned.tsv"),))


def test_the_same_rows_have_the_same_hash_whatever_their_file_is_called(tmp_path):
    rows = "wet river\twet\nfrance\tdry\n"
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first = task_examples.report(made(tmp_path / "a", rows, rows))
    second = task_examples.report(made(tmp_path / "b", rows, f"{rows}paris\tdry\n"))
    assert first["train"]["hash"] == second["train"]["hash"]
    assert first["eval"]["hash"] != second["eval"]["hash"]


def test_no_usable_row(tmp_path):
    with pytest.raises(
        InputError, match=r"held-out.tsv: there must be usable rows. Received: .*:1 text \(1\) is empty"
    ):
        made(tmp_path, "wet river\twet\n", "\twet\n")
