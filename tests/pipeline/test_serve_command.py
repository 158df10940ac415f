"""`bert serve` and `bert predict` as a person or a script runs them."""

import concurrent.futures
import json
import os
import re
import signal
import subprocess
import sys
import time

import grpc
import numpy as np
import pytest
from click.testing import CliRunner
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from pipeline.commands import predict, serve
from preprocessing.errors import InputError
from serving.client import Client
from serving.engine import settings
from tests.data import ROOT

BERT = [sys.executable, "-m", "pipeline.cli"]


@pytest.fixture(scope="module")
def toy_base(tmp_path_factory):
    from tests.serving import served

    base = tmp_path_factory.mktemp("toy")
    served.save(base, 1)
    return base


def bert(*arguments, **more):
    return subprocess.run([*BERT, *arguments], capture_output=True, text=True, cwd=ROOT, timeout=120, **more)


def test_serve_answers_and_drains(toy_base):
    """One process for all that needs a real one: the ready line, `bert predict` by both protocols, TF Serving's
    spelling of the flags, SIGTERM with a request under way."""
    flags = ["--model_base_path", str(toy_base), "--model_name=toy", "--port=0", "--rest_api_port=0", "--embedded"]
    with subprocess.Popen(
        [*BERT, "serve", *flags], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    ) as server:
        try:
            ready = server.stdout.readline()
            match = re.fullmatch(r"Ready: gRPC (127\.0\.0\.1:\d+), REST (http://127\.0\.0\.1:\d+)\n", ready)
            assert match, (ready, server.stderr.read() if server.poll() is not None else "")
            address, rest = match.groups()
            for target in (["--server", address], ["--rest", rest]):
                done = bert("predict", *target, "--model-name", "toy", "--signature", "single", "--json", "hello")
                assert json.loads(done.stdout) == {"length": [5]}, done.stderr
            done = bert("predict", "--server", address, "--model-name", "toy", "--signature", "none", "hello")
            assert done.returncode == 1
            assert re.fullmatch(r"bert: error: .*has no signature 'none'.*\(FAILED_PRECONDITION\)\n", done.stderr)

            with Client(address, model="toy", tries=1) as client, concurrent.futures.ThreadPoolExecutor(1) as thread:
                slow = thread.submit(client.predict, "slow", text=["1000"])
                time.sleep(0.3)
                server.send_signal(signal.SIGTERM)
                assert slow.result()["batch"].tolist() == [1]
            assert server.wait(20) == 0
            errors = server.stderr.read()
            assert re.fullmatch(r"bert: toy: version 1 loaded in [\d.]+ s\n", errors), errors
        finally:
            server.kill()


def test_serve_errors_are_one_line(tmp_path):
    done = bert("serve", "--model-base-path", str(tmp_path / "none"), "--embedded")
    assert done.returncode == 1
    assert done.stderr.startswith("bert: error: the base path of model bert must be a folder")
    assert done.stderr.count("\n") == 1
    assert "name the folder to serve" in bert("serve").stderr


def started(*flags):
    """What `bert serve` says on standard error until it is ready, and its REST address; then it ends."""
    ports = ["--port=0", "--rest_api_port=0", "--embedded"]
    with subprocess.Popen(
        [*BERT, "serve", *flags, *ports], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    ) as server:
        try:
            ready = server.stdout.readline()
            yield ready
        finally:
            server.send_signal(signal.SIGTERM)
            said = server.stderr.read()
            server.wait(20)
    yield said


