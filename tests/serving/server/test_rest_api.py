"""TensorFlow Serving's REST API, asked as curl would."""

import base64
import contextlib
import gzip
import http.client
import json
import shutil
import socket
import subprocess
import time
import tracemalloc
import urllib.error
import urllib.request

import numpy as np
import pytest

from serving.client import Client
from serving.engine.settings import BatchingSettings, Limits
from serving.protocol.errors import RequestError
from serving.server import encoding, rest_json
from serving.server import http as server_http
from tests.serving import served


@pytest.fixture
def ask(toy_server):
    """(status, answer) of a request to a path below /v1/models/."""

    def asked(path, body=None, method=None):
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(f"{toy_server.rest}/v1/models/{path}", data, method=method)
        try:
            with urllib.request.urlopen(request, timeout=20) as response:
                return response.status, json.loads(response.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    return asked


def test_methods(toy_server, ask):
    for method in ("PUT", "DELETE", "GET"):
        status, answer = ask("toy:predict", {"instances": ["x"]}, method)
        assert (status, answer["error"]) == (400, f"Malformed request: {method} /v1/models/toy:predict")
    assert ask("toy", {}, "POST")[0] == 400
    request = urllib.request.Request(toy_server.rest, b"", method="POST")
    with pytest.raises(urllib.error.HTTPError, match="405"):
        urllib.request.urlopen(request)


def test_rows_and_columns(ask):
    status, answer = ask("toy:predict", {"instances": ["ab", "ünï"]})
    assert status == 200
    assert [(row["length"], row["upper"], row["version"]) for row in answer["predictions"]] == [
        (2.0, "AB", 2),
        (5.0, "üNï", 2),
    ]
    assert ask("toy:predict", {"instances": [{"text": "ab"}, {"text": "ünï"}]}) == (status, answer)
    assert ask("toy:predict", {"inputs": ["ab"]})[1]["outputs"]["length"] == [2.0]
    assert ask("toy:predict", {"inputs": {"text": ["ab"]}})[1]["outputs"]["upper"] == ["AB"]


def test_a_single_output_drops_its_name(ask):
    assert ask("toy:predict", {"signature_name": "single", "instances": ["ab", ""]}) == (200, {"predictions": [2, 0]})
    assert ask("toy:predict", {"signature_name": "single", "inputs": ["ab"]}) == (200, {"outputs": [2]})


def test_bytes_and_numbers(ask):
    raw = {"b64": base64.b64encode(b"\xff\x00").decode()}
    rows = [{"text": raw, "numbers": [1, 2.5]}, {"text": "é", "numbers": [-1, 0]}]
    status, answer = ask("toy:predict", {"signature_name": "pair", "instances": rows})
    assert status == 200
    first, second = answer["predictions"]
    assert first["copy_bytes"] == raw
    assert second["copy_bytes"] == {"b64": base64.b64encode("é".encode()).decode()}
    assert first["sum"] == 3.5
    assert second["root"][0] != second["root"][0]  # NaN, written as NaN
    assert ask("toy:predict", {"instances": [raw]})[1]["predictions"][0]["length"] == 2.0


def test_versions_and_labels(ask):
    def version(path):
        return ask(f"{path}:predict", {"instances": ["x"]})[1]["predictions"][0]["version"]

    assert [version("toy"), version("toy/versions/1"), version("toy/labels/stable")] == [2, 1, 1]
    status, answer = ask("toy/versions/3:predict", {"instances": ["x"]})
    assert status == 404
    assert "Specific(toy, 3)" in answer["error"]
    status, answer = ask("toy/labels/canary:predict", {"instances": ["x"]})
    assert status == 400
    assert "Unrecognized servable version label: canary" in answer["error"]
    assert ask(f"toy/versions/{'9' * 5000}:predict", {"instances": ["x"]})[0] == 400
    assert ask("other:predict", {"instances": ["x"]})[0] == 404


def test_status_and_metadata(ask):
    status, answer = ask("toy")
    assert status == 200
    assert [(v["version"], v["state"], v["status"]["error_code"]) for v in answer["model_version_status"]] == [
        ("2", "AVAILABLE", "OK"),
        ("1", "AVAILABLE", "OK"),
    ]
    assert len(ask("toy/versions/1")[1]["model_version_status"]) == 1
    assert ask("toy/versions/9")[0] == 404
    metadata = ask("toy/metadata")[1]
    assert metadata["model_spec"] == {"name": "toy", "signature_name": "", "version": "2"}
    signature = metadata["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert signature["inputs"]["text"]["dtype"] == "DT_STRING"
    assert signature["method_name"] == "tensorflow/serving/predict"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "JSON Parse error"),
        (b"[]", "must be a JSON object"),
        (b"\xff", "JSON Parse error"),
        (b"[" * 100_000, "JSON Parse error"),
        ({}, "either instances or inputs"),
        ({"instances": ["x"], "inputs": ["x"]}, "either instances or inputs"),
        ({"instances": []}, "not empty"),
        ({"instances": "x"}, "must be a list"),
        ({"instances": ["x"], "signature_name": 3}, "must be a string"),
        ({"instances": ["x"], "signature_name": "none"}, "has no signature 'none'"),
        ({"instances": ["x", 3]}, "must be of type string. Received: 3"),
        ({"instances": ["x", ["y"]]}, "must be of type string"),
        ({"instances": [["x"], ["y", "z"]]}, "rectangular"),
        ({"instances": [["x"]]}, "must be of shape"),
        ({"inputs": "x"}, "must be of shape"),
        ({"instances": [{"b64": "?"}]}, "not base64"),
        ({"instances": [{"text": "x"}, {"txt": "x"}]}, "objects with"),
        ({"instances": [{"txt": "x"}]}, "takes the inputs ['text']"),
        ({"instances": ["x"], "signature_name": "pair"}, "must be named"),
        ({"inputs": {"text": ["x"], "numbers": [[1, "2"]]}, "signature_name": "pair"}, 'float32. Received: "2"'),
        ({"inputs": {"text": ["x"], "numbers": [[1, True]]}, "signature_name": "pair"}, "float32. Received: true"),
        ({"inputs": {"text": ["x"], "numbers": [[1, 2], [3, 4]]}, "signature_name": "pair"}, "equally many rows"),
        ({"instances": ["bad"], "signature_name": "picky"}, "bad is refused"),
        ({"instances": ["x"] * 101}, "may have 100 rows. Received: 101"),
        ({"instances": ["x"] * 5, "signature_name": "free"}, "may have 4 rows. Received: 5"),
        ({"instances": ["x" * 50_001]}, "may have 50000 bytes. Received: 50001"),
        (b'{"instances": ["\\ud800"]}', "surrogate"),
    ],
)
def test_bad_requests(ask, body, message):
    status, answer = ask("toy:predict", body)
    assert status == 400
    assert answer.keys() == {"error"}
    assert message in answer["error"]


