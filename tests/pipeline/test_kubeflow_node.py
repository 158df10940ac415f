"""The entry of a container: here with a step that does little, and the whole pipeline as Kubeflow runs it."""

import json
import os
import pathlib
import shutil
import tempfile

import pytest
import tfx.components  # noqa: F401  whole, since other tests of this process want it so
from tfx.dsl.components.base import base_executor

from model import checkpoints
from model.encoder import BertEncoder
from model.settings import EncoderSettings
from pipeline import kubeflow_node, settings
from pipeline.finetuning.settings import FinetuningSettings
from pipeline.graphs import finetuning, pretraining
from pipeline.history import labels, parents, pushed
from pipeline.kubeflow import claim, ending, spec
from pipeline.kubeflow.settings import ClusterSettings
from preprocessing.errors import InputError
from serving.client import Client
from tests.pipeline.finetuning.test_every_kind import CASES
from tests.pipeline.graphs import test_finetuning
from tests.pipeline.kubeflow.cluster import Cluster
from tests.pipeline.runs.test_notice import listening
from tests.serving import small_model

MODEL = {"instanceSchema": "title: tfx.Model\ntype: object\n"}


class Copy(base_executor.BaseExecutor):
    """Output: the input's file, in capitals."""

    def Do(self, input_dict, output_dict, exec_properties):
        (given,), (made,) = input_dict["given"], output_dict["made"]
        text = pathlib.Path(given.uri, "file").read_text()
        if text == "bad":
            raise InputError(f"{given.uri}/file:1: bad")
        if text == "worse":
            raise KeyError(text)
        pathlib.Path(made.uri, "file").write_text(text.upper() * exec_properties["times"])
        made.set_string_custom_property("of", given.uri)
        made.set_int_custom_property("in", given.get_custom_property("number"))


def run_copy(tmp_path, text):
    given = tmp_path / "s3/b/given"
    given.mkdir(parents=True)
    (given / "file").write_text(text)
    told = {
        "inputs": {
            "parameterValues": {"times": 2.0},
            "artifacts": {
                "given": {
                    "artifacts": [
                        {"name": "7", "uri": "s3://b/given", "type": {"instanceSchema": ""}, "metadata": {"number": 3}}
                    ]
                }
            },
        },
        "outputs": {
            "artifacts": {"made": {"artifacts": [{"name": "made", "uri": "s3://b/made", "type": MODEL}]}},
            "outputFile": f"{tmp_path}/s3/b/output_metadata.json",
        },
    }
    stated = {
        "artifacts": {"given": {"artifactType": MODEL}},
        "parameters": {"times": {"parameterType": "NUMBER_INTEGER"}},
    }
    arguments = ["--executor_class_path", f"{__name__}.Copy", "--json_serialized_invocation_args", json.dumps(told)]
    arguments += ["--json_serialized_inputs_spec_args", json.dumps(stated), "--volumes", str(tmp_path)]
    return kubeflow_node.main([*arguments, "--direct_running_mode=in_memory"])


def test_a_step_reads_and_writes_local_copies_and_speaks_of_uris(tmp_path):
    assert run_copy(tmp_path, "x") == 0
    assert (tmp_path / "s3/b/made/file").read_text() == "XX"
    said = json.loads((tmp_path / "s3/b/output_metadata.json").read_text())
    (made,) = said["artifacts"]["made"]["artifacts"]
    assert made["uri"] == "s3://b/made"
    assert (made["metadata"]["of"], made["metadata"]["in"]) == ("s3://b/given", 3)


def test_bad_input_is_one_line_and_a_status(tmp_path, capfd):
    assert run_copy(tmp_path, "bad") == 1
    *_, last = capfd.readouterr().err.splitlines()
    assert last == f"bert: error: {tmp_path}/s3/b/given/file:1: bad"


def test_what_else_goes_wrong_is_a_traceback(tmp_path, capfd):
    assert run_copy(tmp_path, "worse") == 1
    assert "Traceback" in capfd.readouterr().err