def test_all_flags_of_the_binary_are_known(toy_base, tmp_path):
    """As scripts have them: bare, with a value, with numbers in each way."""
    (tmp_path / "models.config").write_text(f'model_config_list {{ config {{ name: "toy" base_path: "{toy_base}" }} }}')
    flags = [
        f"--model_config_file={tmp_path}/models.config",
        f"--model_base_path={toy_base}",
        "--model_name=other",
        "--enable_batching",
        "--file_system_poll_wait_seconds=0",
        "--allow_version_labels_for_unavailable_models=true",
        "--rest_api_enable_cors_support",
        "--tensorflow_session_parallelism=1",
        "--enable_serialization_as_tensor_content",
        "--num_request_iterations_for_warmup=2",
        f"--grpc_socket_path={tmp_path}/grpc",
        "--grpc_channel_arguments=grpc.max_connection_age_ms=2000000,grpc.primary_user_agent=x",
        "--use_alts_credentials=false",
        "--enable_model_warmup=1",
        *(f"--{name}" for name in serve.PASSED_OVER),
        "--saved_model_tags=serve",
        "--xla_cpu_compilation_enabled=false",
        "--grpc_max_threads",
        "8",
    ]
    process = started(*flags)
    ready = next(process)
    assert re.fullmatch(rf"Ready: gRPC 127\.0\.0\.1:\d+, gRPC unix:{tmp_path}/grpc, REST http://\S+\n", ready), ready
    with grpc.insecure_channel(f"unix:{tmp_path}/grpc") as channel:
        request = predict_pb2.PredictRequest(model_spec={"name": "toy", "signature_name": "single"})
        request.inputs["text"].CopyFrom(
            tensor_pb2.TensorProto(dtype=7, string_val=[b"abc"], tensor_shape={"dim": [{"size": 1}]})
        )
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        assert stub.Predict(request, timeout=20).outputs["length"].tensor_content == b"\3\0\0\0"
    said = next(process)
    for name, why in serve.PASSED_OVER.items():
        assert f"bert: --{name} is passed over: {why}\n" in said
    assert "bert: --model_base_path and --model_name are passed over: --model_config_file is given\n" in said
    assert said.count("\n") == len(serve.PASSED_OVER) + 2  # and that a version was loaded
    known = {option for parameter in serve.command.params for option in parameter.opts}
    assert known >= {f"--{name}" for name in BINARY_FLAGS.split()}


# Of `tensorflow_model_server --help`, TensorFlow Serving of July 2026.
BINARY_FLAGS = """
allow_version_labels_for_unavailable_models batching_parameters_file enable_batching enable_grpc_healthcheck_service
enable_model_warmup enable_per_model_batching_parameters enable_profiler enable_serialization_as_tensor_content
enable_signature_method_name_check file_system_poll_wait_seconds flush_filesystem_caches grpc_channel_arguments
grpc_max_threads grpc_socket_path load_retry_interval_micros max_num_load_retries mixed_precision model_base_path
model_config_file model_config_file_poll_wait_seconds model_name monitoring_config_file num_load_threads
num_request_iterations_for_warmup num_tflite_interpreters_per_pool num_tflite_pools num_unload_threads
per_process_gpu_memory_fraction platform_config_file port prefer_tflite_model
remove_unused_fields_from_bundle_metagraph rest_api_enable_cors_support rest_api_num_threads rest_api_port
rest_api_timeout_in_ms saved_model_tags skip_initialize_tpu ssl_config_file tensorflow_inter_op_parallelism
tensorflow_intra_op_parallelism tensorflow_session_config_file tensorflow_session_parallelism
thread_pool_factory_config_file use_alts_credentials version xla_cpu_compilation_enabled xla_gpu_compilation_enabled
"""


def test_flags_that_are_wrong_are_one_line(tmp_path):
    (tmp_path / "models.config").write_text("model_config_list {")
    for flags, message in (
        (["--use_alts_credentials"], "does not speak ALTS; give --ssl_config_file"),
        (["--grpc_channel_arguments=x"], "must be name=value, separated by commas. Received: 'x'"),
        (["--file_system_poll_wait_seconds=-1"], "must not be negative (0 looks once)"),
        ([f"--model_config_file={tmp_path}/models.config"], f"{tmp_path}/models.config:1:"),
        ([f"--batching_parameters_file={tmp_path}/models.config"], f"{tmp_path}/models.config:1:"),
        ([f"--grpc_socket_path={tmp_path}/{'x' * 200}", "--port=0"], "cannot listen on grpc_socket_path"),
    ):
        done = bert("serve", "--embedded", f"--model_base_path={tmp_path}", *flags)
        assert done.returncode == 1, flags
        assert message in done.stderr
        assert done.stderr.splitlines()[-1].startswith("bert: error: ")
        assert "Traceback" not in done.stderr
    assert bert("serve", "--version").stdout.startswith("TensorFlow ModelServer: ")


