import os
import shutil

from pipeline.history import parents
from pipeline.kubeflow import claim
from tests.pipeline.graphs import test_finetuning

SERVING = "serving/bert"


def trained(folder):
    """(exported model, its checkpoint) of a container that runs."""
    (folder / "model_run/model").mkdir(parents=True)
    (folder / "model_run/model/weights").write_text(folder.name)
    test_finetuning.push(folder, folder / "model_run/model", folder / "nowhere")
    return str(folder / "Format-Serving"), folder / "model_run"


def age(mount):
    for path in (mount / "checkpoints").rglob("*"):
        os.utime(path, (0, 0))


def test_the_checkpoint_outlasts_its_container(tmp_path):
    model, run = trained(tmp_path / "pod")
    claim.keep_checkpoint(model, tmp_path)
    shutil.rmtree(run)
    kept = tmp_path / parents.read(model)["checkpoint"]
    assert kept.parent == tmp_path / "checkpoints"
    assert (kept / "weights").read_text() == "pod"
    assert parents.read(model)["spans"] == []


def test_what_no_pushed_model_comes_of_goes_after_days(tmp_path):
    made = {name: trained(tmp_path / name)[0] for name in ("ours", "refused", "parent", "next")}
    kept = {}
    for name in ("ours", "refused", "parent"):
        claim.keep_checkpoint(made[name], tmp_path)
        kept[name] = parents.read(made[name])["checkpoint"]
    parents.write(made["ours"], **{**parents.read(made["ours"]), "init": kept["parent"]})
    shutil.copytree(made["ours"], tmp_path / SERVING / "1")
    age(tmp_path)
    claim.keep_checkpoint(made["next"], tmp_path)
    there = {str(path) for path in (tmp_path / "checkpoints").iterdir()}
    assert there == {kept["ours"], kept["parent"], parents.read(made["next"])["checkpoint"]}
