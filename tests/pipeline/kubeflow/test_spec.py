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
from pipeline.history import parents
from pipeline.kubeflow import ending, first_step, invocation, spec
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
        module = first_step.__name__ if step == spec.FINGERPRINT else "pipeline.kubeflow_node"
        assert container["command"] == ["python", "-m", module]


def test_what_is_not_known_by_its_inputs_runs_each_time(tasks):
    uncached = {step for step, task in tasks.items() if not task["cachingOptions"].get("enableCache")}
    assert uncached == {spec.FINGERPRINT, "Baseline", "Pusher"}
    producer = {"producerTask": spec.FINGERPRINT, "outputParameterKey": "CorpusGen_input_fingerprint"}
    assert tasks["CorpusGen"]["inputs"]["parameters"]["input_fingerprint"] == {"taskOutputParameter": producer}
    assert tasks["CorpusGen"]["dependentTasks"] == [spec.FINGERPRINT]


def test_a_fine_tuning_is_told_in_each_run_what_it_begins_with(tuning):
    tasks = tuning[0]["root"]["dag"]["tasks"]
    uncached = {step for step, task in tasks.items() if not task["cachingOptions"].get("enableCache")}
    assert uncached == {spec.TASK_FINGERPRINT, "Baseline", "Pusher"}
    for step, key in (("TaskExamplesGen", "input_fingerprint"), ("Trainer", "custom_config")):
        producer = {"producerTask": spec.TASK_FINGERPRINT, "outputParameterKey": f"{step}_{key}"}
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


@pytest.fixture
def look(monkeypatch, tmp_path):
    """What the first step gives for settings, with the claim in `tmp_path`: (step, parameter) -> value."""

    def look(run, given):
        files = {pair: tmp_path / "out" / "_".join(pair) for pair in given}
        told = ["x", "--settings", run.to_json(), "--mount", str(tmp_path)]
        gives = [word for pair, file in files.items() for word in ("--give", *pair, str(file))]
        monkeypatch.setattr("sys.argv", told + gives)
        first_step.main()
        return {pair: file.read_text() for pair, file in files.items()}

    return look


def test_the_corpus_is_looked_at_in_the_run(look, tmp_path, containers):
    given = containers[spec.FINGERPRINT]["args"]
    assert json.loads(given[1])["corpus"]["input"] == ["/bert/corpus/*.txt"]
    assert given[2:4] == ["--mount", "/bert"]
    file = "{{$.outputs.parameters['CorpusGen_input_fingerprint'].output_file}}"
    assert given[4:8] == ["--give", "CorpusGen", "input_fingerprint", file]
    assert len(given) == 4 + 4 * len(spec.OF_PRETRAINING)
    (tmp_path / "a.txt").write_text("one")
    patterns = (str(tmp_path / "*.txt"),)
    run = settings.smoke().replace(corpus=settings.CorpusSettings(input=patterns))
    before = look(run, spec.OF_PRETRAINING)
    assert before["CorpusGen", "input_fingerprint"] == fingerprint.of_input(documents.__name__, patterns)
    (tmp_path / "b.txt").write_text("two")
    after = look(run, spec.OF_PRETRAINING)
    assert {pair for pair, value in after.items() if value != before[pair]} == {("CorpusGen", "input_fingerprint")}
    work, serving = str(tmp_path / "training"), str(tmp_path / "serving" / "bert")
    here = pretraining.create_pipeline(run, root="", metadata=None, serving=serving, work=work, input_fingerprint="")
    nodes = {node.id: node for node in here.components}  # as it was compiled: nothing else is known later
    for step, parameter in spec.OF_PRETRAINING[1:]:
        assert after[step, parameter] == nodes[step].exec_properties[parameter]


