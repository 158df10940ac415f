import json
import os
import subprocess

import pytest
import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

from pipeline import kubeflow_runner, settings
from pipeline.components import documents
from pipeline.graphs import fingerprint, pretraining
from pipeline.kubeflow import corpus_fingerprint, invocation, spec
from pipeline.kubeflow.settings import ClusterSettings, Step, Toleration
from preprocessing.errors import InputError
from tests.data import ROOT

IMAGE = "registry/bert@sha256:1"
BEAM = ("--runner=DataflowRunner", "--project=p")
GPUS = Step(
    "16", "120Gi", 8, "16Gi", 5, (Toleration("nvidia.com/gpu", effect="NoSchedule"),), node_labels={"pool": "gpu"}
)
CLUSTER = ClusterSettings(
    claim="models", secrets={"aws": {"AWS_REGION": "region"}}, pull_secrets=("registry",), steps={"Trainer": GPUS}
)


def compile_spec(cluster=CLUSTER, root=None, **changes):
    run = settings.smoke().replace(**changes)
    pipeline = pretraining.create_pipeline(
        run, root="", metadata=None, serving="/bert/serving/bert", work="/bert/training", input_fingerprint=""
    )
    return spec.documents(pipeline, run, cluster, IMAGE, root)


@pytest.fixture(scope="module")
def compiled():
    corpus = settings.CorpusSettings(input=("/bert/corpus/*.txt",))
    return compile_spec(corpus=corpus, step_beam_args={"MaskedExamplesGen": BEAM}, root="gs://bucket/root")


@pytest.fixture(scope="module")
def pipeline(compiled):
    return compiled[0]


@pytest.fixture(scope="module")
def tasks(pipeline):
    return pipeline["root"]["dag"]["tasks"]


@pytest.fixture(scope="module")
def containers(pipeline):
    executors = pipeline["deploymentSpec"]["executors"]
    return {label.removesuffix("_executor"): executor["container"] for label, executor in executors.items()}


@pytest.fixture(scope="module")
def platform(compiled):
    (name,) = compiled[1]["platforms"]
    assert name == "kubernetes"
    executors = compiled[1]["platforms"][name]["deploymentSpec"]["executors"]
    return {label.removesuffix("_executor"): given for label, given in executors.items()}


def test_the_schema_is_the_backends(pipeline):
    assert pipeline["schemaVersion"] == "2.1.0"
    assert pipeline["defaultPipelineRoot"] == "gs://bucket/root"
    json_format.ParseDict(pipeline, pipeline_spec_pb2.PipelineSpec())  # raises at names that it does not know
    json_format.ParseDict(pipeline["deploymentSpec"], pipeline_spec_pb2.PipelineDeploymentConfig())


def test_every_step_runs_our_own_entry_in_the_image(tasks, containers, platform):
    assert set(tasks) == set(containers) == set(platform)
    for step, container in containers.items():
        assert container["image"] == IMAGE
        module = corpus_fingerprint.__name__ if step == spec.FINGERPRINT else "pipeline.kubeflow_node"
        assert container["command"] == ["python", "-m", module]


def test_what_is_not_known_by_its_inputs_runs_each_time(tasks):
    uncached = {step for step, task in tasks.items() if not task["cachingOptions"].get("enableCache")}
    assert uncached == {spec.FINGERPRINT, "Baseline", "Pusher"}
    producer = {"producerTask": spec.FINGERPRINT, "outputParameterKey": "input_fingerprint"}
    assert tasks["CorpusGen"]["inputs"]["parameters"]["input_fingerprint"] == {"taskOutputParameter": producer}
    assert tasks["CorpusGen"]["dependentTasks"] == [spec.FINGERPRINT]


def test_a_training_is_tried_again_after_days(tasks):
    policy = {"maxRetryCount": 5, "backoffDuration": "60s", "backoffFactor": 2.0, "backoffMaxDuration": "604800s"}
    assert tasks["Trainer"]["retryPolicy"] == policy
    assert tasks["Pusher"]["retryPolicy"] == policy | {"maxRetryCount": 2}


