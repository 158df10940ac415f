"""What the embedded server is told: flags and files of TensorFlow Serving, read into frozen, validated objects."""

import contextlib
import pathlib
from typing import Any

from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from preprocessing.errors import InputError, require
from serving.engine.settings import (
    BatchingSettings,
    ModelSettings,
    Sample,
    ServerSettings,
    TLSSettings,
    check_different,
)
from serving.protocol import protos


def models_of(config) -> tuple[ModelSettings, ...]:
    """Models of a `ModelServerConfig` message. Raises InputError for what the embedded server cannot do, and for one
    without models: a file that is being written is empty for a moment."""
    models: list[ModelSettings] = []
    for entry in config.model_config_list.config:
        if entry.model_platform not in ("", "tensorflow"):
            raise InputError(f'model_platform must be "tensorflow". Received: {entry.model_platform!r}')
        if entry.model_type not in (model_server_config_pb2.TENSORFLOW, model_server_config_pb2.MODEL_TYPE_UNSPECIFIED):
            raise InputError("model_type, where it is given, must be TENSORFLOW. Received: OTHER")
        policy: dict = {}
        if entry.model_version_policy.HasField("specific"):
            policy = {"policy": "specific", "versions": tuple(entry.model_version_policy.specific.versions)}
        elif entry.model_version_policy.HasField("all"):
            policy = {"policy": "all"}
        elif entry.model_version_policy.latest.num_versions:
            policy = {"num_versions": entry.model_version_policy.latest.num_versions}
        labels = tuple(sorted(entry.version_labels.items()))
        if entry.HasField("logging_config"):
            policy |= _logging(entry.logging_config)
        models.append(ModelSettings(entry.name, entry.base_path, labels=labels, **policy))
    names = [model.name for model in models]
    require(bool(names), "a model_config_list must name models", names)
    check_different(names)
    return tuple(models)


def _logging(config) -> dict[str, Any]:
    """What a model's `LoggingConfig` says, whatever type of collector it names; and what of it is passed over."""
    used = {"log_collector_config", "sampling_config", "sampling_config.sampling_rate"}
    given = [field.name for field, _ in config.ListFields()]
    given += [f"sampling_config.{field.name}" for field, _ in config.sampling_config.ListFields()]
    return {
        "log": Sample(config.log_collector_config.filename_prefix, config.sampling_config.sampling_rate),
        "passed_over": tuple(f"logging_config.{name}" for name in sorted(set(given) - used)),
    }


def message():
    """An empty `ModelServerConfig`."""
    return protos.model_server_config()()


def read_message(path: str):
    """The `ModelServerConfig` message of a `models.config`, which `text` writes again; comments do not survive it.
    Raises InputError."""
    return _read(path, protos.model_server_config())


def text(config) -> str:
    """A message as the text that servers read."""
    return text_format.MessageToString(config)


def read_models(path: str) -> tuple[ModelSettings, ...]:
    """Models of a `models.config`. Raises InputError."""
    with _errors_of(path):
        return models_of(_read(path, protos.model_server_config()))


def read_batching(path: str) -> BatchingSettings:
    """Settings of a `batching_parameters.txt`; those that say how to pad do not matter here, as padding is in the
    graph. Raises InputError."""
    message = _read(path, protos.BatchingParameters)
    names = ("max_batch_size", "batch_timeout_micros", "num_batch_threads", "max_enqueued_batches")
    given = {name: getattr(message, name).value for name in names if message.HasField(name)}
    if message.HasField("max_execution_batch_size"):  # requests above it are always split here
        given["max_batch_size"] = message.max_execution_batch_size.value
    with _errors_of(path):
        return BatchingSettings(**given)


def read_tls(path: str) -> TLSSettings:
    """Keys and certificates of an SSLConfig file. Raises InputError."""
    message = _read(path, protos.SSLConfig)
    with _errors_of(path):
        return TLSSettings(message.server_key, message.server_cert, message.custom_ca, message.client_verify)


def read_prometheus_path(path: str) -> str:
    """The path of a `monitoring.config`; metrics are always on. Raises InputError."""
    return _read(path, protos.MonitoringConfig).prometheus_config.path or ServerSettings.prometheus_path


@contextlib.contextmanager
def _errors_of(path):
    """Names the file in front of what is wrong in it."""
    try:
        yield
    except InputError as error:
        raise InputError(str(error) if str(error).startswith(f"{path}:") else f"{path}: {error}") from None


def _read(path, message_class):
    try:
        return text_format.Parse(pathlib.Path(path).read_bytes().decode(), message_class())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: must be text in UTF-8 ({error.reason} at byte {error.start})") from None
    except text_format.ParseError as error:
        raise InputError(f"{path}:{error}") from None
