"""The pipeline as Kubeflow Pipelines 2 takes it: TFX's compiled graph, and what TFX leaves out.

Two documents: the pipeline (schema 2.1.0), and what Kubernetes gives to each step. Sources: pipeline_spec.proto and
kubernetes_executor_config.proto of Kubeflow Pipelines 2.17, and its driver, which reads them.
"""

import dataclasses
import json
import re
from collections.abc import Sequence
from typing import Any

from tfx.orchestration.kubeflow.v2 import kubeflow_v2_dag_runner
from tfx.orchestration.pipeline import Pipeline

from pipeline.finetuning.settings import FinetuningSettings
from pipeline.kubeflow import claim, ending, first_step, invocation
from pipeline.kubeflow.settings import ClusterSettings, Step
from pipeline.settings import Settings
from preprocessing.corpus import spans
from preprocessing.errors import require
from preprocessing.storage import is_remote

NODE = ("python", "-m", "pipeline.kubeflow_node")
FINGERPRINT, TASK_FINGERPRINT = "CorpusFingerprint", "TaskFingerprint"

# What they read is no artifact, so an earlier result says nothing: the data, and the folders of pushed models.
_NEW_EACH_RUN = {FINGERPRINT, TASK_FINGERPRINT, "Baseline", "Pusher"}

# Counted from the first try, so that a training which fails in its fifth day is tried again; unset, nothing is.
_RETRIED_WITHIN = 7 * 24 * 3600


# A recurring run has one spec for good: its first step gives these parameters of others, by what there is today.
OF_PRETRAINING: tuple[tuple[str, str], ...] = (
    ("CorpusGen", "input_fingerprint"),
    ("CorpusGen", "settings"),
    ("VocabularyGen", "settings"),
    ("VocabularyGen", "code"),
    ("Trainer", "custom_config"),
)
OF_TUNING: tuple[tuple[str, str], ...] = (("TaskExamplesGen", "input_fingerprint"), ("Trainer", "custom_config"))

# Of data in spans they look at what earlier runs made, which the claim keeps for them.
_LOOK_BACK = ("CorpusGen", "CorpusGate", "VocabularyGen", "MaskedExamplesGen", "ExampleGate")


def documents(
    pipeline: Pipeline, settings: Settings, cluster: ClusterSettings, image: str, root: str | None
) -> list[dict[str, Any]]:
    """Compiles.

    Args:
      pipeline: made with `input_fingerprint=""`: it is found out in the run.
      settings: of the pipeline.
      cluster: what each step is given.
      image: container image of this project.
      root: gs://, s3:// or minio:// folder of the artifacts; None: the cluster's own.

    Raises InputError for names that Kubeflow, or this pipeline, does not know.
    """
    name = settings.name
    lower = name.replace("-", "").isalnum() and name == name.lower() and name[0] != "-"
    require(lower, "the pipeline's name must be of a-z 0-9 - for Kubeflow", name)
    look_back: tuple[str, ...] = ()
    if isinstance(settings, FinetuningSettings):
        _check_places(settings, cluster)
        first, gives = TASK_FINGERPRINT, OF_TUNING
    else:
        first, gives = FINGERPRINT, OF_PRETRAINING
        look_back = _LOOK_BACK if spans.are_in(settings.corpus) else ()
    steps = [first, *(node.id for node in pipeline.components)]
    for step in cluster.steps:
        require(step in steps, f"steps are {', '.join(steps)}", step)
    config = kubeflow_v2_dag_runner.KubeflowV2DagRunnerConfig(
        default_image=image, default_commands=NODE, use_pipeline_spec_2_1=True
    )
    spec = kubeflow_v2_dag_runner.KubeflowV2DagRunner(config).run(pipeline, write_out=False)["pipelineSpec"]
    if root is not None:
        places = ("gs://", "s3://", "minio://")
        require(root.startswith(places), f"root must begin with {', '.join(places)}", root)
        spec["defaultPipelineRoot"] = root
    tasks = spec["root"]["dag"]["tasks"]
    inputs = {step: json.dumps(task.get("inputs")) for step, task in tasks.items()}  # before some come from a step
    args = ["--settings", settings.to_json(), "--mount", cluster.mount]
    container = {"image": image, "command": [*NODE[:2], first_step.__name__], "args": args}
    _add_first(first, gives, container, spec, tasks)
    executors = {}
    for step, task in tasks.items():
        given = cluster.steps.get(step, cluster.step)
        task["cachingOptions"] = {} if step in _NEW_EACH_RUN else {"enableCache": True}
        # Another try would refuse the same model again.
        if given.retries and (step != "Pusher" or step in cluster.steps):
            task["retryPolicy"] = {
                "maxRetryCount": given.retries,
                "backoffDuration": f"{cluster.retry_seconds}s",
                "backoffFactor": 2.0,
                "backoffMaxDuration": f"{_RETRIED_WITHIN}s",
            }
        label = spec["components"][step]["executorLabel"]
        container = spec["deploymentSpec"]["executors"][label]["container"]
        more: dict[str, Any] = {"retention": dataclasses.asdict(settings.retention)} if step == "Pusher" else {}
        if step in look_back:
            rule = f"data in spans wants {step} with Beam's workers in its container, which has the claim"
            elsewhere = [arg for arg in container["args"] if invocation.runs_elsewhere([arg])]
            require(not elsewhere, rule, ", ".join(elsewhere))
            more["kept"] = claim.kept(cluster.mount, name, step)
        container["env"] = [ending.variable(name, step, settings.webhook, **more)]
        container["resources"] = _resources(given, cluster.gpu)
        told = json.dumps(container["args"]) + inputs.get(step, "")
        uses_claim = re.search(rf"{re.escape(cluster.mount)}(?![\w.-])", told) is not None
        executors[label] = _of_kubernetes(given, cluster, uses_claim or step in look_back)
    return [spec, {"platforms": {"kubernetes": {"deploymentSpec": {"executors": executors}}}}]


