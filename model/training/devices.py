"""What the model is trained on: one device, all GPUs of a machine, or several machines."""

import functools
import json
import os

import tensorflow as tf

from preprocessing.errors import InputError


def strategy(gpus: int | None) -> tf.distribute.Strategy:
    """By the machine: several workers where the environment variable TF_CONFIG names them; else all GPUs (or the first
    `gpus`) as mirrors of each other; else TensorFlow's default, the one device there is.

    Without a GPU, several logical CPU devices (`tf.config.set_logical_device_configuration`) are used like GPUs.
    To be called before TensorFlow uses a device. InputError when more GPUs are asked for than there are.
    """
    physical = tf.config.list_physical_devices("GPU")
    if gpus is not None and gpus > len(physical):
        raise InputError(f"gpus must not exceed those of this machine ({len(physical)}). Received: {gpus}")
    if gpus is not None and gpus < len(physical):
        tf.config.set_visible_devices(physical[:gpus], "GPU")
    if is_one_of_several():
        return _several_workers()
    names = [device.name for device in tf.config.list_logical_devices("GPU")]
    if len(names) > 1:
        return tf.distribute.MirroredStrategy(names)
    names = names or [device.name for device in tf.config.list_logical_devices("CPU")]
    if len(names) > 1:
        return tf.distribute.MirroredStrategy(names, cross_device_ops=tf.distribute.ReductionToOneDevice())
    return tf.distribute.get_strategy()


@functools.cache  # a process can join its cluster once
def _several_workers() -> tf.distribute.Strategy:
    return tf.distribute.MultiWorkerMirroredStrategy()


def is_one_of_several() -> bool:
    """Whether TF_CONFIG names several workers."""
    return len(_workers()) > 1


def is_chief() -> bool:
    """Whether this process is the one that writes results: the only one, or of several workers the chief, else the
    first."""
    cluster, task = _config()
    return not cluster or (task["type"], task["index"]) == ("chief" if "chief" in cluster else "worker", 0)


def _config() -> tuple[dict[str, list[str]], dict]:
    """(cluster, task) of TF_CONFIG; the cluster is empty where there is none."""
    text = os.environ.get("TF_CONFIG") or "{}"
    try:
        config = json.loads(text)
        cluster, task = config.get("cluster") or {}, config.get("task") or {}
        if cluster and not 0 <= task["index"] < len(cluster[task["type"]]):
            raise ValueError
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise InputError(
            'TF_CONFIG must be like {"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}'
            f", its task one of the cluster. Received: {text!r}"
        ) from error
    return cluster, task


def _workers() -> list[str]:
    cluster, _ = _config()
    return [*cluster.get("chief", []), *cluster.get("worker", [])]
