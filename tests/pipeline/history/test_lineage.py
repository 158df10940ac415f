"""`bert lineage`: from a version back to the files that it was made of."""

import hashlib
import json
import shutil

import pytest
from click.testing import CliRunner

from pipeline import cli
from pipeline.history import lineage, picture
from pipeline.history.homes import Home
from preprocessing.errors import InputError


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
        "2 layers of 32, 20 steps of 16 at 0.001",
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
