"""The entry of a container: here with a step that does little, and the whole pipeline as Kubeflow runs it."""

import json
import os
import pathlib
import tempfile

import pytest
import tfx.components  # noqa: F401  whole, since other tests of this process want it so
from tfx.dsl.components.base import base_executor

from pipeline import kubeflow_node, settings
from pipeline.graphs import pretraining
from pipeline.history import pushed
from pipeline.kubeflow import spec
from pipeline.kubeflow.settings import ClusterSettings
from preprocessing.errors import InputError
from tests.pipeline.kubeflow.cluster import Cluster

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


def compiled(claim, steps):
    """The smoke pipeline for a corpus on the claim, with so many steps of training."""
    run = settings.smoke()
    run = run.replace(
        corpus=settings.CorpusSettings(input=(str(claim / "corpus.txt"),)),
        vocabulary=settings.dataclasses.replace(run.vocabulary, size=200),
        training=settings.dataclasses.replace(run.training, steps=steps),
    )
    serving, work = str(claim / "serving"), str(claim / "training")
    pipeline = pretraining.create_pipeline(
        run, root="", metadata=None, serving=serving, work=work, input_fingerprint=""
    )
    cluster = ClusterSettings(claim="c", mount=str(claim))
    return spec.documents(pipeline, run, cluster, "image", None)[0]


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_the_whole_pipeline_pushes_and_the_next_run_compares(folder):
    """Every container of the compiled pipeline in turn, as the driver and the launcher would start it; then once more
    with another training, where only what that changes runs, and the model pushed before is the baseline."""
    claim, cluster = folder / "claim", Cluster(folder)
    sentences = (f"Number {i} stands here. It is followed by {i + 1}." for i in range(400))
    (claim / "corpus.txt").write_text("\n\n".join(sentences))
    states = cluster.run(compiled(claim, 20))
    assert set(states.values()) == {"ran"}
    assert len(states) == 16
    (first,) = pushed.versions(str(claim / "serving")).values()
    assert cluster.find("baseline")[-1]["metadata"]["baseline"] == "none"
    assert not os.listdir(claim / "training")

    states = cluster.run(compiled(claim, 25))
    again = {step for step, state in states.items() if state == "ran"}
    assert again == {spec.FINGERPRINT, "Trainer", "Baseline", "Evaluator", "ServingCheck", "Pusher"}
    assert cluster.find("baseline")[-1]["metadata"]["baseline"] == first
    (_, old), (_, new) = sorted(pushed.versions(str(claim / "serving")).items())
    assert old == first
    assert cluster.find("pushed_model")[-1]["metadata"]["pushed_destination"] == new
