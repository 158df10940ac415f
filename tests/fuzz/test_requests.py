"""What clients and operators send to the server: bodies over REST and gRPC, configuration files, flags."""

import contextlib
import gzip
import json
import pathlib
import re
import socket
import subprocess
import sys
import threading
import time
import types

import click
import grpc
import hypothesis
import pytest
from hypothesis import strategies as st
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_management_pb2,
    predict_pb2,
)

from pipeline.commands import serve
from preprocessing.errors import InputError
from serving.client import Client
from serving.protocol.errors import RequestError
from serving.server import config_files
from tests.fuzz import fuzzed, mutated

ROOT = pathlib.Path(__file__).parents[2]
MEMORY = 768 << 20  # bytes that a server may take more than when it was ready, with requests of a megabyte
MESSAGE = 1 << 20


# ------------------------------------------------------------------------------------------------------------ servers


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    from tests.serving import served

    base = tmp_path_factory.mktemp("toy")
    served.save(base, 1)
    return base


def started(base, folder):
    """`bert serve` in a process of its own; at the end its memory and its log are looked at."""
    flags = [f"--model_base_path={base}", "--model_name=toy", "--port=0", "--rest_api_port=0", "--embedded"]
    with open(folder / "log", "w+") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "pipeline.cli", "serve", *flags, f"--max_message_bytes={MESSAGE}"],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd=ROOT,
        )
        try:
            found = re.fullmatch(r"Ready: gRPC (\S+), REST http://(\S+)\n", process.stdout.readline())
            assert found, (folder / "log").read_text()
            host, port = found[2].split(":")
            before = peak(process.pid)
            yield types.SimpleNamespace(grpc=found[1], rest=(host, int(port)), base=base)
            assert process.poll() is None
            assert peak(process.pid) - before < MEMORY
            process.terminate()
            assert process.wait(30) == 0
            said = (folder / "log").read_text()
            assert "Traceback" not in said, said
        finally:
            process.kill()
            process.wait()


def peak(pid):
    """Bytes."""
    return 1024 * int(re.search(r"VmHWM:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text())[1])


@pytest.fixture(scope="module")
def server(toy, tmp_path_factory):
    yield from started(toy, tmp_path_factory.mktemp("server"))


@pytest.fixture(scope="module")
def reloaded(toy, tmp_path_factory):
    """Another, whose list of models is replaced."""
    yield from started(toy, tmp_path_factory.mktemp("reloaded"))


# --------------------------------------------------------------------------------------------------------------- REST


def asked(server, request, seconds=14):
    """(status, headers, body) of the first answer to the bytes of a request; None if there is none within `seconds`."""
    start = time.monotonic()
    with socket.create_connection(server.rest, timeout=seconds) as connection:
        answer = b""
        try:
            connection.sendall(request)
            while part := connection.recv(1 << 16):
                answer += part
                if b"\r\nconnection: close\r\n" not in answer.lower() and seconds < 14:
                    connection.settimeout(0.02)  # it is kept open
        except (ConnectionError, TimeoutError):
            pass
    assert time.monotonic() - start < 14
    if not answer:
        return None
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    if headers.get("transfer-encoding") == "chunked":
        pieces, rest = [], body
        while (size := int(rest.partition(b"\r\n")[0], 16)) > 0:
            start = rest.index(b"\r\n") + 2
            pieces.append(rest[start : start + size])
            rest = rest[start + size + 2 :]
        body = b"".join(pieces)
    else:
        body = body[: int(headers["content-length"])]
    if headers.get("content-encoding") == "gzip":
        body = gzip.decompress(body)
    return int(re.fullmatch(r"HTTP/1\.1 (\d+) .*", status)[1]), headers, body


def posted(body, path="/v1/models/toy:predict", headers=()):
    lines = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode("latin-1", "replace") + body


def check(answer):
    """Of any request: an answer, or an error of the client's, as JSON."""
    status, _, body = answer
    if status == 200:
        return
    assert status in (400, 404, 405, 413, 431, 499, 501), (status, body)
    said = json.loads(body)
    assert said.keys() == {"error"}
    assert said["error"]
    assert len(body) < 5000


texts = st.text(max_size=9) | st.builds(lambda raw: {"b64": raw}, st.text("QUJD=+/ é", max_size=9))
numbers = st.integers() | st.floats() | st.booleans() | st.none()
values = st.recursive(
    texts | numbers,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["text", "numbers", "b64", ""]), inner),
    max_leaves=12,
)
signatures = st.sampled_from(["single", "pair", "picky", "fill_mask", "free", "serving_default", "", "none"])
questions = st.fixed_dictionaries(
    {},
    optional={
        "signature_name": signatures | values,
        "instances": st.lists(texts, max_size=4) | values,
        "inputs": st.fixed_dictionaries({"text": st.lists(texts), "numbers": values}) | values,
        "extra": values,
    },
)
json_bodies = st.builds(
    lambda question, ascii: json.dumps(question, ensure_ascii=ascii).encode("utf-8", "surrogatepass"),
    questions,
    st.booleans(),
)
bodies = json_bodies | mutated(json_bodies) | st.binary(max_size=50)


