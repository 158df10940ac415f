import json
import os
import re
import shutil

import pytest
from click.testing import CliRunner

from pipeline import cli, settings
from pipeline.components import pushed as components
from pipeline.graphs import parts
from pipeline.history import labels, parents, picture, pushed
from pipeline.kubeflow import claim
from pipeline.retention import RetentionSettings
from preprocessing.errors import InputError
from tests.pipeline.graphs import test_finetuning

SERVING = "serving/bert"


def trained(folder):
    """(exported model, its checkpoint) of a container that runs."""
    (folder / "model_run/model").mkdir(parents=True)
    (folder / "model_run/model/weights").write_text(folder.name)
    test_finetuning.push(folder, folder / "model_run/model", folder / "nowhere")
    return str(folder / "Format-Serving"), folder / "model_run"


def age(mount):
    for path in (*(mount / "checkpoints").rglob("*"), *(mount / "training").rglob("*")):
        os.utime(path, (0, 0))


def push(model, mount, version, serving=SERVING):
    (mount / serving).mkdir(parents=True, exist_ok=True)
    shutil.copytree(model, mount / serving / str(version))


def names(folder):
    return {path.name for path in folder.iterdir()}


def test_the_checkpoint_outlasts_its_container(tmp_path):
    model, run = trained(tmp_path / "pod")
    claim.keep_checkpoint(model, tmp_path)
    shutil.rmtree(run)
    kept = tmp_path / parents.read(model)["checkpoint"]
    assert kept.parent == tmp_path / "checkpoints"
    assert (kept / "weights").read_text() == "pod"
    assert parents.read(model)["spans"] == []


def test_what_no_pushed_model_comes_of_goes_after_days(tmp_path):
    made, kept = {}, {}
    for name, began_with in (("first", None), ("parent", "first"), ("ours", "parent"), ("refused", None)):
        made[name] = trained(tmp_path / name)[0]
        parents.write(made[name], **{**parents.read(made[name]), "init": kept.get(began_with)})
        claim.keep_checkpoint(made[name], tmp_path)
        kept[name] = parents.read(made[name])["checkpoint"]
    push(made["ours"], tmp_path, 1)
    assert claim.clean(tmp_path / SERVING, RetentionSettings()) == []
    age(tmp_path)
    assert claim.clean(tmp_path / SERVING, RetentionSettings()) == [kept["refused"]]
    assert {str(path) for path in (tmp_path / "checkpoints").iterdir()} == {kept[name] for name in kept} - {
        kept["refused"]
    }


def test_of_versions_those_stay_that_the_rule_keeps_and_of_trainings_those_that_are_worked_on(tmp_path):
    models = {}
    for version in range(1, 4):
        model = models[version] = trained(tmp_path / f"pod{version}")[0]
        claim.keep_checkpoint(model, tmp_path)
        push(model, tmp_path, version)
    other = trained(tmp_path / "other")[0]
    claim.keep_checkpoint(other, tmp_path)
    push(other, tmp_path, 1, "serving/other")
    for name in ("broken-off", "at-work"):
        (tmp_path / "training" / name).mkdir(parents=True)
    age(tmp_path)
    (tmp_path / "training/at-work/checkpoint").touch()
    gone = claim.clean(tmp_path / SERVING, RetentionSettings(versions=2))
    first, checkpoint = str(tmp_path / SERVING / "1"), parents.read(models[1])["checkpoint"]
    assert gone == [first, checkpoint, f"{tmp_path}/training/broken-off"]
    assert names(tmp_path / SERVING) == {"2", "3"}
    assert names(tmp_path / "serving/other") == {"1"}
    assert names(tmp_path / "training") == {"at-work"}
    assert len(names(tmp_path / "checkpoints")) == 3


def bert(*arguments):
    return CliRunner().invoke(cli.bert, list(map(str, arguments)), catch_exceptions=False).output


@pytest.fixture
def mount(tmp_path):
    """A claim with two versions, the second warm-started from the first."""
    mount, init = tmp_path / "claim", None
    asked = parts.part(settings.smoke(), "encoder", "training", "vocabulary", "export", "init")
    for run in ("first", "second"):
        model, _ = trained(tmp_path / "s3/bucket/bert" / run / "Trainer/1")
        parents.write(model, **{**parents.read(model), "init": init})
        claim.keep_checkpoint(model, mount, settings=asked, code="f00d", examples={"examples": 1234})
        init = parents.read(model)["checkpoint"]
        components.push(model, str(mount / SERVING))
    return mount


