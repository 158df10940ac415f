import json
import os
import pathlib
import subprocess

import pytest
import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

from model import checkpoints
from model.encoder import BertEncoder
from model.settings import EncoderSettings
from pipeline import kubeflow_runner, settings
from pipeline.components import documents
from pipeline.graphs import finetuning, fingerprint, pretraining
from pipeline.kubeflow import corpus_fingerprint, ending, invocation, spec, task_fingerprint
from pipeline.kubeflow.settings import ClusterSettings, Step, Toleration
from preprocessing.errors import InputError
from tests.data import ROOT
from tests.pipeline.graphs import test_finetuning
from tests.serving import small_model

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


def compile_tuning(**changes):
    run = settings.load("classification-smoke").replace(**changes)
    serving = "/bert/serving/packages-smoke"
    pipeline = finetuning.create_pipeline(
        run, root="", metadata=None, serving=serving, work="/bert/training", input_fingerprint=""
    )
    return spec.documents(pipeline, run, CLUSTER, IMAGE, None)


@pytest.fixture(scope="module")
def tuning():
    return compile_tuning(train="/bert/train.tsv", eval="/bert/eval.tsv")


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


def test_the_schema_is_the_backends(pipeline, tuning):
    assert pipeline["defaultPipelineRoot"] == "gs://bucket/root"
    for found in (pipeline, tuning[0]):
        assert found["schemaVersion"] == "2.1.0"
        json_format.ParseDict(found, pipeline_spec_pb2.PipelineSpec())  # raises at names that it does not know
        json_format.ParseDict(found["deploymentSpec"], pipeline_spec_pb2.PipelineDeploymentConfig())


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


