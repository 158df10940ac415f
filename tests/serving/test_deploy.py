"""The files for TensorFlow Serving, read by what they are for: protobuf, the Kubernetes schemas, its list of flags."""

import dataclasses
import json
import os
import pathlib
import re
import shutil
import subprocess

import jsonschema
import kubernetes_validate
import pytest
import yaml
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

import serving
from pipeline.commands import serve
from pipeline.settings import PipelineSettings
from serving.engine import settings
from serving.protocol import protos
from serving.server import config_files

DEPLOY = pathlib.Path(serving.__file__).parent / "deploy"
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
KUBERNETES = ("1.29", "1.32", "1.34")
# All flags of tensorflow_model_server, as its main.cc of July 2026 has them.
FLAGS = set(
    """allow_version_labels_for_unavailable_models batching_parameters_file enable_batching
    enable_grpc_healthcheck_service enable_model_warmup enable_per_model_batching_parameters enable_profiler
    enable_serialization_as_tensor_content enable_signature_method_name_check file_system_poll_wait_seconds
    flush_filesystem_caches grpc_channel_arguments grpc_max_threads grpc_socket_path load_retry_interval_micros
    max_num_load_retries mixed_precision model_base_path model_config_file model_config_file_poll_wait_seconds
    model_name monitoring_config_file num_load_threads num_request_iterations_for_warmup
    num_tflite_interpreters_per_pool num_tflite_pools num_unload_threads per_process_gpu_memory_fraction
    platform_config_file port prefer_tflite_model remove_unused_fields_from_bundle_metagraph
    rest_api_enable_cors_support rest_api_num_threads rest_api_port rest_api_timeout_in_ms saved_model_tags
    skip_initialize_tpu ssl_config_file tensorflow_inter_op_parallelism tensorflow_intra_op_parallelism
    tensorflow_session_config_file tensorflow_session_parallelism thread_pool_factory_config_file
    use_alts_credentials version xla_cpu_compilation_enabled xla_gpu_compilation_enabled""".split()  # noqa: SIM905
)


def read(name, message):
    return text_format.Parse((DEPLOY / name).read_text(), message)


@pytest.fixture(scope="module")
def container():
    (manifest,) = yaml.safe_load_all((DEPLOY / "kubernetes/deployment.yaml").read_text())
    (only,) = manifest["spec"]["template"]["spec"]["containers"]
    return only


@pytest.fixture(scope="module")
def service():
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["serving"]


def flags(arguments):
    return dict(argument.removeprefix("--").split("=", 1) for argument in arguments)


def test_models_are_labelled_and_served():
    config = read("models.config", model_server_config_pb2.ModelServerConfig())
    (model,) = config.model_config_list.config
    assert (model.name, model.base_path, model.model_platform) == ("bert", "/models/bert", "tensorflow")
    assert set(model.version_labels) == {"stable", "canary"}
    # A label of a version that the policy does not load answers nobody.
    assert set(model.version_labels.values()) <= set(model.model_version_policy.specific.versions)


def test_batches_are_bounded():
    batching = read("batching_parameters.txt", protos.BatchingParameters())
    assert batching.max_enqueued_batches.value > 0
    assert batching.num_batch_threads.value > 0
    # A request cut in two would have parts padded to different lengths.
    assert not batching.enable_large_batch_splitting.value
    assert not batching.max_execution_batch_size.value
    assert not batching.allowed_batch_sizes
    assert not batching.pad_variable_length_inputs


def test_the_embedded_server_takes_the_same_batches():
    """Every bound of its own stands in the file, and is read as it stands there."""
    path = DEPLOY / "batching_parameters.txt"
    written = re.findall(r"^(\w+) \{ value: (\d+) \}", path.read_text(), re.MULTILINE)
    ours = config_files.read_batching(str(path))
    # Whether there is batching is a flag's to say, and not in the file.
    assert dataclasses.asdict(ours) == {name: int(value) for name, value in written} | {"enabled": True}
    defaults = dataclasses.asdict(settings.BatchingSettings())
    assert set(dataclasses.asdict(ours).items()) - set(defaults.items()) >= {("max_batch_size", 32)}  # not its defaults


