"""What the embedded server is told, frozen and validated."""

import dataclasses
import re
from typing import Literal

from preprocessing.errors import require

Policy = Literal["latest", "all", "specific"]


@dataclasses.dataclass(frozen=True)
class Sample:
    """Which requests are logged, and where: what TensorFlow Serving's `logging_config` says."""

    filename_prefix: str  # of the files, folder and all; a time and a number follow it
    sampling_rate: float  # share of the answered requests, from 0 to 1

    def __post_init__(self):
        require(bool(self.filename_prefix), "a request log needs a filename_prefix", self.filename_prefix)
        require("://" not in self.filename_prefix, "filename_prefix must be a local path", self.filename_prefix)
        require(0 <= self.sampling_rate <= 1, "sampling_rate must be from 0 to 1", self.sampling_rate)


@dataclasses.dataclass(frozen=True)
class LogSettings:
    """Of the request log: what is written of a request, and the bounds of all that is written."""

    sample: Sample | None = None  # of models that have none of their own; None: they are not logged
    texts: bool = False  # whether texts are written; else their outlines, which say nothing of what they say
    per_second: float = 10.0  # entries; those beyond are dropped
    total_bytes: int = 100_000_000  # of the files of one prefix; the oldest goes when a new one would be too many
    files: int = 10  # that they are spread over

    def __post_init__(self):
        require(self.per_second > 0, "the request log's entries per second must be positive", self.per_second)
        require(self.files > 1, "the request log needs 2 files or more", self.files)
        require(self.total_bytes >= 100_000, "the request log must have 100,000 bytes or more", self.total_bytes)


@dataclasses.dataclass(frozen=True)
class ModelSettings:
    """One entry of TensorFlow Serving's `models.config`."""

    name: str
    base_path: str  # holds the version folders 1, 2, ...
    policy: Policy = "latest"
    num_versions: int = 1  # of policy "latest"
    versions: tuple[int, ...] = ()  # of policy "specific"
    labels: tuple[tuple[str, int], ...] = ()  # (label, version)
    log: Sample | None = None  # None: that of `LogSettings`, if there is one
    passed_over: tuple[str, ...] = ()  # fields of the file that mean nothing to this server

    def __post_init__(self):
        require(re.fullmatch(r"[\w.\-]+", self.name) is not None, "a model's name is of A-Z a-z 0-9 . _ -", self.name)
        require(bool(self.base_path), "a model needs a base path", self.base_path)
        require("://" not in self.base_path, "base_path must be a local folder", self.base_path)
        require(self.num_versions > 0, "num_versions must be positive", self.num_versions)
        require(self.policy != "specific" or bool(self.versions), 'policy "specific" needs versions', self.versions)

    def aspired(self, available: list[int]) -> list[int]:
        """Which of the version numbers on disk are to be served, ascending."""
        if self.policy == "all":
            return sorted(available)
        if self.policy == "specific":
            return sorted(set(available) & set(self.versions))
        return sorted(available)[-self.num_versions :]


@dataclasses.dataclass(frozen=True)
class BatchingSettings:
    """Names and units of TensorFlow Serving's `batching_parameters.txt`."""

    max_batch_size: int = 16  # rows of a run of the model; GPUs want more
    batch_timeout_micros: int = 0  # how long a batch waits for company while a thread is free
    num_batch_threads: int = 2
    max_enqueued_batches: int = 32  # per signature; beyond them a request is refused at once
    enabled: bool = True  # if not, each request is run alone, all of its rows at once

    def __post_init__(self):
        for name in ("max_batch_size", "num_batch_threads", "max_enqueued_batches"):
            require(getattr(self, name) > 0, f"{name} must be positive", getattr(self, name))
        require(self.batch_timeout_micros >= 0, "batch_timeout_micros must not be negative", self.batch_timeout_micros)


@dataclasses.dataclass(frozen=True)
class Limits:
    """Bounds on what one request may ask for."""

    message_bytes: int = 16 * 1024 * 1024  # of a request
    answer_bytes: int = 256 * 1024 * 1024
    rows: int = 1024  # texts in a request
    variable_rows: int = 32  # the same, where the answer's size depends on the texts' length (attention)
    text_bytes: int = 2 * 1024 * 1024  # of one text

    def __post_init__(self):
        for field in dataclasses.fields(self):
            require(getattr(self, field.name) > 0, f"{field.name} must be positive", getattr(self, field.name))


@dataclasses.dataclass(frozen=True)
class TLSSettings:
    """PEM texts, as in TensorFlow Serving's SSLConfig."""

    server_key: str
    server_cert: str
    custom_ca: str = ""
    client_verify: bool = False

    def __post_init__(self):
        require(bool(self.server_key and self.server_cert), "TLS needs server_key and server_cert", "")
        require(bool(self.custom_ca) or not self.client_verify, "client_verify needs a custom_ca", self.custom_ca)


@dataclasses.dataclass(frozen=True)
class ServerSettings:
    """The embedded server. Port 0 takes a free one, a negative one switches that side off."""

    models: tuple[ModelSettings, ...]
    host: str = "127.0.0.1"
    port: int = 8500  # gRPC
    rest_api_port: int = 8501
    rest_api_timeout_in_ms: int = 30_000
    file_system_poll_wait_seconds: float = 1.0
    model_config_file: str | None = None  # read again when it changes
    model_config_file_poll_wait_seconds: float = 0.0  # 0: never
    batching: BatchingSettings = BatchingSettings()
    limits: Limits = Limits()
    log: LogSettings = LogSettings()
    tls: TLSSettings | None = None
    intra_op_parallelism: int = 0  # TensorFlow's threads; 0: the cores, shared by the batches that run at once
    inter_op_parallelism: int = 0
    max_num_load_retries: int = 0
    enable_model_warmup: bool = True
    num_request_iterations_for_warmup: int = 0  # how often each recorded request is answered, where it is positive
    allow_version_labels_for_unavailable_models: bool = False  # new labels, in a reload
    rest_api_enable_cors_support: bool = False
    grpc_socket_path: str | None = None  # besides the port
    grpc_channel_arguments: tuple[tuple[str, int | str], ...] = ()  # of gRPC's server
    enable_serialization_as_tensor_content: bool = False  # of numbers in gRPC's answers
    prometheus_path: str = "/monitoring/prometheus/metrics"
    drain_seconds: float = 10.0  # how long running requests may take after SIGTERM

    def __post_init__(self):
        names = [model.name for model in self.models]
        check_different(names)
        require(bool(names), "there must be a model to serve; name one with --model-base-path", names)
        for name in ("port", "rest_api_port"):
            require(getattr(self, name) < 65536, f"{name} must be below 65536", getattr(self, name))
        ports = (self.port, self.rest_api_port)
        require(max(ports) >= 0 or bool(self.grpc_socket_path), "gRPC or REST must be on", ports)
        require(self.port != self.rest_api_port or self.port <= 0, "gRPC and REST need a port each", self.port)
        for name in ("intra_op_parallelism", "inter_op_parallelism", "drain_seconds", "max_num_load_retries"):
            require(getattr(self, name) >= 0, f"{name} must not be negative", getattr(self, name))
        require(self.rest_api_timeout_in_ms > 0, "the REST timeout must be positive", self.rest_api_timeout_in_ms)
        poll = self.file_system_poll_wait_seconds
        require(poll >= 0, "file_system_poll_wait_seconds must not be negative (0 looks once)", poll)
        require(self.prometheus_path.startswith("/"), "the Prometheus path must begin with /", self.prometheus_path)


def check_different(names: list[str]) -> None:
    require(len(set(names)) == len(names), "models must have different names", names)