def test_resources_are_asked_for(containers, platform):
    assert containers["Trainer"]["resources"] == {
        "resourceCpuRequest": "16",
        "resourceMemoryRequest": "120Gi",
        "resourceMemoryLimit": "120Gi",
        "accelerator": {"resourceType": "nvidia.com/gpu", "resourceCount": "8"},
    }
    assert containers["CorpusGen"]["resources"]["resourceMemoryLimit"] == "4Gi"
    assert "accelerator" not in containers["CorpusGen"]["resources"]
    assert platform["Trainer"]["tolerations"] == [
        {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    ]
    assert platform["Trainer"]["nodeSelector"] == {"labels": {"pool": "gpu"}}
    assert platform["Trainer"]["emptyDirMounts"] == [
        {"volumeName": "shm", "mountPath": "/dev/shm", "medium": "Memory", "sizeLimit": "16Gi"}
    ]
    assert not {"tolerations", "nodeSelector", "emptyDirMounts"} & set(platform["Evaluator"])


def test_the_claim_is_where_it_is_used(platform):
    using = {step for step, given in platform.items() if "pvcMount" in given}
    assert using == {spec.FINGERPRINT, "CorpusGen", "Trainer", "Baseline", "Pusher"}
    name = {"runtimeValue": {"constant": "models"}}
    assert platform["Pusher"]["pvcMount"] == [{"mountPath": "/bert", "constant": "models", "pvcNameParameter": name}]
    assert all(given["secretAsEnv"][0]["secretName"] == "aws" for given in platform.values())
    assert all(given["imagePullSecret"][0]["secretName"] == "registry" for given in platform.values())


def test_beam_options_reach_the_step_that_they_are_for(containers):
    args = containers["MaskedExamplesGen"]["args"]
    assert tuple(args[-len(BEAM) :]) == BEAM
    elsewhere = {step for step, container in containers.items() if invocation.runs_elsewhere(container["args"])}
    assert elsewhere == {"MaskedExamplesGen"}


def test_names_that_are_not_there_are_refused():
    with pytest.raises(InputError, match=r"steps are CorpusFingerprint, CorpusGen, .*Received: 'Training'"):
        compile_spec(ClusterSettings(claim="c", steps={"Training": GPUS}))
    with pytest.raises(InputError, match=r"step_beam_args are for .*VocabularyGen.* Received: 'Trainer'"):
        compile_spec(step_beam_args={"Trainer": BEAM})
    with pytest.raises(InputError, match=r"must be of a-z 0-9 - for Kubeflow\. Received: 'Bert'"):
        compile_spec(name="Bert")
    with pytest.raises(InputError, match=r"root must begin with gs://, s3://, minio://\. Received: '/tmp'"):
        compile_spec(root="/tmp")


def test_the_corpus_is_looked_at_in_the_run(monkeypatch, tmp_path, containers):
    given = containers[spec.FINGERPRINT]["args"]
    assert json.loads(given[1]) == ["/bert/corpus/*.txt"]
    assert given[2:] == ["--output", "{{$.outputs.parameters['input_fingerprint'].output_file}}"]
    (tmp_path / "a.txt").write_text("one")
    patterns, output = [str(tmp_path / "*.txt")], tmp_path / "out" / "fingerprint"
    monkeypatch.setattr("sys.argv", ["x", "--input", json.dumps(patterns), "--output", str(output)])
    corpus_fingerprint.main()
    before = output.read_text()
    assert before == fingerprint.of_input(documents.__name__, tuple(patterns))
    (tmp_path / "b.txt").write_text("two")
    corpus_fingerprint.main()
    assert output.read_text() != before


def test_the_command_writes_both_documents(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(os, "environ", {"BERT_SETTINGS": "smoke"})
    cluster, output = tmp_path / "cluster.json", tmp_path / "pipeline.yaml"
    cluster.write_text('{"claim": "models", "mount": "/mnt/b"}')
    kubeflow_runner.compile_pipeline(IMAGE, str(cluster), None, str(output))
    pipeline, platform = yaml.safe_load_all(output.read_text())
    assert (pipeline["pipelineInfo"]["name"], list(platform)) == ("bert", ["platforms"])
    assert "defaultPipelineRoot" not in pipeline
    assert "/mnt/b/serving/bert" in json.dumps(pipeline["root"]["dag"]["tasks"]["Pusher"])
    assert "16 steps" in capsys.readouterr().out


KFP = ROOT / ".uv" / "kfp" / "bin" / "python"


@pytest.mark.runners
@pytest.mark.skipif(not KFP.exists(), reason="no Kubeflow SDK in .uv/kfp (make kfp)")
def test_kubeflows_own_loader_reads_it(compiled, tmp_path):
    path = tmp_path / "pipeline.yaml"
    path.write_text(yaml.safe_dump_all(compiled))
    program = """
import sys
from google.protobuf import json_format
from kfp import components
from kfp.kubernetes import kubernetes_executor_config_pb2 as kubernetes
found = components.load_component_from_file(sys.argv[1])
executors = found.component_spec.platform_spec.platforms["kubernetes"].deployment_spec.executors
for name, executor in executors.items():
    json_format.ParseDict(json_format.MessageToDict(executor), kubernetes.KubernetesExecutorConfig())
print(found.name, len(found.pipeline_spec.root.dag.tasks), len(executors))
"""
    read = subprocess.run([KFP, "-c", program, path], capture_output=True, text=True, check=False)
    assert read.returncode == 0, read.stderr
    assert read.stdout.split() == ["bert", "16", "16"]