def test_bad_paths_and_methods(ask):
    assert ask("toy:predict", method="GET") == (400, {"error": "Malformed request: GET /v1/models/toy:predict"})
    assert ask("toy", {"instances": ["x"]})[0] == 400
    assert ask("toy/versions/x")[0] == 400
    assert ask("../../etc/passwd")[0] == 400
    assert ask("toy:explain", {})[0] == 400
    for verb in ("classify", "regress"):
        status, answer = ask(f"toy:{verb}", {"examples": []})
        assert status == 501
        assert "use Predict" in answer["error"]


def test_a_body_beyond_the_bound_is_not_read(toy_server):
    connection = http.client.HTTPConnection(toy_server.rest.removeprefix("http://"), timeout=20)
    connection.putrequest("POST", "/v1/models/toy:predict")
    connection.putheader("Content-Length", str(10**12))
    connection.endheaders()
    connection.send(b"x" * 250_000)
    response = connection.getresponse()
    assert response.status == 413
    assert "200000 bytes" in json.loads(response.read())["error"]
    connection.close()


@pytest.mark.parametrize(
    "endless",
    [
        (b"GET /v1/models/toy HTTP/1.1\r\n", b"x: " + b"x" * 1000 + b"\r\n"),
        (b"GET /v1/models/toy HTTP/1.1\r\nx: ", b"x" * 1000),
        (b"GET /v1/models/", b"x" * 1000),
    ],
    ids=["headers", "header", "path"],
)
def test_an_endless_head_is_refused(toy_server, endless):
    host, port = toy_server.rest.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        begin, more = endless
        connection.sendall(begin)
        answer = b""
        with contextlib.suppress(ConnectionError):  # it is closed while we still send
            for _ in range(100_000):
                connection.sendall(more)
        with contextlib.suppress(ConnectionError):
            while part := connection.recv(65536):
                answer += part
    assert b"200 OK" not in answer
    with urllib.request.urlopen(f"{toy_server.rest}/v1/models/toy") as response:
        assert response.status == 200


def sent(server, path="/v1/models/toy:predict", body=b"", method="POST", **headers):
    """(status, headers, body) of a request as it is given."""
    connection = http.client.HTTPConnection(server.rest.removeprefix("http://"), timeout=20)
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body, names)
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response.status, response.headers, content


