import os
import shutil

from pipeline.history import parents
from pipeline.kubeflow import claim
from pipeline.retention import RetentionSettings
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