@pytest.fixture
def hook(monkeypatch):
    """What a webhook is told by steps of this process."""
    with listening() as (url, posted):
        monkeypatch.setenv("HOOK", url)
        monkeypatch.setenv("KFP_POD_NAME", "bert-x-1")
        monkeypatch.setenv(ending.VARIABLE, ending.variable("bert", "Copy", "$HOOK")["value"])
        yield posted


def test_a_step_that_fails_tells_the_webhook(tmp_path, hook):
    assert run_copy(tmp_path, "bad") == 1
    (notice,) = hook
    assert notice["text"].startswith(f"bert: failed in Copy (bert-x-1): {tmp_path}/s3/b/given/file:1: bad. Next: ")
    assert (notice["pipeline"], notice["step"], notice["state"]) == ("bert", "Copy", "failed")


def test_a_step_that_ends_well_tells_nobody(tmp_path, hook):
    assert run_copy(tmp_path, "x") == 0
    assert hook == []


@pytest.mark.parametrize(
    ("blessed", "span", "why"),
    [
        (0, 1, "did not pass the gate"),
        (1, 1, "is of earlier data than the one that is served"),
        (1, 2, "was rolled back before"),
    ],
)
def test_a_model_that_is_not_pushed_fails_the_run_and_is_told(hook, capfd, tmp_path, blessed, span, why):
    served, model = tmp_path / "serving" / "bert" / "7", tmp_path / "model"
    for folder, last in ((served, 2), (model / "Format-Serving", span)):
        (folder / "assets.extra").mkdir(parents=True)
        for file in ("saved_model.pb", "fingerprint.pb"):
            (folder / file).write_text(str(folder))
        parents.write(str(folder), spans=[last], checkpoint="", init=None)
    back = {"8": {"model": pushed.identity(str(model / "Format-Serving")), "from": ""}} if span == 2 else {}
    (served.parent / pushed.RECORD).write_text(json.dumps({"versions": back, "refused": list(back)}))
    left = tmp_path / "checkpoints" / "of-a-model-refused-before"
    left.mkdir(parents=True)
    os.utime(left, (0, 0))
    destination = {"filesystem": {"base_directory": claim.serving(str(tmp_path), "bert")}}
    inputs = {
        "artifacts": {
            "model_blessing": {"artifacts": [{"metadata": {"blessed": blessed}}]},
            "model": {"artifacts": [{"uri": str(model)}]},
        },
        "parameterValues": {"push_destination": json.dumps(destination)},
    }
    assert ending.status(lambda: kubeflow_node._end_pushing({"pushed": 0}, inputs)) == 3
    said = f"nothing was pushed, since the model {why}; what is served stays"
    assert capfd.readouterr() == (f"removed {left}, which retention does not keep\n", f"bert: error: {said}\n")
    assert not left.exists()
    (notice,) = hook
    assert (notice["state"], notice["cause"]) == ("not pushed", said)


def push(folder, name):
    """The Pusher's container in this process, for a model of its own that passed its gates; gives the exit status."""
    exported = folder / "s3/b/bert" / name / "Trainer/1/model/Format-Serving"
    exported.mkdir(parents=True, exist_ok=True)
    for file in ("saved_model.pb", "fingerprint.pb"):
        (exported / file).write_text(name)
    found = compiled(folder / "claim", settings.smoke())
    container = found["deploymentSpec"]["executors"]["Pusher_executor"]["container"]
    given = found["root"]["dag"]["tasks"]["Pusher"]["inputs"]["parameters"]
    uris = {"model": f"s3://b/bert/{name}/Trainer/1/model", "model_blessing": "s3://b/e", "infra_blessing": "s3://b/c"}
    (folder / "s3/b/c").mkdir(exist_ok=True)
    (folder / "s3/b/c/INFRA_BLESSED").touch()
    artifacts = {
        key: {"artifacts": [{"name": "1", "uri": uri, "type": {"instanceSchema": ""}, "metadata": {"blessed": 1}}]}
        for key, uri in uris.items()
    }
    pushed_model = {
        "name": "p",
        "uri": "s3://b/p",
        "type": {"instanceSchema": "title: tfx.PushedModel\ntype: object\n"},
    }
    told = {
        "inputs": {
            "parameterValues": {key: value["runtimeValue"]["constant"] for key, value in given.items()},
            "artifacts": artifacts,
        },
        "outputs": {
            "artifacts": {"pushed_model": {"artifacts": [pushed_model]}},
            "outputFile": f"{folder}/s3/b/output_metadata.json",
        },
    }
    arguments = [json.dumps(told) if part == "{{$}}" else part for part in container["args"]]
    return kubeflow_node.main([*arguments, "--volumes", str(folder)])


