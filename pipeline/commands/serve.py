"""`bert serve`: flags of TensorFlow Serving's `tensorflow_model_server`."""

import dataclasses
import gc
import importlib.resources
import math
import os
import re
import shutil
import sys
from collections.abc import Mapping
from importlib.metadata import version as _version
from typing import Any

import click

from preprocessing.errors import InputError
from serving.server.passed_over import PASSED_OVER

BINARY = "tensorflow_model_server"
BATCHING = "deploy/batching_parameters.txt"
# Only for the embedded server; the binary knows none of them.
OWN_FLAGS = (
    "host", "embedded", "max_request_rows", "max_text_bytes", "max_message_bytes", "drain_seconds", "request_log",
    "request_log_rate", "request_log_texts", "request_log_per_second", "request_log_bytes",
)  # fmt: skip
# Flags that are fields of ServerSettings as they are, where they are given.
_SAME = (
    "host",
    "port",
    "rest_api_port",
    "rest_api_timeout_in_ms",
    "file_system_poll_wait_seconds",
    "model_config_file",
    "model_config_file_poll_wait_seconds",
    "max_num_load_retries",
    "enable_model_warmup",
    "num_request_iterations_for_warmup",
    "allow_version_labels_for_unavailable_models",
    "rest_api_enable_cors_support",
    "grpc_socket_path",
    "enable_serialization_as_tensor_content",
    "drain_seconds",
)


def _flag(name: str, **attributes):
    """An option in both spellings: `--model-base-path` and TensorFlow Serving's `--model_base_path`."""
    return click.option(f"--{name}", f"--{name.replace('-', '_')}", **attributes)


def _switch(name: str, **attributes):
    """One that is on without a value, too: `--enable_batching`."""
    return _flag(name, type=bool, is_flag=False, flag_value="true", **attributes)


def _passed_over(command):
    for name in PASSED_OVER:
        command = _flag(name.replace("_", "-"), is_flag=False, flag_value="true", hidden=True)(command)
    return command