def _check_places(settings: FinetuningSettings, cluster: ClusterSettings) -> None:
    named = {name: getattr(settings, name) for name in ("train", "eval", "init")}
    for name, path in (*named.items(), ("teacher", settings.options.get("teacher"))):
        bucket = name in ("train", "eval")
        rule = f"{name} must lie on the claim, below {cluster.mount}/" + ", or in a bucket" * bucket
        found = path is None or path.startswith(f"{cluster.mount}/") or (bucket and is_remote(path))
        require(found, rule, path)


def _add_first(
    name: str, gives: Sequence[tuple[str, str]], container: dict[str, Any], spec: dict[str, Any], tasks: dict[str, Any]
) -> None:
    """Adds the step before all others, whose container writes a file for each parameter that it gives."""
    label, keys = f"{name}_executor", [f"{step}_{parameter}" for step, parameter in gives]
    for key, (step, parameter) in zip(keys, gives, strict=True):
        container["args"] += ["--give", step, parameter, f"{{{{$.outputs.parameters['{key}'].output_file}}}}"]
        tasks[step]["inputs"]["parameters"][parameter] = {
            "taskOutputParameter": {"producerTask": name, "outputParameterKey": key}
        }
        before = tasks[step].setdefault("dependentTasks", [])
        before += [name] * (name not in before)
    spec["components"][name] = {
        "executorLabel": label,
        "outputDefinitions": {"parameters": {key: {"parameterType": "STRING"} for key in keys}},
    }
    spec["deploymentSpec"]["executors"][label] = {"container": container}
    tasks[name] = {"componentRef": {"name": name}, "taskInfo": {"name": name}}


def _resources(given: Step, gpu: str) -> dict[str, Any]:
    amounts = {
        "resourceCpuRequest": given.cpu,
        "resourceMemoryRequest": given.memory,
        "resourceMemoryLimit": given.memory,
    }
    found: dict[str, Any] = {name: amount for name, amount in amounts.items() if amount}
    if given.gpus:
        found["accelerator"] = {"resourceType": gpu, "resourceCount": str(given.gpus)}
    return found


def _of_kubernetes(given: Step, cluster: ClusterSettings, uses_claim: bool) -> dict[str, Any]:
    """What Kubeflow calls platform-specific. Names stand twice, as its SDK writes them: older backends know the plain
    ones only."""
    found: dict[str, Any] = {}
    if uses_claim:
        found["pvcMount"] = [
            {"mountPath": cluster.mount, "constant": cluster.claim, "pvcNameParameter": _constant(cluster.claim)}
        ]
    if cluster.secrets:
        found["secretAsEnv"] = [
            {
                "secretName": name,
                "secretNameParameter": _constant(name),
                "keyToEnv": [{"envVar": variable, "secretKey": key} for variable, key in variables.items()],
            }
            for name, variables in cluster.secrets.items()
        ]
    if cluster.pull_secrets:
        found["imagePullSecret"] = [
            {"secretName": name, "secretNameParameter": _constant(name)} for name in cluster.pull_secrets
        ]
    if given.shared_memory:
        # Not `enabledSharedMemory`, which the backend does not read.
        found["emptyDirMounts"] = [
            {"volumeName": "shm", "mountPath": "/dev/shm", "medium": "Memory", "sizeLimit": given.shared_memory}
        ]
    if given.tolerations:
        found["tolerations"] = [
            {key: value for key, value in vars(toleration).items() if value} for toleration in given.tolerations
        ]
    if given.node_labels:
        found["nodeSelector"] = {"labels": dict(given.node_labels)}
    return found


def _constant(value: str) -> dict[str, Any]:
    return {"runtimeValue": {"constant": value}}