def test_the_newest_spans_and_the_model_before_are_found_in_the_run(look, tmp_path):
    for span in (1, 2, 3):
        (tmp_path / f"{span}.txt").write_text(str(span))
    corpus = settings.CorpusSettings(input=(f"{tmp_path}/{{SPAN}}.txt",), window=2)
    run = settings.smoke().replace(corpus=corpus, spans=settings.SpanSettings(warm_start=True))
    cased = {
        name: settings.dataclasses.replace(getattr(run, name), lower_case=False) for name in ("vocabulary", "examples")
    }
    run = run.replace(**cased)
    before = look(run, spec.OF_PRETRAINING)
    assert json.loads(before["CorpusGen", "settings"])["corpus"]["newest_span"] == 3
    assert json.loads(before["VocabularyGen", "settings"])["vocabulary"]["file"] is None

    encoder = BertEncoder(EncoderSettings(len(small_model.VOCAB), 16, 1, 2, 32, max_positions=32), ())
    checkpoint = tmp_path / "old" / "checkpoint"
    checkpoints.save(encoder, checkpoint, small_model.write_vocab(tmp_path), True)
    test_finetuning.push(tmp_path / "old", checkpoint, tmp_path / "serving" / "bert")
    (served,) = (tmp_path / "serving" / "bert").glob("[0-9]*")
    parents.write(str(served), spans=[2, 3], checkpoint=str(checkpoint), init=None)
    (served / "assets").mkdir()
    small_model.write_vocab(served / "assets")
    assert look(run, spec.OF_PRETRAINING) == before  # it is of the same spans: no parent
    (tmp_path / "4.txt").write_text("4")
    after = look(run, spec.OF_PRETRAINING)
    assert json.loads(after["CorpusGen", "settings"])["corpus"]["newest_span"] == 4
    assert json.loads(after["VocabularyGen", "settings"])["vocabulary"]["file"] == f"{served}/assets/vocab.txt"
    assert str(checkpoint) in after["Trainer", "custom_config"]


def test_steps_over_spans_are_told_where_earlier_results_are(platform):
    corpus = settings.CorpusSettings(input=("gs://b/{SPAN}/*.txt",))
    pipeline, by_platform = compile_spec(corpus=corpus)
    executors = pipeline["deploymentSpec"]["executors"]
    told = {label: json.loads(given["container"]["env"][0]["value"]) for label, given in executors.items()}
    kept = {said["step"]: said["kept"] for said in told.values() if "kept" in said}
    looking = ("CorpusGen", "CorpusGate", "VocabularyGen", "MaskedExamplesGen", "ExampleGate")
    assert kept == {step: f"/bert/kept/bert/{step}" for step in looking}
    using = by_platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert all("pvcMount" in using[f"{step}_executor"] for step in looking)
    assert "pvcMount" not in platform["ExampleGate"]
    with pytest.raises(InputError, match=r"data in spans wants MaskedExamplesGen with .*Received: '--runner=Dataflow"):
        compile_spec(corpus=corpus, step_beam_args={"MaskedExamplesGen": BEAM})


def test_rows_and_the_model_pushed_last_are_looked_at_in_the_run(look, tmp_path):
    rows = {name: str(tmp_path / f"{name}.tsv") for name in ("train", "eval")}
    for path in rows.values():
        pathlib.Path(path).write_text("text\tlabel\nthe river\twet\n")
    run = settings.load("classification-smoke").replace(**rows)
    with pytest.raises(InputError, match=r"serving/bert: no pretrained model was pushed there"):
        look(run, spec.OF_TUNING)
    encoder = BertEncoder(EncoderSettings(len(small_model.VOCAB), 16, 1, 2, 32, max_positions=32), ())
    for name in ("old", "new"):
        checkpoints.save(encoder, tmp_path / name / "checkpoint", small_model.write_vocab(tmp_path), True)
    test_finetuning.push(tmp_path / "old", tmp_path / "old" / "checkpoint", tmp_path / "serving" / "bert")
    before = list(look(run, spec.OF_TUNING).values())
    serving, work = str(tmp_path / "serving" / run.name), str(tmp_path / "training")
    here = finetuning.create_pipeline(run, root="", metadata=None, serving=serving, work=work)
    nodes = {node.id: node for node in here.components}
    assert before == [nodes[step].exec_properties[key] for step, key in spec.OF_TUNING]
    assert list(look(run, spec.OF_TUNING).values()) == before

    test_finetuning.push(tmp_path / "new", tmp_path / "new" / "checkpoint", tmp_path / "serving" / "bert")
    pushed = list(look(run, spec.OF_TUNING).values())
    assert pushed[0] == before[0]
    assert str(tmp_path / "new" / "checkpoint") in pushed[1]
    with open(rows["train"], "a") as file:
        file.write("no river\tdry\n")
    now = list(look(run, spec.OF_TUNING).values())
    assert now[0] != before[0]
    assert now[1] == pushed[1]


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


def test_a_glob_sees_new_days(tmp_path):
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