@click.command(context_settings={"max_content_width": 110})
@_flag("model-base-path", help="Folder that holds the version folders 1, 2, ...")
@_flag("model-name", default="bert", show_default=True, help="Name of the model in requests.")
@_flag("model-config-file", help="Several models: a ModelServerConfig as protobuf text.")
@_flag("model-config-file-poll-wait-seconds", default=0.0, show_default=True, help="Read it again so often; 0: never.")
@click.option("--port", default=8500, show_default=True, help="gRPC; 0: a free one, -1: none.")
@_flag("rest-api-port", default=8501, show_default=True, help="REST and the page; 0: a free one, -1: none.")
@_flag("rest-api-timeout-in-ms", default=30_000, show_default=True, help="A REST request is given up after that.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 for all.")
@_flag("file-system-poll-wait-seconds", default=1.0, show_default=True, help="Look for new versions so often; 0: once.")
@_switch("enable-batching", default=True, show_default=True, help="Answer requests of several clients together.")
@_flag("batching-parameters-file", help="BatchingParameters as protobuf text.")
@_flag("monitoring-config-file", help="MonitoringConfig as protobuf text.")
@_flag("ssl-config-file", help="SSLConfig as protobuf text; both ports then speak TLS.")
@_switch("enable-model-warmup", default=True, show_default=True, help="Answer the recorded requests first.")
@_flag("num-request-iterations-for-warmup", type=int, help="So often each.  [default: 1]")
@_flag("max-num-load-retries", default=0, show_default=True, help="Try so often again to load a version.")
@_flag(
    "tensorflow-intra-op-parallelism", default=0, show_default=True, help="Threads per operation; 0: cores per batch."
)
@_flag("tensorflow-inter-op-parallelism", default=0, show_default=True, help="Operations at once; 0: one per core.")
@_flag("tensorflow-session-parallelism", type=int, help="Both of these.")
@_switch("allow-version-labels-for-unavailable-models", help="A new label may come before its version.")
@_switch("rest-api-enable-cors-support", help="Pages from anywhere may ask over REST.")
@_switch("enable-serialization-as-tensor-content", help="Numbers in gRPC's answers are bytes, not lists.")
@_flag("grpc-socket-path", help="Answer gRPC on this UNIX socket, too.")
@_flag("grpc-channel-arguments", help="Of gRPC's server: name=value, separated by commas.")
@_switch("use-alts-credentials", hidden=True)
@_passed_over
@_flag("max-request-rows", type=int, help="Texts that a request may have.")
@_flag("max-text-bytes", type=int, help="Bytes that a text may have.")
@_flag("max-message-bytes", type=int, help="Bytes that a request may have.")
@_flag("request-log", metavar="PREFIX", help="Log a sample of the requests, to files of this prefix.")
@_flag("request-log-rate", default=0.01, show_default=True, help="Share of the answered requests that is logged.")
@_flag("request-log-texts", is_flag=True, help="With their texts; else with outlines that say nothing of them.")
@_flag("request-log-per-second", type=float, help="Log so many a second at most.  [default: 10]")
@_flag("request-log-bytes", type=int, help="Of the log's files together; the oldest goes.  [default: 100000000]")
@_flag("drain-seconds", default=10.0, show_default=True, help="Running requests may take so long after SIGTERM.")
@click.option("--embedded", is_flag=True, help=f"This server even where {BINARY} is on PATH.")
@click.option("--version", is_flag=True, help="Show what is served with, and end.")
def command(version, **flags):
    """Serve exported models over gRPC and REST, as TensorFlow Serving does.

    Where tensorflow_model_server is on PATH, that is run instead, with the same flags. New version folders are taken
    over while the server runs. `Ready: ...` on standard output says where it answers. The binary's other flags are
    taken too; what they do not change here is said.
    """
    if version:
        click.echo(f"TensorFlow ModelServer: bert serve, by the API of {_version('tensorflow-serving-api')}")
        click.echo(f"TensorFlow Library: {_version('tensorflow')}")
        return
    if flags["model_base_path"] and flags["model_config_file"]:
        click.echo("bert: --model_base_path and --model_name are passed over: --model_config_file is given", err=True)
    if not (flags["model_base_path"] or flags["model_config_file"]):
        raise InputError("name the folder to serve with --model-base-path, or several with --model-config-file")
    if not flags["embedded"] and (binary := shutil.which(BINARY)):
        arguments = handover(flags)
        click.echo(f"bert: running {binary}; it listens on all addresses (--embedded: this server)", err=True)
        os.execvp(binary, [BINARY, *arguments])
    settings = _settings(flags)
    for name in PASSED_OVER:
        if flags[name] is not None:
            click.echo(f"bert: --{name} is passed over: {PASSED_OVER[name]}", err=True)
    _start_quickly()
    from serving.server import embedded

    embedded.serve(settings, report=lambda line: click.echo(f"bert: {line}", err=True), ready=embedded.print_ready)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # Python would wait for batches that still run, beyond --drain-seconds


def handover(flags: Mapping[str, Any]) -> list[str]:
    """What the binary is told, so that it serves what this server would: it wants whole folders' names and seconds, and
    its defaults are others."""
    _check_binary_logs(flags)
    told = {name: value for name, value in flags.items() if value is not None and name not in OWN_FLAGS}
    for name in ("port", "rest_api_port"):
        if told[name] == 0:
            raise InputError(f"{BINARY} cannot look for a free {name}: name one, or use --embedded")
        told[name] = max(told[name], 0)  # 0 is what switches it off there
    for name in ("file_system_poll_wait_seconds", "model_config_file_poll_wait_seconds"):
        told[name] = math.ceil(told[name])
    if flags["model_config_file"]:
        for name in ("model_name", "model_base_path"):
            told.pop(name, None)
        told.setdefault("allow_version_labels_for_unavailable_models", True)
    elif "://" not in told["model_base_path"]:
        told["model_base_path"] = os.path.abspath(told["model_base_path"])
    if flags["enable_batching"]:
        told.setdefault("batching_parameters_file", str(importlib.resources.files("serving") / BATCHING))
    return [
        f"--{name}={str(value).lower() if isinstance(value, bool) else value}" for name, value in sorted(told.items())
    ]