@fuzzed(body=bodies)
def test_rest_bodies(server, body):
    check(asked(server, posted(body)))


@fuzzed(
    instances=st.lists(
        st.text(st.characters(exclude_categories=["Cs"])) | st.binary(max_size=9), min_size=1, max_size=30
    ),
    encoding=st.sampled_from(["", "gzip"]),
    accepted=st.sampled_from(["", "gzip", "*"]),
    by_rows=st.booleans(),
)
def test_right_requests_are_answered_right(server, instances, encoding, accepted, by_rows):
    import base64

    sent = [{"b64": base64.b64encode(item).decode()} if isinstance(item, bytes) else item for item in instances]
    body = json.dumps({"signature_name": "single", "instances" if by_rows else "inputs": sent}).encode()
    body = gzip.compress(body) if encoding else body
    status, _, answer = asked(
        server, posted(body, headers=(f"Content-Encoding: {encoding}", f"Accept-Encoding: {accepted}"))
    )
    assert status == 200
    lengths = [len(item if isinstance(item, bytes) else item.encode()) for item in instances]
    assert json.loads(answer) == {"predictions" if by_rows else "outputs": lengths}


small = json.dumps({"signature_name": "single", "instances": ["x"]}).encode()
compressed = st.builds(
    lambda size, level: gzip.compress(small[:-1] + b" " * size + small[-1:], level),
    st.integers(0, 3 << 20),
    st.integers(0, 9),
)


@fuzzed(
    body=mutated(compressed) | compressed,
    name=st.sampled_from(["gzip", "x-gzip", "identity", "br", "gzip, gzip", ""]) | st.text("gzip ,;q=0", max_size=9),
)
def test_compressed_bodies(server, body, name):
    hypothesis.assume(len(body) < MESSAGE)
    status, _, answer = asked(server, posted(body, headers=(f"Content-Encoding: {name}",)))
    check((status, None, answer))
    if status == 200:
        assert json.loads(answer) == {"predictions": [1]}


paths = st.text("/v1models toy:predictversions0123labels%metadata?#.é\\", max_size=40) | st.builds(
    "/v1/models/{}{}{}".format,
    st.text(max_size=5) | st.just("toy"),
    st.sampled_from(["", "/versions/1", "/versions/99999999999999999999", "/versions/x", "/labels/x", "/metadata"]),
    st.sampled_from(["", ":predict", ":classify", ":regress", ":explain", "/metadata", ":"]),
)
requests = st.builds(
    lambda method, path, header, body: (
        f"{method} {path} HTTP/1.1\r\nHost: x\r\n{header}Content-Length: {len(body)}\r\n\r\n".encode() + body
    ),
    st.sampled_from(["GET", "POST", "HEAD", "PUT", "OPTIONS", "CONNECT"]),
    paths | st.builds("http://x{}".format, paths),
    st.sampled_from(
        ["", "Expect: 100-continue\r\n", "Upgrade: h2c\r\nConnection: upgrade\r\n", "Origin: http://x\r\n"]
    ),
    st.sampled_from([b"", small]),
)


@fuzzed(request=mutated(requests))
def test_http_itself(server, request):
    answer = asked(server, request, seconds=0.3)  # where more must come, it does not
    if answer and not request.startswith(b"HEAD") and answer[0] >= 200:
        check(answer)
    assert asked(server, posted(small))[2] == b'{"predictions":[1]}'  # and others are answered as before


# --------------------------------------------------------------------------------------------------------------- gRPC