def test_help_is_quick():
    start = time.monotonic()
    done = bert("serve", "--help")
    assert time.monotonic() - start < 5  # a second on an idle machine; TensorFlow alone would take longer
    assert "--model-base-path" in done.stdout


def handed_over(folder, *arguments):
    """What the binary is run with, and what the person is told."""
    binary = folder / "tensorflow_model_server"
    binary.write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\n")
    binary.chmod(0o755)
    env = {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
    done = bert("serve", *arguments, env=env)
    return dict(line.removeprefix("--").split("=", 1) for line in done.stdout.splitlines()), done.stderr


def test_handover_serves_what_the_embedded_server_would(tmp_path):
    told, said = handed_over(tmp_path, "--model-base-path", "models/bert", "--host", "0.0.0.0", "--max-text-bytes=9")
    assert "listens on all addresses" in said
    assert told.pop("batching_parameters_file") == str(ROOT / "serving/deploy/batching_parameters.txt")
    assert told == {
        "model_base_path": str(ROOT / "models/bert"),  # it refuses relative ones
        "model_name": "bert",  # its default is "default"
        "port": "8500",
        "rest_api_port": "8501",  # and no REST
        "rest_api_timeout_in_ms": "30000",
        "enable_batching": "true",
        "enable_model_warmup": "true",
        "file_system_poll_wait_seconds": "1",  # whole seconds
        "model_config_file_poll_wait_seconds": "0",
        "max_num_load_retries": "0",
        "tensorflow_intra_op_parallelism": "0",
        "tensorflow_inter_op_parallelism": "0",
    }


def test_handover_of_a_configuration(tmp_path):
    flags = ["--model_config_file=m", "--batching_parameters_file=b", "--port=-1", "--rest_api_port=1"]
    told, _ = handed_over(tmp_path, *flags, "--file-system-poll-wait-seconds=0.5")
    assert told["model_config_file"] == "m"
    assert told["allow_version_labels_for_unavailable_models"] == "true"
    assert not {"model_name", "model_base_path"} & told.keys()
    assert told["batching_parameters_file"] == "b"
    assert (told["port"], told["rest_api_port"], told["file_system_poll_wait_seconds"]) == ("0", "1", "1")
    told, _ = handed_over(
        tmp_path, "--model_config_file=m", "--model_base_path=b", "--enable_profiler", "--num_load_threads=4"
    )
    assert (told["enable_profiler"], told["num_load_threads"]) == ("true", "4")
    assert "model_base_path" not in told
    told, said = handed_over(tmp_path, "--model-base-path=b", "--port=0")
    assert not told
    assert "cannot look for a free port: name one, or use --embedded" in said
    told, _ = handed_over(tmp_path, "--model-base-path=gs://b/bert", "--enable-batching=false")
    assert (told["model_base_path"], told["enable_batching"]) == ("gs://b/bert", "false")
    assert "batching_parameters_file" not in told


def test_handover_refuses_what_the_binary_ends_at(tmp_path):
    (tmp_path / "m").write_text(f'model_config_list {{ config {{ base_path: "{tmp_path}"\n logging_config {{}} }} }}')
    for flags in (["--model-base-path=b", "--request-log=x"], [f"--model-config-file={tmp_path}/m"]):
        told, said = handed_over(tmp_path, *flags)
        assert not told
        assert "has no request logger unless it is built with one; use --embedded" in said


def test_flags_of_the_request_log(tmp_path):
    """What the server is started with."""
    flags = ["--model-base-path=b", "--request-log=log/x", "--request-log-rate=0.5", "--request_log_bytes=200000"]
    flags = serve.command.make_context("serve", flags).params
    assert serve._settings(flags).log == settings.LogSettings(settings.Sample("log/x", 0.5), total_bytes=200_000)
    assert serve._settings(flags | {"request_log": None}).log.sample is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--server", "a:1", "--rest", "b:1", "x"], "one of --server, --rest and --model"),
        (["--model", "/none", "x"], "no folder with version"),
        (["--rest", "127.0.0.1:99999", "x"], "no address of a server"),
        (["--timeout", "inf", "x"], "timeout must be positive seconds. Received: inf"),
        (["--rest", "127.0.0.1:9", "--timeout", "0.3", "x"], "UNAVAILABLE"),
    ],
)
def test_predict_errors(arguments, message):
    result = CliRunner().invoke(predict.command, arguments)
    assert isinstance(result.exception, InputError)
    assert message in str(result.exception)


