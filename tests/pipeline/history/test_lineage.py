"""`bert lineage`: from a version back to the files that it was made of."""

import hashlib
import json
import pathlib
import shutil

import pytest
from click.testing import CliRunner

from pipeline import cli
from pipeline.history import lineage, picture
from pipeline.history.homes import Home
from preprocessing.errors import InputError
from tests.pipeline.history import small_home


def bert(*arguments):
    result = CliRunner().invoke(cli.bert, list(map(str, arguments)), catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def trace(small, version):
    return json.loads(bert("lineage", version, "--home", small.folder, "--json"))


def test_a_version_and_all_that_it_was_made_of(small):
    first = small.run()
    second = small.run(begins_with="Trainer", init=f"{small.uri('Trainer', 1)}/model")
    found = trace(small, second)
    assert found == trace(small, "latest")
    assert found["standing"]
    assert found["data"]["files"] == [{"file": "/data/a.txt", "bytes": 3, "sha256": "ab" * 32}]
    assert found["data"]["report"]["documents_eval"] == 1
    assert found["vocabulary"]["sha256"] == hashlib.sha256(b"a\n").hexdigest()
    assert found["examples"]["report"]["examples"] == 1234
    assert found["settings"]["corpus"] == {"input": ["/data/*.txt"]}
    assert found["settings"]["training"]["steps"] == 20
    assert found["settings"]["gate"] == {"min_loss_gain": 0.5}
    assert found["code"]["examples"] == "code of MaskedExamplesGen"
    assert found["code"]["state"]["commit"].startswith("c0ffee")
    assert found["parent"]["versions"] == [first]
    assert (found["evaluation"]["blessed"], found["evaluation"]["baseline"]) == (True, first)
    assert found["evaluation"]["metrics"]["masked_lm_loss"] == 5.5
    assert found["model"]["run"] == found["model"]["pushed_by"] == "2026-01-02T00:00:00-run"
    before = trace(small, first)
    assert (before["parent"], before["evaluation"]["baseline"]) == (None, None)
    assert before["model"]["identity"] != found["model"]["identity"]


def test_a_run_that_is_answered_from_the_cache_changes_nothing_of_it(small):
    version = small.run()
    before = trace(small, version)
    small.run(begins_with=None)
    assert trace(small, version) == before


def test_what_older_runs_did_not_record_is_named_so(small):
    version = small.run(kept=False)
    for file in small.folder.glob("artifacts/CorpusGen/documents/*/inputs.jsonl"):
        file.unlink()
    found = trace(small, version)
    assert found["data"]["files"] == "not recorded"
    assert found["settings"]["gate"] == found["code"]["state"] == found["evaluation"]["metrics"] == "not recorded"
    assert found["settings"]["encoder"]["num_layers"] == 2
    text = bert("lineage", version, "--home", small.folder)
    assert "files and their hashes: not recorded" in text
    assert "commit not recorded" in text


def test_it_is_told_and_drawn(small, tmp_path):
    first = small.run()
    second = small.run(begins_with="Trainer", init=f"{small.uri('Trainer', 1)}/model")
    shutil.rmtree(f"{small.serving}/{second}")
    text = bert("lineage", second, "--home", small.folder, "--picture", tmp_path / "a.svg")
    for said in (
        f"version     {second} of bert (rolled back, its folder is gone)",
        "data        10 documents (1 held out) of 1 files",
        f"/data/a.txt  3 bytes  sha256 {'ab' * 32}",
        "8 tokens, learned, [UNK] 1.2500% of held-out pieces",
        "settings    recipe short, 2 layers of 32, 20 steps of 16 at 0.001",
        f"parent      version {first}, ",
        "gate        passed; masked_lm_loss 5.5000, unigram_loss 6.0000",
        f"baseline    version {first}",
    ):
        assert said in text
    drawn = (tmp_path / "a.svg").read_text()
    for said in ("a.txt abababab", "gate: passed", f"version {second}", "rolled back", "masked lm loss 5.5000"):
        assert said in drawn
    picture.draw(trace(small, second), tmp_path / "b.svg")
    assert (tmp_path / "b.svg").read_text() == drawn
    picture.draw(trace(small, first), tmp_path / "c.png")
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(InputError, match=r"must end in \.svg or \.png\. Received: 'a\.pdf'"):
        picture.draw(trace(small, first), "a.pdf")


def test_a_version_that_was_never_pushed(small):
    version = small.run()
    home = Home.open(small.folder)
    with pytest.raises(InputError, match=rf"Received: '7'; there are {version}"):
        lineage.version_of(home, small.serving, "7")
    with pytest.raises(InputError, match=r"no model was pushed there\. Received: bert beside it"):
        home.serving("other")


def test_a_fine_tuned_version_is_traced_to_its_rows_and_its_pretrained_parent(small, monkeypatch):
    pretrained = small.run()
    monkeypatch.setattr(small, "serving", f"{small.folder}/serving/tuned")
    rest = {node: small_home.NODES[node] for node in ("Baseline", "Evaluator", "Pusher")}
    trained = {"Trainer": (("model", "model_run"), {"examples": "TaskExamplesGen"})}
    monkeypatch.setattr(small_home, "NODES", {"TaskExamplesGen": (("examples",), {}), **trained, **rest})
    settings = {"task": "classification", "train": "/data/train.tsv", "eval": "/data/dev.tsv"}
    monkeypatch.setattr(small_home, "SETTINGS", {"TaskExamplesGen": settings})
    init = f"{small.uri('Trainer', 1)}/model"
    options = {"epochs": 3.0}
    version = small.run(begins_with="TaskExamplesGen", init=init, task="classification", options=options)
    examples = pathlib.Path(small.uri("TaskExamplesGen"))
    split = {"rows": 12, "unlabelled": 0, "set_aside": 1, "hash": "abcd"}
    (examples / "report.json").write_text(json.dumps({"train": split, "eval": split | {"rows": 3}}))
    (examples / "files").mkdir()
    for name in ("train", "eval"):
        (examples / "files" / f"{name}.tsv").write_text(f"text\tlabel\n{name}\tgood\n")
    folder = pathlib.Path(small.serving, version)
    for name, text in (
        ("assets/vocab.txt", "a\nb\n"),
        ("assets.extra/finetuning.json", json.dumps({"labels": ["good", "bad"]})),
    ):
        (folder / name).parent.mkdir()
        (folder / name).write_text(text)
    found = json.loads(bert("lineage", version, "--home", small.folder, "--name", "tuned", "--json"))
    digest = hashlib.sha256(b"text\tlabel\ntrain\tgood\n").hexdigest()
    assert found["task"] == "classification"
    assert found["data"]["files"][0] == {"file": "/data/train.tsv", "bytes": 22, "sha256": digest}
    assert found["data"]["answers"] == ["good", "bad"]
    assert found["vocabulary"]["sha256"] == hashlib.sha256(b"a\nb\n").hexdigest()
    assert found["parent"] == {"checkpoint": init, "versions": [f"{pretrained} of bert"]}
    assert found["settings"]["options"] == options
    text = bert("lineage", version, "--home", small.folder, "--name", "tuned", "--picture", folder / "a.svg")
    for said in (
        "task        classification",
        "train 12 rows, hash abcd; eval 3 rows, hash abcd; 2 set aside",
        f"  /data/train.tsv  22 bytes  sha256 {digest}",
        "labels      good, bad",
        "2 tokens, taken from the checkpoint",
        f"parent      version {pretrained} of bert, {init}",
        "epochs 3.0",
    ):
        assert said in text
    drawn = (folder / "a.svg").read_text()
    for said in ("train 12", "15 rows", "2 labels", "classification", f"{pretrained} of bert"):
        assert said in drawn