QUESTION = json.dumps({"signature_name": "single", "instances": ["abc"]}).encode()


@pytest.mark.parametrize("name", ["gzip", "x-gzip", "GZIP", "identity, gzip"])
def test_a_body_may_be_compressed(toy_server, name):
    whole = gzip.compress(QUESTION)
    assert sent(toy_server, body=whole, Content_Encoding=name)[::2] == (200, b'{"predictions":[3]}')
    members = gzip.compress(QUESTION[:20]) + gzip.compress(b"") + gzip.compress(QUESTION[20:])
    assert sent(toy_server, body=members, Content_Encoding=name)[0] == 200
    assert sent(toy_server, body=iter([whole[:7], whole[7:30], whole[30:]]), Content_Encoding=name)[0] == 200


@pytest.mark.parametrize(
    ("name", "body", "status", "message"),
    [
        ("gzip", gzip.compress(QUESTION)[:-9], 400, "not whole"),
        ("gzip", b"", 400, "not whole"),
        ("gzip", QUESTION, 400, "but the body is not"),
        ("gzip", gzip.compress(QUESTION) + b"more", 400, "but the body is not"),
        ("gzip", gzip.compress(b" " * 200_001), 413, "may have 200000 bytes"),
        ("gzip", gzip.compress(b" " * 10**7), 413, "may have 200000 bytes"),
        ("gzip", gzip.compress(b"") * 20_000, 413, "may have 200000 bytes"),
        ("br", b"x", 400, "Content-Encoding must be gzip or identity. Received: 'br'"),
        ("gzip, gzip", b"x", 400, "must be gzip"),
    ],
    ids=range(9),
)
def test_a_compressed_body_is_bounded_as_it_opens(toy_server, name, body, status, message):
    found, _, content = sent(toy_server, body=body, Content_Encoding=name)
    assert found == status
    assert message in json.loads(content)["error"]


def test_a_bomb_is_never_in_memory():
    gunzip, opened, bomb = encoding.Gunzip(), 0, gzip.compress(b"\0" * 10**7)
    tracemalloc.start()
    for step in gunzip.opened(bomb):
        opened += len(step)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert opened == 10**7
    gunzip.end()
    assert most < 4 * encoding.STEP


@pytest.mark.parametrize("rows", [1, 20])
def test_large_answers_are_compressed_for_who_takes_them_so(toy_server, rows):
    body = json.dumps({"signature_name": "pair", "inputs": {"text": ["a" * 9000] * rows, "numbers": [[1, 2]] * rows}})
    status, headers, plain = sent(toy_server, body=body)
    assert (status, headers["content-encoding"]) == (200, None)
    for accepted, is_small in (("gzip", True), ("br;q=1, *;q=0.1", True), ("gzip;q=0, *", False), ("deflate", False)):
        status, headers, content = sent(toy_server, body=body, Accept_Encoding=accepted)
        assert status == 200
        if rows > 1:
            assert headers["vary"] == "accept-encoding"
        if rows > 1 and is_small:
            assert headers["content-encoding"] == "gzip"
            assert len(content) < len(plain) / 10
            content = gzip.decompress(content)
        assert content == plain


def test_pages_from_elsewhere_may_ask_where_it_is_said(toy_server, toy_folder):
    status, headers, _ = sent(toy_server, body=QUESTION, Origin="http://elsewhere")
    assert (status, headers["access-control-allow-origin"]) == (200, None)
    assert sent(toy_server, method="OPTIONS", Origin="http://elsewhere")[0] == 400
    with served.running(served.settings(toy_folder, rest_api_enable_cors_support=True)) as running:
        for body, expected in ((QUESTION, 200), (b"{", 400)):
            status, headers, _ = sent(running, body=body, Origin="http://elsewhere")
            assert (status, headers["access-control-allow-origin"]) == (expected, "*")
        status, headers, content = sent(running, method="OPTIONS", Origin="http://elsewhere")
        assert (status, headers["access-control-allow-methods"], content) == (200, "POST, GET", b"")
        assert headers["access-control-allow-headers"] == "Content-Type"
        assert sent(running, method="OPTIONS")[0] == 400
        assert sent(running, "/", method="GET")[1]["access-control-allow-origin"] is None