def test_our_flags_are_tensorflow_servings():
    assert {option.name for option in serve.command.params} - set(serve.OWN_FLAGS) == FLAGS
    assert not set(serve.OWN_FLAGS) & FLAGS


def test_metrics_are_where_prometheus_is_told(container):
    monitoring = read("monitoring.config", protos.MonitoringConfig()).prometheus_config
    assert monitoring.enable
    deployment = yaml.safe_load((DEPLOY / "kubernetes/deployment.yaml").read_text())
    annotations = deployment["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/path"] == monitoring.path
    assert annotations["prometheus.io/port"] == flags(container["args"])["rest_api_port"]


def test_both_deployments_start_the_server_alike(container, service):
    assert container["command"] == service["entrypoint"] == ["tensorflow_model_server"]
    assert flags(container["args"]) == flags(service["command"])
    assert set(flags(container["args"])) <= FLAGS
    for value in flags(container["args"]).values():
        if value.startswith("/config/"):
            assert (DEPLOY / value.removeprefix("/config/")).is_file()


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda path: path.stem)
@pytest.mark.parametrize("version", KUBERNETES)
def test_manifests_follow_the_schemas(manifest, version):
    for resource in yaml.safe_load_all(manifest.read_text()):
        kubernetes_validate.validate(resource, version, strict=True)