def _check_binary_logs(flags: Mapping[str, Any]) -> None:
    """The binary as it is distributed has no log collector linked in, and ends at a `logging_config`."""
    said = flags["request_log"] and "--request_log"
    path = flags["model_config_file"]
    if path and os.path.isfile(path):
        with open(path, encoding="utf-8", errors="replace") as file:
            if any(re.match(r"[^#]*\blogging_config\b", line) for line in file):
                said = f"{path}: logging_config"
    if said:
        raise InputError(
            f"{BINARY} has no request logger unless it is built with one; use --embedded, or leave it out. "
            f"Received: {said}"
        )


def _settings(flags):
    from serving.engine import settings
    from serving.server import config_files as s

    if flags["model_config_file"]:
        models = s.read_models(flags["model_config_file"])
    else:
        models = (settings.ModelSettings(flags["model_name"], flags["model_base_path"]),)
    batching = s.read_batching(path) if (path := flags["batching_parameters_file"]) else settings.BatchingSettings()
    batching = dataclasses.replace(batching, enabled=flags["enable_batching"])
    if flags["use_alts_credentials"]:
        raise InputError("this server does not speak ALTS; give --ssl_config_file. Received: --use_alts_credentials")
    limits = {
        "rows": flags["max_request_rows"],
        "text_bytes": flags["max_text_bytes"],
        "message_bytes": flags["max_message_bytes"],
    }
    logged = {"per_second": flags["request_log_per_second"], "total_bytes": flags["request_log_bytes"]}
    sample = settings.Sample(flags["request_log"], flags["request_log_rate"]) if flags["request_log"] else None
    more: dict[str, Any] = {name: flags[name] for name in _SAME if flags[name] is not None}
    threads = flags["tensorflow_session_parallelism"] or 0
    if flags["ssl_config_file"]:
        more["tls"] = s.read_tls(flags["ssl_config_file"])
    if flags["monitoring_config_file"]:
        more["prometheus_path"] = s.read_prometheus_path(flags["monitoring_config_file"])
    return settings.ServerSettings(
        models=models,
        batching=batching,
        limits=settings.Limits(**{name: limit for name, limit in limits.items() if limit is not None}),
        log=settings.LogSettings(
            sample,
            flags["request_log_texts"],
            **{name: bound for name, bound in logged.items() if bound is not None},
        ),
        intra_op_parallelism=flags["tensorflow_intra_op_parallelism"] or threads,
        inter_op_parallelism=flags["tensorflow_inter_op_parallelism"] or threads,
        grpc_channel_arguments=_channel_arguments(flags["grpc_channel_arguments"] or ""),
        **more,
    )


def _channel_arguments(text: str) -> tuple[tuple[str, int | str], ...]:
    found = []
    for argument in filter(None, text.split(",")):
        name, equals, value = argument.strip().partition("=")
        if not (name and equals):
            raise InputError(f"--grpc_channel_arguments must be name=value, separated by commas. Received: {text!r}")
        found.append((name, int(value) if re.fullmatch(r"-?\d{1,9}", value) else value))
    return tuple(found)


def _start_quickly() -> None:
    """Takes a second off a server's start. TensorFlow imports these where they are installed, Keras with all of its
    layers, and a server calls none of them, whoever made its models: they count as absent in this process. Nor is there
    garbage among what is imported; the server collects again when its models are loaded."""
    for name in ("dill", "googleapiclient", "h5py", "jax", "keras", "scipy"):
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]
    gc.disable()