def test_what_was_rolled_back_on_the_claim_is_not_pushed_by_the_next_run(tmp_path, capfd):
    serving, config = claim.serving(str(tmp_path / "claim"), "bert"), tmp_path / "claim/serving/models.config"
    for name in ("old", "new"):
        assert push(tmp_path, name) == 0
    old, new = map(str, sorted(pushed.versions(serving)))
    for version in (old, new):
        assert labels.promote(config, serving, version, "stable")
    labels.roll_back(config, serving, "stable")
    assert push(tmp_path, "new") == 3
    assert capfd.readouterr().err.endswith("since the model was rolled back before; what is served stays\n")
    assert push(tmp_path, "old") == 0  # which is what is served
    assert list(map(str, pushed.versions(serving))) == [old]  # retention keeps nothing that was rolled back
    assert push(tmp_path, "new") == 3  # which is known all the same
    assert push(tmp_path, "newer") == 0
    assert max(labels.to_load(config, "bert")) == max(pushed.versions(serving)) > int(new)


def test_a_command_typed_by_hand_is_told_what_it_is(capfd):
    arguments = ["--executor_class_path", "x", "--json_serialized_invocation_args", "{{$}}"]
    assert kubeflow_node.main([*arguments, "--json_serialized_inputs_spec_args", "{}"]) == 1
    error = capfd.readouterr().err
    assert error.startswith("bert: error: this is the command of a container that Kubeflow starts")
    assert error.count("\n") == 1


@pytest.fixture
def folder():
    """Whoever a container runs as may write here; pytest's own are closed to others."""
    with tempfile.TemporaryDirectory(prefix="bert-cluster-") as name:
        for path in (name, os.path.join(name, "claim")):
            os.makedirs(path, exist_ok=True)
            os.chmod(path, 0o777)
        yield pathlib.Path(name)


def compiled(mount, run):
    graph = finetuning if isinstance(run, FinetuningSettings) else pretraining
    serving, work = claim.serving(str(mount), run.name), claim.training(str(mount))
    pipeline = graph.create_pipeline(run, root="", metadata=None, serving=serving, work=work, input_fingerprint="")
    cluster = ClusterSettings(claim="c", mount=str(mount))
    return spec.documents(pipeline, run, cluster, "image", None)[0]