def test_a_fine_tuning_is_told_in_each_run_what_it_begins_with(tuning):
    tasks = tuning[0]["root"]["dag"]["tasks"]
    uncached = {step for step, task in tasks.items() if not task["cachingOptions"].get("enableCache")}
    assert uncached == {spec.TASK_FINGERPRINT, "Baseline", "Pusher"}
    for step, key in (("TaskExamplesGen", "input_fingerprint"), ("Trainer", "custom_config")):
        producer = {"producerTask": spec.TASK_FINGERPRINT, "outputParameterKey": key}
        assert tasks[step]["inputs"]["parameters"][key] == {"taskOutputParameter": producer}
        assert spec.TASK_FINGERPRINT in tasks[step]["dependentTasks"]
    executors = tuning[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    using = {label.removesuffix("_executor") for label, given in executors.items() if "pvcMount" in given}
    assert using == {spec.TASK_FINGERPRINT, "TaskExamplesGen", "Trainer", "Baseline", "Pusher"}
    container = tuning[0]["deploymentSpec"]["executors"]["Trainer_executor"]["container"]
    assert container["resources"]["accelerator"]["resourceCount"] == "8"


def test_a_training_is_tried_again_after_days(tasks):
    policy = {"maxRetryCount": 5, "backoffDuration": "60s", "backoffFactor": 2.0, "backoffMaxDuration": "604800s"}
    assert tasks["Trainer"]["retryPolicy"] == policy
    assert tasks["Evaluator"]["retryPolicy"] == policy | {"maxRetryCount": 2}


def test_a_model_that_is_refused_is_refused_once(tasks):
    assert "retryPolicy" not in tasks["Pusher"]
    asked, _ = compile_spec(ClusterSettings(claim="c", steps={"Pusher": Step(retries=1)}))
    assert asked["root"]["dag"]["tasks"]["Pusher"]["retryPolicy"]["maxRetryCount"] == 1


def test_each_step_is_told_what_it_is_without_a_change_of_its_arguments(containers):
    def told(step):
        (variable,) = containers[step]["env"]
        assert variable["name"] == ending.VARIABLE
        return json.loads(variable["value"])

    assert told(spec.FINGERPRINT) == {"pipeline": "bert", "step": spec.FINGERPRINT, "webhook": "$BERT_WEBHOOK"}
    assert told("Pusher")["retention"]["versions"] == 5
    assert not any("webhook" in part for part in containers["Trainer"]["args"])


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
    assert compile_tuning(train="gs://b/train.tsv", eval="/bert/eval.tsv")
    rule = r"train must lie on the claim, below /bert/, or in a bucket\. Received: '/train.tsv'"
    with pytest.raises(InputError, match=rule):
        compile_tuning(train="/train.tsv", eval="/bert/eval.tsv")
    with pytest.raises(InputError, match=r"teacher must lie on the claim, below /bert/\. Received: '/model'"):
        compile_tuning(options={"teacher": "/model"})


def test_the_corpus_is_looked_at_in_the_run(monkeypatch, tmp_path, containers):
    given = containers[spec.FINGERPRINT]["args"]
    assert json.loads(given[1]) == ["/bert/corpus/*.txt"]
    assert given[2:] == ["--input_fingerprint", "{{$.outputs.parameters['input_fingerprint'].output_file}}"]
    (tmp_path / "a.txt").write_text("one")
    patterns, output = [str(tmp_path / "*.txt")], tmp_path / "out" / "fingerprint"
    monkeypatch.setattr("sys.argv", ["x", "--input", json.dumps(patterns), "--input_fingerprint", str(output)])
    corpus_fingerprint.main()
    before = output.read_text()
    assert before == fingerprint.of_input(documents.__name__, tuple(patterns))
    (tmp_path / "b.txt").write_text("two")
    corpus_fingerprint.main()
    assert output.read_text() != before


def test_rows_and_the_model_pushed_last_are_looked_at_in_the_run(monkeypatch, tmp_path):
    rows = {name: str(tmp_path / f"{name}.tsv") for name in ("train", "eval")}
    for path in rows.values():
        pathlib.Path(path).write_text("text\tlabel\nthe river\twet\n")
    run = settings.load("classification-smoke").replace(**rows)
    outputs = {key: tmp_path / "out" / key for key in task_fingerprint.GIVES}
    told = ["x", "--settings", run.to_json(), "--mount", str(tmp_path)]
    monkeypatch.setattr("sys.argv", told + [str(word) for key in outputs for word in (f"--{key}", outputs[key])])

    def look():
        task_fingerprint.main()
        return [path.read_text() for path in outputs.values()]

    with pytest.raises(InputError, match=r"serving/bert: no pretrained model was pushed there"):
        look()
    encoder = BertEncoder(EncoderSettings(len(small_model.VOCAB), 16, 1, 2, 32, max_positions=32), ())
    for name in ("old", "new"):
        checkpoints.save(encoder, tmp_path / name / "checkpoint", small_model.write_vocab(tmp_path), True)
    test_finetuning.push(tmp_path / "old", tmp_path / "old" / "checkpoint", tmp_path / "serving" / "bert")
    before = look()
    serving, work = str(tmp_path / "serving" / run.name), str(tmp_path / "training")
    here = finetuning.create_pipeline(run, root="", metadata=None, serving=serving, work=work)
    nodes = {node.id: node for node in here.components}
    assert before == [nodes[step].exec_properties[key] for key, step in task_fingerprint.GIVES.items()]
    assert look() == before

    test_finetuning.push(tmp_path / "new", tmp_path / "new" / "checkpoint", tmp_path / "serving" / "bert")
    pushed = look()
    assert pushed[0] == before[0]
    assert str(tmp_path / "new" / "checkpoint") in pushed[1]
    with open(rows["train"], "a") as file:
        file.write("no river\tdry\n")
    assert look()[0] != before[0]
    assert look()[1] == pushed[1]


@pytest.mark.parametrize(
    ("preset", "name", "steps"), [("smoke", "bert", 16), ("classification-smoke", "packages-smoke", 12)]
)
def test_the_command_writes_both_documents(preset, name, steps, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(os, "environ", {"BERT_SETTINGS": preset})
    cluster, output = tmp_path / "cluster.json", tmp_path / "pipeline.yaml"
    cluster.write_text('{"claim": "models", "mount": "/mnt/b"}')
    kubeflow_runner.compile_pipeline(IMAGE, str(cluster), None, str(output))
    pipeline, platform = yaml.safe_load_all(output.read_text())
    assert (pipeline["pipelineInfo"]["name"], list(platform)) == (name, ["platforms"])
    assert "defaultPipelineRoot" not in pipeline
    assert f"/mnt/b/serving/{name}" in json.dumps(pipeline["root"]["dag"]["tasks"]["Pusher"])
    assert f"{steps} steps" in capsys.readouterr().out


def test_spans_are_refused_when_it_is_compiled_and_a_glob_sees_new_ones(monkeypatch, tmp_path):
    cluster, output = tmp_path / "cluster.json", tmp_path / "pipeline.yaml"
    cluster.write_text('{"claim": "models"}')
    monkeypatch.setattr(os, "environ", {"BERT_SETTINGS": "smoke", "BERT_CORPUS": "/bert/{SPAN}/*.txt"})
    with pytest.raises(InputError, match=r"no span can be chosen: write \* for \{SPAN\}"):
        kubeflow_runner.compile_pipeline(IMAGE, str(cluster), None, str(output))
    assert not output.exists()
    known = []
    for day in ("20261126", "20261127"):
        (tmp_path / day).mkdir()
        (tmp_path / day / "a.txt").write_text("one")
        known.append(fingerprint.of_input(documents.__name__, (f"{tmp_path}/*/*.txt",)))
    assert known[0] != known[1]


KFP = ROOT / ".uv" / "kfp" / "bin" / "python"


@pytest.mark.runners
@pytest.mark.skipif(not KFP.exists(), reason="no Kubeflow SDK in .uv/kfp (make kfp)")
@pytest.mark.parametrize(("documents", "said"), [("compiled", "bert 16 16"), ("tuning", "packages-smoke 12 12")])
def test_kubeflows_own_loader_reads_it(documents, said, tmp_path, request):
    path = tmp_path / "pipeline.yaml"
    path.write_text(yaml.safe_dump_all(request.getfixturevalue(documents)))
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
    assert read.stdout.strip() == said