def test_its_versions_get_labels_which_are_taken_back(mount):
    old, new = sorted(pushed.versions(str(mount / SERVING)))
    for version in (old, new):
        assert f"stable is version {version} now: {mount}/serving/models.config" in bert(
            "promote", version, "--home", mount
        )
    assert f"stable is version {old} again" in bert("rollback", "--home", mount)
    assert labels.of(mount / "serving/models.config", "bert") == {"stable": old}
    again = pushed.read(str(mount / SERVING))["versions"][str(new)]["from"]
    assert components.push(again, str(mount / SERVING)) is None
    assert f"{mount}/{SERVING}/{new}" in claim.clean(mount / SERVING, RetentionSettings(versions=1))
    assert components.push(again, str(mount / SERVING)) is None


def test_a_version_is_traced_as_far_as_the_claim_says(mount, tmp_path):
    old, new = sorted(pushed.versions(str(mount / SERVING)))
    found = json.loads(bert("lineage", "latest", "--home", mount, "--json"))
    assert (found["version"], found["model"]["run"]) == (str(new), "second")
    assert found["parent"]["versions"] == [str(old)]
    assert found["settings"]["encoder"]["hidden_size"] == 32
    text = bert("lineage", new, "--home", mount, "--picture", tmp_path / "a.svg")
    for said in (
        "trained not recorded",
        "by run second, pushed by run not recorded",
        "files and their hashes: not recorded",
        "examples    1,234 examples",
        "1 layers of 32, 20 steps of 16",
        "training f00d",
        f"parent      version {old}",
        "gate        passed; not recorded",
    ):
        assert said in text
    assert "gate: passed" in (tmp_path / "a.svg").read_text()
    card = os.path.join(pushed.versions(str(mount / SERVING))[old], parents.CARD)
    os.remove(card)
    found = json.loads(bert("lineage", old, "--home", mount, "--json"))
    assert (found["settings"], found["code"]["training"]) == ({}, "not recorded")
    assert re.search(r"settings +not recorded", bert("lineage", old, "--home", mount))
    picture.draw(found, tmp_path / "b.svg")


def test_a_fine_tuned_version_of_a_claim(mount):
    split = {"rows": 12, "unlabelled": 0, "set_aside": 1, "hash": "abcd"}
    folder = pushed.versions(str(mount / SERVING))[max(pushed.versions(str(mount / SERVING)))]
    asked = json.dumps({"task": "classification", "options": {"epochs": 3.0}})
    parents.write(folder, **{**parents.read(folder), "settings": asked, "examples": {"train": split, "eval": split}})
    text = bert("lineage", "latest", "--home", mount)
    assert "train 12 rows, hash abcd; eval 12 rows, hash abcd; 2 set aside" in text
    assert "epochs 3.0" in text


@pytest.mark.parametrize("command", ["runs", "clean"])
def test_what_a_claim_does_not_know_is_said(mount, command):
    with pytest.raises(InputError, match=r"only what was pushed, as on a claim of Kubeflow: it knows the runs"):
        bert(command, "--home", mount)


def test_what_steps_over_spans_made_lies_beside_what_they_make(tmp_path):
    kept, uris = tmp_path / "claim" / "kept", {}
    for run in range(4):
        pod = tmp_path / f"pod-{run}"
        uris = {key: str(pod / "id" / key) for key in ("documents", "aside")}
        claim.lay_beside(kept, uris)
        beside = names(pod / "id") if run else set()
        assert len([name for name in beside if name.startswith("documents-")]) == min(run, 2)
        for key, uri in uris.items():
            os.makedirs(uri)
            (pod / "id" / key / "file").write_text(str(run))
        claim.keep_outputs(kept, uris)
    found = sorted(kept.glob("documents-*"))
    assert [(path / "file").read_text() for path in found] == ["2", "3"]
    torn = kept / ".documents-1"
    torn.mkdir()
    claim.keep_outputs(kept, uris)
    assert torn.exists()  # it may be at work
    os.utime(torn, (0, 0))
    claim.keep_outputs(kept, uris)
    assert not torn.exists()
    assert len(names(kept)) == 4