@pytest.mark.parametrize("host", ["http://host", "HTTP://host:80", "https://h"])
def test_targets_in_absolute_form(toy_server, host):
    assert sent(toy_server, f"{host}/v1/models/toy:predict", QUESTION)[::2] == (200, b'{"predictions":[3]}')
    assert sent(toy_server, f"{host}/v1/models/toy", method="GET")[0] == 200
    assert b"<html" in sent(toy_server, host, method="GET")[2]


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET /v1/models/toy\r\n\r\n", 400),
        (b"GET /v1/models/toy HTTP/1.1\r\n\r\n", 400),  # no host
        (b"GET /v1/models/toy HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n", 400),
        (b"GET /v1/m\xc3\xb6 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"POST /v1/models/toy:predict HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n", 400),
        (b"POST /v1/models/toy:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"POST /v1/models/toy:predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"POST /v1/models/toy:predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\r\n" * 9, 400),  # who speaks TLS
    ],
    ids=range(10),
)
def test_broken_requests_are_answered_as_json(toy_server, caplog, request_, status):
    host, port = toy_server.rest.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(request_)
        answer = b""
        while part := connection.recv(65536):
            answer += part
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d" % status), answer
    assert json.loads(body)["error"].startswith("Invalid HTTP request received: ")
    assert "Traceback" not in caplog.text


def test_strings_count_by_their_bytes(toy_folder):
    limits = Limits(answer_bytes=3000)
    beyond = pytest.raises(RequestError, match=r"the answer would have 50\d\d bytes of the 3000 allowed")
    with served.running(served.settings(toy_folder, limits=limits)) as running, beyond:
        Client(running.rest, model="toy").predict("serving_default", text=["x" * 5000])


@pytest.mark.parametrize("begin", [b"", b"POST /v1/mod"])
def test_who_says_nothing_is_not_waited_for(toy_server, monkeypatch, begin):
    monkeypatch.setattr(server_http, "HEAD_SECONDS", 0.3)
    host, port = toy_server.rest.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=4) as connection:
        if begin:  # behind a whole request too
            connection.sendall(b"GET /v1/models/toy HTTP/1.1\r\nHost: x\r\n\r\n")
            time.sleep(0.2)
            assert b"200 OK" in connection.recv(65536)
        connection.sendall(begin)
        while connection.recv(65536):
            pass


def test_who_does_not_take_the_answer_is_not_waited_for(toy_folder, monkeypatch):
    monkeypatch.setattr(server_http, "SEND_SECONDS", 0.5)
    body = json.dumps({"signature_name": "free", "instances": ["ab" * 700_000]}).encode()
    head = b"POST /v1/models/toy:predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    with served.running(served.settings(toy_folder)) as running:
        host, port = running.rest.removeprefix("http://").split(":")

        def asked():
            connection = socket.socket()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 18)
            connection.settimeout(20)
            connection.connect((host, int(port)))
            connection.sendall(head + body)
            return connection

        with asked() as connection:
            assert connection.recv(15) == b"HTTP/1.1 200 OK"
            end = time.monotonic() + 10
            left = b""
            with contextlib.suppress(ConnectionError):
                time.sleep(1.5)
                while part := connection.recv(65536):
                    left += part
                    assert time.monotonic() < end
            assert len(left) < 5_600_000  # what the system held for it, and no more
        with asked() as connection:  # slowly, but surely
            taken = b""
            while not taken.endswith(b"]}\r\n0\r\n\r\n"):
                if len(taken) < 20 * 65536:
                    time.sleep(0.1)
                part = connection.recv(65536)
                assert part
                taken += part
            assert len(taken) > 5_600_000


def test_connections_are_bounded(toy_server, monkeypatch):
    monkeypatch.setattr(server_http, "MAX_CONNECTIONS", 0)
    with pytest.raises(OSError, match=r"reset|closed|aborted"):
        urllib.request.urlopen(f"{toy_server.rest}/v1/models/toy", timeout=5)
    monkeypatch.undo()
    assert urllib.request.urlopen(f"{toy_server.rest}/v1/models/toy", timeout=5).status == 200


@pytest.mark.parametrize("by_rows", [True, False])
@pytest.mark.parametrize("names", [("a",), ("a", "s_bytes", "n")])
def test_large_answers_are_written_in_pieces(monkeypatch, by_rows, names):
    arrays = {
        "a": np.arange(240, dtype=np.float32).reshape(4, 3, 2, 10),
        "s_bytes": np.full((4, 7), b"\xff", object),
        "n": np.arange(4),
    }
    arrays["a"][1, 1, 1, 1] = np.nan
    outputs = {name: arrays[name] for name in names}
    (whole,) = rest_json.answer(outputs, by_rows, 4)
    monkeypatch.setattr(rest_json, "PIECE", 7)
    pieces = [*rest_json._pieces(outputs, by_rows)]
    assert len(pieces) > 24
    assert str(json.loads(b"".join(pieces))) == str(json.loads(whole))
    assert b"".join(rest_json.answer(outputs, by_rows, 4)) == b"".join(pieces)