def called(server, method, request):
    """(code's name, the answer's bytes)"""
    with grpc.insecure_channel(server.grpc, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        call = channel.unary_unary(f"/tensorflow.serving.{method}", lambda data: data, lambda data: data)
        try:
            return "OK", call(request, timeout=14)
        except grpc.RpcError as error:
            return error.code().name, error.details()


REFUSALS = ("INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "UNIMPLEMENTED", "PERMISSION_DENIED")
sizes = st.integers(-2, 5) | st.sampled_from([2**31, 2**62, 2**63 - 1, 10**6])
tensors = st.builds(
    lambda dtype, dims, unknown, fields: tensor_pb2.TensorProto(
        dtype=dtype,
        tensor_shape={"dim": [{"size": size} for size in dims], "unknown_rank": unknown},
        **fields,
    ),
    st.sampled_from([7, 7, 7, 1, 2, 3, 9, 10]) | st.integers(0, 30),
    st.lists(sizes, max_size=3) | st.lists(st.just(1), max_size=40),
    st.sampled_from([False] * 9 + [True]),
    st.fixed_dictionaries(
        {},
        optional={
            "string_val": st.lists(st.binary(max_size=5), max_size=5),
            "float_val": st.lists(st.floats(width=32), max_size=5),
            "int_val": st.lists(st.integers(-(2**31), 2**31 - 1), max_size=5),
            "tensor_content": st.binary(max_size=24),
        },
    ),
)


def predict_request(name, version, signature, inputs, outputs):
    request = predict_pb2.PredictRequest(output_filter=outputs)
    request.model_spec.name = name
    request.model_spec.signature_name = signature
    if isinstance(version, int):
        request.model_spec.version.value = version
    elif version is not None:
        request.model_spec.version_label = version
    for key, tensor in inputs.items():
        request.inputs[key].CopyFrom(tensor)
    return request


predictions = st.builds(
    predict_request,
    st.sampled_from(["toy", "toy", "toy", "", "x"]),
    st.sampled_from([None, None, None, 1, 2, -1, "stable"]),
    signatures,
    st.dictionaries(st.sampled_from(["text", "text", "numbers", "x"]), tensors, max_size=3),
    st.lists(st.sampled_from(["length", "x"]), max_size=2),
)


@fuzzed(request=predictions)
def test_tensors(server, request):
    code, answer = called(server, "PredictionService/Predict", request.SerializeToString())
    assert code == "OK" or code in REFUSALS, (code, answer)
    if code == "OK" and request.model_spec.signature_name == "single":
        import tensorflow as tf

        response = predict_pb2.PredictResponse.FromString(answer)
        given = tf.constant(tf.make_ndarray(request.inputs["text"])) if request.inputs["text"].string_val else None
        if given is not None and len(request.inputs["text"].string_val) in (1, given.shape[0]):
            assert list(response.outputs["length"].int_val) == tf.strings.length(given).numpy().tolist()


METHODS = {
    "PredictionService/Predict": predictions,
    "PredictionService/GetModelMetadata": st.builds(
        get_model_metadata_pb2.GetModelMetadataRequest,
        model_spec=st.fixed_dictionaries({"name": st.sampled_from(["toy", "x"])}),
        metadata_field=st.lists(st.sampled_from(["signature_def", "x"]), max_size=2),
    ),
    "PredictionService/Classify": st.just(predict_pb2.PredictRequest()),
    "ModelService/GetModelStatus": st.builds(
        get_model_status_pb2.GetModelStatusRequest,
        model_spec=st.fixed_dictionaries({"name": st.sampled_from(["toy", "x"])}),
    ),
}
calls = st.sampled_from(sorted(METHODS)).flatmap(
    lambda method: st.tuples(st.just(method), mutated(METHODS[method].map(lambda message: message.SerializeToString())))
)


@fuzzed(call=calls)
def test_grpc_bytes(server, call):
    code, answer = called(server, *call)
    assert code == "OK" or code in REFUSALS, (code, answer)


# -------------------------------------------------------------------------------------------------------- the client


@pytest.fixture(scope="module")
def fake():
    """A server that answers with the bytes of `fake.answer`, whatever it is asked."""
    made = types.SimpleNamespace(answer=b"")
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve_forever():
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection, contextlib.suppress(OSError):
                        connection.recv(1 << 16)
                        connection.sendall(made.answer)

        threading.Thread(target=serve_forever, daemon=True).start()
        made.target = f"http://127.0.0.1:{listener.getsockname()[1]}"
        yield made


answers = st.sampled_from(
    [
        {"outputs": {"length": [1.5, 2], "text": [["a", {"b64": "/w=="}]]}},
        {"outputs": [1, 2]},
        {"model_version_status": [{"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK"}}]},
        {"metadata": {"signature_def": {"signature_def": {"single": {"inputs": {"text": {}}, "outputs": {"n": {}}}}}}},
        {"error": "no"},
    ]
).map(lambda answer: json.dumps(answer).encode())
said = st.builds(
    lambda status, body: (
        b"HTTP/1.1 %d X\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (status, len(body), body)
    ),
    st.sampled_from([200, 200, 400, 404, 429, 503, 999]),
    answers | mutated(answers),
)


@fuzzed(answer=said | mutated(said))
def test_the_client_of_a_strange_server(fake, answer):
    fake.answer = answer
    with Client(fake.target, timeout=2, tries=1) as client:
        for call in (lambda: client.predict("single", text=["x"]), client.versions, client.signatures):
            with contextlib.suppress(RequestError):
                assert isinstance(call(), dict)


# ------------------------------------------------------------------------------------------ configuration files, flags

WORDS = """
model_config_list config name base_path model_type model_platform model_version_policy latest num_versions all specific
versions version_labels key value logging_config log_collector_config type filename_prefix sampling_config
sampling_rate attributes custom_model_config max_batch_size batch_timeout_micros max_enqueued_batches num_batch_threads
thread_pool_name allowed_batch_sizes pad_variable_length_inputs enable_large_batch_splitting max_execution_batch_size
prometheus_config enable path server_key server_cert custom_ca client_verify TENSORFLOW OTHER true false
"""
FILES = [
    *(path.read_bytes() for path in (ROOT / "serving" / "deploy").glob("*.*") if path.suffix in (".txt", ".config")),
    b'server_key: "x" server_cert: "y" custom_ca: "z" client_verify: true',
    b"prometheus_config { enable: true, path: '/metrics' }",
]
words = st.lists(
    st.sampled_from([*WORDS.split(), *"{}{}{}:[]<>;,#", '"a"', '"b"', "/models", "1", "-1", "0", "1e9", "0x10"]),
    max_size=30,
)
files = mutated(st.sampled_from(FILES)) | words.map(lambda words: " ".join(words).encode()) | st.binary(max_size=60)
READERS = (
    config_files.read_models,
    config_files.read_batching,
    config_files.read_tls,
    config_files.read_prometheus_path,
)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("files") / "file.config"


@fuzzed(content=files, read=st.sampled_from(READERS))
def test_files(path, content, read):
    path.write_bytes(content)
    said = None
    try:
        read(str(path))
    except InputError as error:
        said = str(error)
    assert said is None or re.fullmatch(rf"{path}:.+", said)  # one line


@fuzzed(content=files, configured=st.booleans())
def test_reloads(reloaded, content, configured):
    """A list that is taken serves; one that is not changes nothing."""
    from google.protobuf import text_format

    request = model_management_pb2.ReloadConfigRequest()
    try:
        text_format.Parse(content, request.config)
    except (text_format.ParseError, UnicodeDecodeError):
        data = content[:100] if configured else b"\x0a" + bytes([len(content[:100])]) + content[:100]
    else:
        for config in request.config.model_config_list.config:
            config.base_path = str(reloaded.base) if configured else config.base_path
        data = request.SerializeToString()
    code, answer = called(reloaded, "ModelService/HandleReloadConfigRequest", data)
    assert code == "OK" or code in REFUSALS, (code, answer)
    back = model_management_pb2.ReloadConfigRequest()
    back.config.model_config_list.config.add(name="toy", base_path=str(reloaded.base))
    code, answer = called(reloaded, "ModelService/HandleReloadConfigRequest", back.SerializeToString())
    assert code == "OK", answer
    assert asked(reloaded, posted(small))[2] == b'{"predictions":[1]}'


FLAGS = sorted(option for parameter in serve.command.params for option in parameter.opts if option != "--help")
flags = st.lists(
    st.builds(
        "{}{}".format,
        st.sampled_from(FLAGS),
        st.sampled_from(["", "=", "=true", "=1", "=0", "=-1", "=x", "=1e9", "=nan", "=99999", "=a=b,c"]),
    ),
    max_size=4,
)


@fuzzed(given=flags)
def test_flags(given):
    said = ""
    try:
        with serve.command.make_context("serve", ["--model_base_path=x", *given]) as context:
            context.params.pop("version")
            serve._settings(context.params)
    except (click.UsageError, InputError) as error:
        said = str(error)
    assert len(said.splitlines()) <= 1
