"""`bert export`, from the command line to a version folder."""

import functools
import json

import pytest
from click.testing import CliRunner

from model import checkpoints
from pipeline import cli
from preprocessing.errors import InputError
from serving.export import exporting, golden
from serving.signatures import EMBEDDING, FILL_MASK
from tests.serving import small_model


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    vocab = small_model.write_vocab(tmp_path_factory.mktemp("vocab"))
    checkpoints.save(small_model.encoder((), 2), folder, vocab, lower_case=True)
    return folder


@pytest.fixture(autouse=True)
def _here(monkeypatch):
    """Exports few signatures, and answers golden requests in this process: all, and a fresh one, take seconds."""
    few = functools.partial(exporting.export_version, signatures=(EMBEDDING, FILL_MASK))
    monkeypatch.setattr(exporting, "export_version", few)
    monkeypatch.setattr(exporting, "_answer_elsewhere", lambda folder: golden.answer(str(folder)))


def run(*arguments):
    return CliRunner().invoke(cli.bert, ["export", *map(str, arguments)], catch_exceptions=False)


def test_versions_follow_each_other(checkpoint, tmp_path):
    first = run("--model", checkpoint, "--output", tmp_path)
    assert first.exit_code == 0
    assert f"\n{tmp_path}/bert/1  " in first.output
    assert "left out fill_mask: the checkpoint has no masked-language head" in first.output
    (tmp_path / "bert" / ".export-left").mkdir()  # by a killed one
    second = run("--model", checkpoint, "--output", tmp_path, "--embedding", "pooler", "--unit-length", "--json")
    report = json.loads(second.stdout.splitlines()[-1])
    assert report["version"] == f"{tmp_path}/bert/2"
    assert report["settings"]["embedding"] == "pooler"
    assert report["settings"]["unit_length"] is True
    assert sorted(path.name for path in (tmp_path / "bert").iterdir()) == ["1", "2"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "nowhere"], "nowhere: no such checkpoint"),
        (["--model", "CHECKPOINT", "--top-k", "0"], "top_k must be positive. Received: 0"),
        (["--model", "CHECKPOINT", "--vocab", "nowhere.txt"], "nowhere.txt"),
        (["--model", "CHECKPOINT", "--name", "../up"], "name must be"),
        (["--model", "CHECKPOINT", "--output", "gs://bucket"], "must be a local folder"),
    ],
)
def test_bad_arguments_are_told_in_a_line(checkpoint, tmp_path, arguments, message):
    arguments = [str(checkpoint) if argument == "CHECKPOINT" else argument for argument in arguments]
    with pytest.raises(InputError) as error:
        run("--output", tmp_path, *arguments)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.rglob(".export-*"))