def test_a_large_answer_arrives_whole(toy_folder):
    text = "ab" * 150_000
    with served.running(served.settings(toy_folder)) as running:
        body = json.dumps({"signature_name": "free", "instances": [text, "c"]}).encode()
        with urllib.request.urlopen(f"{running.rest}/v1/models/toy:predict", body, timeout=20) as response:
            first, second = json.loads(response.read())["predictions"]
        assert "".join(first) == text
        assert "".join(second) == "c"
        assert Client(running.rest, model="toy").predict("free", text=[text])["letters"].shape == (1, 300_000)


def test_an_offered_upgrade_does_not_lose_the_body(toy_server):
    """As `curl --http2` and Java's client send it; a server that does not upgrade answers as if it were not there."""
    connection = http.client.HTTPConnection(toy_server.rest.removeprefix("http://"), timeout=20)
    headers = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABkAAQCAAAAAAIAAAAA"}
    for _ in range(2):
        connection.request("POST", "/v1/models/toy:predict", json.dumps({"instances": ["x"]}), headers)
        response = connection.getresponse()
        assert response.status == 200
        assert json.loads(response.read())["predictions"]
    connection.close()


def test_an_answer_beyond_the_bound(ask):
    text = "x" * 40_000
    status, answer = ask("toy:predict", {"signature_name": "fill_mask", "instances": [text, text, text, text]})
    assert status == 400
    assert "send fewer texts" in answer["error"]


def test_who_has_gone_is_not_answered(toy_folder):
    """As over gRPC: a client that gives up and asks again must not fill the queue with its old requests."""
    settings = BatchingSettings(num_batch_threads=1)
    with served.running(served.settings(toy_folder, batching=settings)) as running:

        def sent(body):
            connection = http.client.HTTPConnection(running.rest.removeprefix("http://"), timeout=20)
            connection.request("POST", "/v1/models/toy:predict", json.dumps(body))
            return connection

        def counted():
            with urllib.request.urlopen(f"{running.rest}/monitoring/prometheus/metrics") as response:
                lines = response.read().decode().splitlines()
            return dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))

        slow = sent({"signature_name": "slow", "instances": ["6000"]})
        time.sleep(0.2)
        for _ in range(5):
            sent({"signature_name": "picky", "instances": ["x"]}).close()
        assert slow.getresponse().status == 200
        cancelled = ':tensorflow:serving:request_count{model_name="toy",status="CANCELLED"}'
        end = time.monotonic() + 10
        while (found := counted()).get(cancelled) != "5.0":
            assert time.monotonic() < end, found
            time.sleep(0.05)
        assert not any("processed_batch_size" in name and "picky" in name for name in found)
        assert sent({"signature_name": "picky", "instances": ["x"]}).getresponse().status == 200


def test_a_fault_of_ours_is_answered_as_json(toy_server, ask, monkeypatch):
    def faulty(*_):
        raise ZeroDivisionError

    monkeypatch.setattr(rest_json, "answer", faulty)
    assert ask("toy:predict", {"instances": ["x"]}) == (500, {"error": "the server failed: ZeroDivisionError"})


def test_metrics(toy_server, ask):
    ask("toy:predict", {"instances": ["x"]})
    ask("toy:predict", {"instances": []})
    with urllib.request.urlopen(f"{toy_server.rest}/monitoring/prometheus/metrics") as response:
        lines = response.read().decode().splitlines()
    counted = [line.split()[0] for line in lines if line.startswith(":tensorflow:serving:request_count")]
    assert ':tensorflow:serving:request_count{model_name="toy",status="OK"}' in counted
    assert ':tensorflow:serving:request_count{model_name="toy",status="INVALID_ARGUMENT"}' in counted
    latency = ':tensorflow:serving:request_latency_sum{API="Predict",entrypoint="REST",model_name="toy"} '
    (microseconds,) = (float(line.removeprefix(latency)) for line in lines if line.startswith(latency))
    assert microseconds > 100
    assert 'bert_serving_version_available{model_name="toy",version="2"} 1.0' in lines


def test_curl(toy_server):
    curl = shutil.which("curl")
    if not curl:
        pytest.skip("needs curl")
    url = f"{toy_server.rest}/v1/models/toy:predict"
    answer = subprocess.run(
        [curl, "-sS", "-d", '{"signature_name": "single", "instances": ["hello"]}', url],
        capture_output=True,
        check=True,
    )
    assert json.loads(answer.stdout) == {"predictions": [5]}