def test_the_schemas_refuse_a_wrong_manifest():
    resource = yaml.safe_load((DEPLOY / "kubernetes/deployment.yaml").read_text())
    resource["spec"]["template"]["spec"]["containers"][0]["readinessprobe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(resource, KUBERNETES[-1], strict=True)


def test_probes_ask_for_the_stable_version(container):
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {
        "grpc": int(flags(container["args"])["port"]),
        "rest": int(flags(container["args"])["rest_api_port"]),
    }
    for probe in ("startupProbe", "readinessProbe"):
        assert container[probe]["httpGet"] == {"path": "/v1/models/bert/labels/stable/metadata", "port": "rest"}
    assert container["livenessProbe"]["tcpSocket"] == {"port": "grpc"}
    assert {"cpu", "memory"} <= set(container["resources"]["requests"])
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts == {"models": "/models", "config": "/config", "tmp": "/tmp"}


def test_every_selector_finds_the_servers():
    resources = {path.stem: yaml.safe_load(path.read_text()) for path in MANIFESTS}
    labels = resources["deployment"]["spec"]["template"]["metadata"]["labels"]
    assert resources["deployment"]["spec"]["selector"]["matchLabels"] == labels
    assert resources["service"]["spec"]["selector"] == labels
    assert resources["disruption-budget"]["spec"]["selector"]["matchLabels"] == labels
    target = resources["autoscaler"]["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", resources["deployment"]["metadata"]["name"])
    volumes = {volume["name"]: volume for volume in resources["deployment"]["spec"]["template"]["spec"]["volumes"]}
    assert volumes["models"]["persistentVolumeClaim"]["claimName"] == resources["storage"]["metadata"]["name"]


def test_the_kustomization_names_every_file():
    kustomization = yaml.safe_load((DEPLOY / "kustomization.yaml").read_text())
    assert sorted(kustomization["resources"]) == [f"kubernetes/{path.name}" for path in MANIFESTS]
    (config,) = kustomization["configMapGenerator"]
    deployment = yaml.safe_load((DEPLOY / "kubernetes/deployment.yaml").read_text())
    volumes = {volume["name"]: volume for volume in deployment["spec"]["template"]["spec"]["volumes"]}
    assert volumes["config"]["configMap"]["name"] == config["name"]
    assert all((DEPLOY / name).is_file() for name in config["files"])


@pytest.mark.skipif(not shutil.which("kubectl"), reason="no kubectl here")
def test_kubectl_builds_the_whole():
    built = subprocess.run(["kubectl", "kustomize", DEPLOY], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    resources = list(yaml.safe_load_all(built.stdout))
    assert {resource["kind"] for resource in resources} >= {"ConfigMap", "Deployment", "Service"}
    for resource in resources:
        kubernetes_validate.validate(resource, KUBERNETES[-1], strict=True)


def strictly(**properties):
    return {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}


# What the file uses of InferenceService, serving.kserve.io/v1beta1, as the resource definition of KServe 0.20 has it
# (config/crd/full/serving.kserve.io_inferenceservices.yaml, against which the file was checked whole).
TEXT, COUNT = {"type": "string"}, {"type": "integer", "minimum": 1}
AMOUNTS = {"type": "object", "additionalProperties": {"type": "string", "pattern": r"^\d+(\.\d+)?(m|[kMGT]i?)?$"}}
INFERENCE_SERVICE = strictly(
    apiVersion={"const": "serving.kserve.io/v1beta1"},
    kind={"const": "InferenceService"},
    metadata={"type": "object"},
    spec=strictly(
        predictor=strictly(
            minReplicas=COUNT,
            maxReplicas=COUNT,
            automountServiceAccountToken={"type": "boolean"},
            model=strictly(
                modelFormat=strictly(name=TEXT, version=TEXT),
                runtime=TEXT,
                runtimeVersion=TEXT,
                protocolVersion={"enum": ["v1", "grpc-v1"]},  # of this runtime
                storageUri=TEXT,
                args={"type": "array", "items": TEXT},
                readinessProbe=strictly(
                    httpGet=strictly(path=TEXT, port=COUNT),
                    periodSeconds=COUNT,
                    timeoutSeconds=COUNT,
                    failureThreshold=COUNT,
                ),
                resources=strictly(requests=AMOUNTS, limits=AMOUNTS),
            ),
        )
    ),
)


def test_kserve_serves_what_the_pipeline_pushes(container):
    resource = yaml.safe_load((DEPLOY / "kserve/inference-service.yaml").read_text())
    jsonschema.validate(resource, INFERENCE_SERVICE)
    predictor, name = resource["spec"]["predictor"], resource["metadata"]["name"]
    assert predictor["minReplicas"] <= predictor["maxReplicas"]
    model = predictor["model"]
    assert model["modelFormat"] == {"name": "tensorflow", "version": "2"}
    assert container["image"] == f"tensorflow/serving:{model['runtimeVersion']}"  # one whose operations are known
    assert model["storageUri"].endswith(f"/serving/{PipelineSettings().name}")
    assert model["readinessProbe"]["httpGet"]["path"] == f"/v1/models/{name}/metadata"
    # The runtime itself names these; a second value would be a second model's.
    theirs = {"model_name", "model_base_path", "port", "rest_api_port", "rest_api_timeout_in_ms"}
    assert set(flags(model["args"])) <= FLAGS - theirs


def test_compose_mounts_what_the_flags_name(service):
    assert [volume.split(":")[-2] for volume in service["volumes"]] == ["/models", "/config"]
    assert all(volume.endswith(":ro") for volume in service["volumes"])
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])


def has_compose():
    command = ["docker", "compose", "version"]
    return bool(shutil.which("docker")) and not subprocess.run(command, capture_output=True, check=False).returncode


@pytest.mark.skipif(not has_compose(), reason="no docker compose here")
def test_docker_compose_reads_the_file():
    command = ["docker", "compose", "-f", DEPLOY / "compose.yaml", "config", "--format", "json"]
    environment = {**os.environ, "BERT_MODELS": "/models"}
    read = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert read.returncode == 0, read.stderr
    assert "serving" in json.loads(read.stdout)["services"]