def pretraining_on(mount, steps):
    """The smoke pipeline for a corpus on the claim, in spans, with so many steps of training."""
    run = settings.smoke()
    return run.replace(
        corpus=settings.CorpusSettings(input=(f"{mount}/day-{{SPAN}}.txt",), window=2),
        vocabulary=settings.dataclasses.replace(run.vocabulary, size=200),
        training=settings.dataclasses.replace(run.training, steps=steps),
    )


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_the_whole_pipeline_pushes_and_the_next_run_compares(folder):
    """Every container of the compiled pipeline in turn, as the driver and the launcher would start it. Then the same
    spec once more, of which each step does what the new span asks for; and with another training, where only what that
    changes runs. The model pushed before is the baseline."""
    mount, cluster = folder / "claim", Cluster(folder)

    def write(day):
        sentences = (f"Number {i} stands here. It is followed by {i + 1}." for i in range(day, 800, 2))
        (mount / f"day-{day}.txt").write_text("\n\n".join(sentences))

    def made(key, name="report.json"):
        return json.loads((cluster.bucket / cluster.find(key)[-1]["uri"].removeprefix("s3://") / name).read_text())

    write(1)
    recurring = compiled(mount, pretraining_on(mount, 20))
    states = cluster.run(recurring)
    assert set(states.values()) == {"ran"}
    assert len(states) == 16
    serving = claim.serving(str(mount), "bert")
    (first,) = pushed.versions(serving).values()
    assert cluster.find("baseline")[-1]["metadata"]["baseline"] == "none"
    assert not os.listdir(mount / "training")
    kept = parents.newest_checkpoint(serving)
    assert checkpoints.read(kept).settings.hidden_size == 32

    write(2)
    states = cluster.run(recurring)
    assert set(states.values()) == {"ran"}
    for key in ("documents", "examples"):
        assert {span: of["taken_over"] for span, of in made(key)["spans"].items()} == {"1": True, "2": False}
    assert list(made("vocabulary_artifact")["unknown_share_by_span"]) == ["1", "2"]
    assert made("vocabulary_artifact")["file"] == f"{first}/assets/vocab.txt"
    compared = {(line["against"], line["of"]) for line in made("statistics_artifact", "drift.json")}
    assert compared == {("span 1", "span 2"), ("the rule", "span 2")}
    first, second = (path for _, path in sorted(pushed.versions(serving).items()))
    assert [parents.read(path)["spans"] for path in (first, second)] == [[1], [1, 2]]
    assert len(list((mount / "kept" / "bert" / "CorpusGen").glob("documents-*"))) == 2

    states = cluster.run(compiled(mount, pretraining_on(mount, 25)))
    again = {step for step, state in states.items() if state == "ran"}
    assert again == {spec.FINGERPRINT, "Trainer", "Baseline", "Evaluator", "ServingCheck", "Pusher"}
    assert cluster.find("baseline")[-1]["metadata"]["baseline"] == second
    new = max(pushed.versions(serving).items())[1]
    assert cluster.find("pushed_model")[-1]["metadata"]["pushed_destination"] == new
    assert parents.newest_checkpoint(serving) != kept

    refusing = pretraining_on(mount, 15).replace(gate=settings.GateSettings(min_loss_gain=100.0))
    with pytest.raises(AssertionError, match=r"bert: error: nothing was pushed, since the model did not pass the gate"):
        cluster.run(compiled(mount, refusing))
    assert len(pushed.versions(serving)) == 3


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_what_was_pushed_last_is_fine_tuned_each_time(folder):
    """The same of the pipeline that fine-tunes; the second run, of the same spec, finds another encoder pushed."""
    mount, cluster = folder / "claim", Cluster(folder)
    encoder = EncoderSettings(len(small_model.VOCAB), 16, 1, 2, 32, max_positions=32)
    for name in ("old", "new"):
        checkpoints.save(BertEncoder(encoder, ()), mount / name / "checkpoint", small_model.write_vocab(folder), True)
    train, _ = CASES[0].files(mount)
    held_out = shutil.copy(train, mount / f"held-out{train.suffix}")
    run = settings.load("classification-smoke").replace(train=str(train), eval=str(held_out), untrained=False)
    tuning = compiled(mount, run)
    serving = claim.serving(str(mount), run.name)

    test_finetuning.push(mount / "old", mount / "old" / "checkpoint", mount / "serving" / "bert")
    (mount / "serving").chmod(0o777)  # for whoever the containers run as
    states = cluster.run(tuning)
    assert set(states.values()) == {"ran"}
    assert len(states) == 12
    (first,) = pushed.versions(serving).values()
    assert parents.read(first)["init"] == str(mount / "old" / "checkpoint")
    assert cluster.find("baseline")[-1]["metadata"]["baseline"] == "none"
    with Client(first) as client:
        assert client.predict("classify", text=["the river"])["label"][0] in (b"wet", b"dry")

    test_finetuning.push(mount / "new", mount / "new" / "checkpoint", mount / "serving" / "bert")
    states = cluster.run(tuning)
    again = {step for step, state in states.items() if state == "ran"}
    assert again == {spec.TASK_FINGERPRINT, "Trainer", "Baseline", "Evaluator", "ServingCheck", "Pusher"}
    assert cluster.find("baseline")[-1]["metadata"]["baseline"] == first
    second = cluster.find("pushed_model")[-1]["metadata"]["pushed_destination"]
    assert sorted(pushed.versions(serving).values()) == [first, second]
    assert parents.read(second)["init"] == str(mount / "new" / "checkpoint")
    assert checkpoints.read(parents.read(second)["checkpoint"]).settings == encoder
