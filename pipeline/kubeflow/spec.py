"""The pipeline as Kubeflow Pipelines 2 takes it: TFX's compiled graph, and what TFX leaves out.

Two documents: the pipeline (schema 2.1.0), and what Kubernetes gives to each step. Sources: pipeline_spec.proto and
kubernetes_executor_config.proto of Kubeflow Pipelines 2.17, and its driver, which reads them.
"""

import json
import re
from typing import Any

from tfx.orchestration.kubeflow.v2 import kubeflow_v2_dag_runner
from tfx.orchestration.pipeline import Pipeline

from pipeline.kubeflow.settings import ClusterSettings, Step
from pipeline.settings import PipelineSettings
from preprocessing.errors import require

NODE = ("python", "-m", "pipeline.kubeflow_node")
FINGERPRINT = "CorpusFingerprint"

# What they read is no artifact, so an earlier result says nothing: the corpus, and the folder of pushed models.
# A recurring run has one spec for good: its first step says what the corpus is today, and all others go by that.
_NEW_EACH_RUN = {FINGERPRINT, "Baseline", "Pusher"}
_KEY = "input_fingerprint"  # CorpusGen's parameter

# Counted from the first try, so that a training which fails in its fifth day is tried again; unset, nothing is.
_RETRIED_WITHIN = 7 * 24 * 3600


def documents(
    pipeline: Pipeline, settings: PipelineSettings, cluster: ClusterSettings, image: str, root: str | None
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
    steps = [FINGERPRINT, *(node.id for node in pipeline.components)]
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
    _add_fingerprint(spec, tasks, settings, image)
    executors = {}
    for step, task in tasks.items():
        given = cluster.steps.get(step, cluster.step)
        task["cachingOptions"] = {} if step in _NEW_EACH_RUN else {"enableCache": True}
        if given.retries:
            task["retryPolicy"] = {
                "maxRetryCount": given.retries,
                "backoffDuration": f"{cluster.retry_seconds}s",
                "backoffFactor": 2.0,
                "backoffMaxDuration": f"{_RETRIED_WITHIN}s",
            }
        label = spec["components"][step]["executorLabel"]
        container = spec["deploymentSpec"]["executors"][label]["container"]
        container["resources"] = _resources(given, cluster.gpu)
        told = json.dumps([container["args"], task.get("inputs")])
        uses_claim = re.search(rf"{re.escape(cluster.mount)}(?![\w.-])", told) is not None
        executors[label] = _of_kubernetes(given, cluster, uses_claim)
    return [spec, {"platforms": {"kubernetes": {"deploymentSpec": {"executors": executors}}}}]


def _add_fingerprint(spec: dict, tasks: dict, settings: PipelineSettings, image: str) -> None:
    """A step before the first, which looks at the corpus in each run."""
    label = f"{FINGERPRINT}_executor"
    output = f"{{{{$.outputs.parameters['{_KEY}'].output_file}}}}"
    command = [*NODE[:2], "pipeline.kubeflow.corpus_fingerprint"]
    args = ["--input", json.dumps(settings.corpus.input), "--output", output]
    spec["components"][FINGERPRINT] = {
        "executorLabel": label,
        "outputDefinitions": {"parameters": {_KEY: {"parameterType": "STRING"}}},
    }
    spec["deploymentSpec"]["executors"][label] = {"container": {"image": image, "command": command, "args": args}}
    tasks[FINGERPRINT] = {"componentRef": {"name": FINGERPRINT}, "taskInfo": {"name": FINGERPRINT}}
    tasks["CorpusGen"]["inputs"]["parameters"][_KEY] = {
        "taskOutputParameter": {"producerTask": FINGERPRINT, "outputParameterKey": _KEY}
    }
    tasks["CorpusGen"]["dependentTasks"] = [FINGERPRINT]


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