def test_predict_from_a_folder(toy_base):
    result = CliRunner().invoke(predict.command, ["--model", str(toy_base), "hello"])
    assert result.exception is None
    assert result.output.splitlines()[0] == "hello"
    assert "  length   5" in result.output.splitlines()
    assert "  upper    HELLO" in result.output.splitlines()


def test_predict_takes_any_bytes(toy_base):
    done = bert("predict", "--model", str(toy_base), "--signature", "single", b"\xff\xfe\xff")
    assert done.stdout.splitlines() == ["\ufffd" * 3, "  length  3"], done.stderr


class Asked:
    """Stands for a client of a model whose signatures have names of their own."""

    def __init__(self, *target, **chosen):
        self.requests = []

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def signatures(self):
        return {
            "follows": (["first", "second"], ["is_next"]),
            "look": (["second", "text"], ["count"]),
            "answer": (["context", "question"], ["count"]),
            "three": (["a", "b", "c"], ["count"]),
            "constant": ([], ["count"]),
        }

    def predict(self, signature, /, **inputs):
        self.requests.append(inputs)
        rows = len(next(iter(inputs.values())))
        return {"is_next" if signature == "follows" else "count": np.arange(rows) / 4}


@pytest.mark.parametrize(
    ("signature", "texts", "inputs"),
    [
        ("follows", "abcd", {"first": [b"a", b"c"], "second": [b"b", b"d"]}),
        ("look", "ab", {"text": [b"a", b"b"], "second": [b"", b""]}),
        ("answer", "ab", {"question": [b"a"], "context": [b"b"]}),
        ("three", "abcdef", {"a": [b"a", b"d"], "b": [b"b", b"e"], "c": [b"c", b"f"]}),
        ("unknown", "ab", {"text": [b"a", b"b"]}),  # the server says that it has none
    ],
)
def test_predict_asks_the_model_what_a_signature_takes(monkeypatch, signature, texts, inputs):
    client = Asked()
    monkeypatch.setattr("serving.client.Client", lambda *target, **chosen: client)
    result = CliRunner().invoke(predict.command, ["--signature", signature, *texts], catch_exceptions=False)
    assert client.requests == [inputs]
    if signature == "follows":
        assert result.output == "  0.00%  a  ->  b\n 25.00%  c  ->  d\n"


@pytest.mark.parametrize(
    ("signature", "told"),
    [
        ("follows", r"follows takes texts in pairs \(first, second\)\. Received: 1"),
        ("constant", "constant takes no texts"),
        ("three", r"three takes texts in groups of 3 \(a, b, c\)\. Received: 1"),
    ],
)
def test_predict_refuses_half_a_pair(monkeypatch, signature, told):
    monkeypatch.setattr("serving.client.Client", Asked)
    result = CliRunner().invoke(predict.command, ["--signature", signature, "only one"])
    assert isinstance(result.exception, InputError)
    assert re.fullmatch(told, str(result.exception))


def test_predict_from_a_broken_folder(tmp_path):
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "saved_model.pb").write_bytes(b"nonsense")
    result = CliRunner().invoke(predict.command, ["--model", str(tmp_path), "hello"])
    assert isinstance(result.exception, InputError)
    assert re.match(rf"{tmp_path}/1: cannot be loaded: .+", str(result.exception))


def test_fill_mask_is_shown_with_bars():
    outputs = {
        "mask_count": np.array([1, 0]),
        "tokens": np.array([[[b"capital", b"heart"]], [[b"", b""]]], object),
        "scores": np.array([[[0.5, 0.25]], [[0, 0]]], np.float32),
    }
    lines = list(predict._table({"text": ["Paris is the [MASK].", "x"]}, outputs))
    assert lines[0] == "Paris is the [MASK]."
    assert re.fullmatch(r"  capital  50\.00%  █+", lines[1])
    assert re.fullmatch(r"  heart    25\.00%  █+", lines[2])
    assert abs(lines[1].count("█") - 2 * lines[2].count("█")) <= 1
    assert lines[3:] == ["x", "  there is no [MASK] in it"]
