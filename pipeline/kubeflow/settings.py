"""What a cluster gives to the steps. An object of its own beside the pipeline's settings: no result depends on it."""

import dataclasses
import json
import pathlib
import re
from typing import Literal

from pipeline import values
from preprocessing.errors import InputError, require

_QUANTITY = re.compile(r"\d+(\.\d+)?(m|[kMGTP]|[KMGTP]i)?")


@dataclasses.dataclass(frozen=True)
class Toleration:
    """A taint of nodes that a step may run on all the same."""

    key: str
    operator: Literal["Exists", "Equal"] = "Exists"
    value: str = ""
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = ""  # "": all


@dataclasses.dataclass(frozen=True)
class Step:
    """What one step asks for. Amounts as Kubernetes writes them ("500m", "16Gi"); "": the cluster's default."""

    cpu: str = "1"  # at least
    memory: str = "4Gi"  # at least, and at most
    gpus: int = 0
    shared_memory: str = ""  # /dev/shm, counted as memory; several GPUs want more than the 64 MB of container runtimes
    retries: int = 2
    tolerations: tuple[Toleration, ...] = ()
    node_labels: dict[str, str] = dataclasses.field(default_factory=dict)  # that nodes must have

    def __post_init__(self):
        for name in ("cpu", "memory", "shared_memory"):
            amount = getattr(self, name)
            rule = f"{name} must be an amount as Kubernetes writes it, such as 500m or 16Gi"
            require(not amount or _QUANTITY.fullmatch(amount) is not None, rule, amount)
        require(self.gpus >= 0, "gpus must be 0 or more", self.gpus)
        require(self.retries >= 0, "retries must be 0 or more", self.retries)


@dataclasses.dataclass(frozen=True)
class ClusterSettings:
    """`claim` is a PersistentVolumeClaim that user 1000 may write to: it keeps the pushed models, the checkpoints that
    they were made with, those of a training that has not ended, and of data in spans documents and examples of the last
    two runs (see `pipeline.kubeflow.claim`). The steps that use it mount it, and those whose settings name a file
    there."""

    claim: str = ""
    mount: str = "/bert"  # where; part of what cached results are known by
    secrets: dict[str, dict[str, str]] = dataclasses.field(default_factory=dict)  # by name: variable -> key in it
    pull_secrets: tuple[str, ...] = ()  # for the image
    gpu: str = "nvidia.com/gpu"  # the resource that nodes with GPUs offer
    retry_seconds: int = 60  # before the first retry of a step; twice as long before each further one
    step: Step = Step()  # every step that is not among `steps`
    steps: dict[str, Step] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        require(self.claim != "", "claim must name a PersistentVolumeClaim for models and checkpoints", self.claim)
        rule = "mount must be an absolute path below /, without signs of globs"
        require(re.fullmatch(r"(/[\w.-]+)+", self.mount, re.ASCII) is not None, rule, self.mount)
        require(self.retry_seconds > 0, "retry_seconds must be positive", self.retry_seconds)


def load(path: str) -> ClusterSettings:
    """Reads a JSON file; what is left out has its default. Raises InputError."""
    try:
        found = json.loads(pathlib.Path(path).read_text("utf-8"))
    except OSError as error:
        raise InputError(
            f'{path}: {error.strerror}. The settings of a cluster are JSON such as {{"claim": "bert"}}'
        ) from None
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}: not JSON: {error.msg}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 ({error.reason})") from None
    return values.build(ClusterSettings, found, path)
