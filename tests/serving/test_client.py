"""The client gives the same answers over gRPC, over REST and from a folder, keeps its deadline, and is light."""

import contextlib
import gc
import http.server
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from preprocessing.errors import InputError
from serving.client import Client
from serving.protocol.errors import Code, RequestError
from tests.data import ROOT
from tests.serving import served

KINDS = ("grpc", "rest", "folder")


@pytest.fixture(params=KINDS)
def client(request, toy_server, toy_folder):
    target = toy_folder if request.param == "folder" else getattr(toy_server, request.param)
    with Client(target, model="toy") as client:
        yield client


def test_predict(client):
    outputs = client.predict("serving_default", text=["ab", "ünï", b"\xff"])
    assert outputs["length"].tolist() == [2, 5, 1]
    assert outputs["length"].dtype == np.float32
    assert outputs["version"].tolist() == [2, 2, 2]
    assert client.predict("single", text=["ab"])["length"].tolist() == [2]


def test_bytes_come_back_as_they_went(client):
    numbers = np.array([[1, 2], [-3, 4]], np.float32)
    outputs = client.predict("pair", text=[b"\xff\x00", "é"], numbers=numbers)
    assert outputs["copy_bytes"].tolist() == [b"\xff\x00", "é".encode()]
    np.testing.assert_allclose(outputs["root"], np.sqrt(numbers, where=numbers > 0, out=np.full((2, 2), np.nan)))


def test_errors_have_a_code(client, request):
    rest = request.node.callspec.params["client"] == "rest"  # where both are 400
    for call, code in (
        (lambda: client.predict("none", text=["x"]), Code.INVALID_ARGUMENT if rest else Code.FAILED_PRECONDITION),
        (lambda: client.predict("single", txt=["x"]), Code.INVALID_ARGUMENT),
        (lambda: client.predict("picky", text=["bad"]), Code.INVALID_ARGUMENT),
    ):
        with pytest.raises(RequestError) as error:
            call()
        assert error.value.code is code
    with pytest.raises(TypeError, match="a list of texts"):
        client.predict("single", text="one text")


def test_signatures(client):
    found = client.signatures()
    assert list(found) == sorted(served.SIGNATURES)
    assert found["pair"] == (["numbers", "text"], ["copy_bytes", "root", "sum"])
    assert found["single"] == (["text"], ["length"])


def test_versions(client):
    assert client.versions()[2] == "AVAILABLE"


@pytest.mark.parametrize("kind", KINDS)
def test_version_one(kind, toy_server, toy_folder):
    target = toy_folder if kind == "folder" else getattr(toy_server, kind)
    assert Client(target, model="toy", version=1).predict("serving_default", text=["x"])["version"].tolist() == [1]
    if kind != "folder":
        labelled = Client(target, model="toy", label="stable")
        assert labelled.predict("serving_default", text=["x"])["version"].tolist() == [1]


def test_typed_answers(monkeypatch):
    """fill_mask and the others only take `predict`'s arrays apart."""
    arrays = {
        "tokens": np.array([[[b"a", b"b"], [b"c", b"d"]], [[b"e", b"f"], [b"", b""]]], object),
        "scores": np.array([[[0.9, 0.1], [0.8, 0.2]], [[0.7, 0.3], [0, 0]]], np.float32),
        "sequence": np.array([[[b"xa", b"xb"], [b"xc", b"xd"]], [[b"xe", b"xf"], [b"", b""]]], object),
        "mask_count": np.array([2, 1], np.int32),
    }
    client = Client("localhost:1")
    monkeypatch.setattr(client, "predict", lambda signature, **inputs: arrays)
    first, second = client.fill_mask(["x", "y"])
    assert [[candidate.token for candidate in mask] for mask in first] == [["a", "b"], ["c", "d"]]
    assert [candidate.sequence for candidate in second[0]] == ["xe", "xf"]
    assert second[0][0].score == pytest.approx(0.7)
    tokens = {"tokens": np.array([[b"[CLS]", b"a", b"[PAD]"]], object), "length": np.array([2])}
    monkeypatch.setattr(client, "predict", lambda signature, **inputs: tokens)
    assert client.tokenize(["a"]) == [["[CLS]", "a"]]


def test_tagged(exported_tagger):
    """From a real export: what stands where it says, and one tag for each word that is given."""
    text = "Zoë is in Paris, 東京!"
    with Client(exported_tagger[0]) as client:
        one, none = client.tag([text, ""])
        assert (none.words, none.entities) == ([], [])
        assert [word.text for word in one.words] == ["Zoë", "is", "in", "Paris", ",", "東", "京", "!"]
        assert all(text[found.start : found.end] == found.text for found in (*one.words, *one.entities))
        assert one.entities
        words = [["Paris", "", "is", "\u200b"], ["runs"], []]
        given = client.tag_words(words)
        assert [[word.text for word in row.words] for row in given] == words
        assert given[0].words[1].tag
        assert all(row.words[one.start].tag.endswith(one.type) for row in given for one in row.entities)
        assert client.tag([]) == client.tag_words([]) == []


@pytest.mark.parametrize("kind", ["grpc", "rest"])
def test_deadline(kind, toy_server):
    with Client(getattr(toy_server, kind), model="toy", timeout=0.2) as client:
        start = time.monotonic()
        with pytest.raises(RequestError) as error:
            client.predict("slow", text=["6000"])
        assert error.value.code is Code.DEADLINE_EXCEEDED
        assert time.monotonic() - start < 3


@pytest.mark.parametrize("target", ["127.0.0.1:9", "http://127.0.0.1:9"])
def test_a_server_that_is_not_there(target):
    start = time.monotonic()
    with pytest.raises(RequestError) as error:
        Client(target, timeout=5, tries=2).predict("single", text=["x"])
    assert error.value.code is Code.UNAVAILABLE
    assert time.monotonic() - start < 5


def test_tries_again_while_the_server_is_overloaded():
    answers = [(429, b'{"error": "overloaded"}'), (503, b'{"error": "starting"}'), (200, b'{"outputs": {"n": [1]}}')]

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            status, body = answers.pop(0)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as fake:
        threading.Thread(target=fake.serve_forever, daemon=True).start()
        with Client(f"http://127.0.0.1:{fake.server_port}") as client:
            assert client.predict("any", text=["x"])["n"].tolist() == [1]
            answers[:] = [(400, b'{"error": "no"}'), (200, b"{}")]
            with pytest.raises(RequestError, match="no"):
                client.predict("any", text=["x"])
            assert len(answers) == 1  # a bad request is bad the second time too
        fake.shutdown()


@contextlib.contextmanager
def listening(answer):
    """The address of a server that calls `answer(connection, n)` with its nth connection, in a thread of its own."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        kept = []  # else the peer would see them closed

        def accept():
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    kept.append(connection)
                    threading.Thread(target=answer, args=(connection, len(kept)), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        for connection in kept:
            connection.close()


@pytest.mark.parametrize(
    "body",
    [
        *(b"{}", b"[]", b"3", b"[" * 100_000, b'{"outputs": [1], "metadata": []}'),
        *(b'{"outputs": {"n": [null]}}', b'{"outputs": {"n": [[1], 2]}}', b'{"outputs": {"n": [{}]}}'),
    ],
)
@pytest.mark.parametrize("status", [200, 400])
def test_what_is_no_answer_of_such_a_server(body, status):
    def answer(connection, n):
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body))
        connection.close()

    with listening(answer) as address, Client(address, timeout=5, tries=1) as client:
        for call in (lambda: client.predict("any", text=["x"]), client.versions, client.signatures):
            with pytest.raises(RequestError):
                call()


@pytest.mark.parametrize(
    ("head", "body"),
    [
        ("Content-Length: 1" + "0" * 40, "{}"),
        ("Content-Length: 1" + "0" * 12, "{}"),
        ("Content-Length: 3", "{}"),
        ("Transfer-Encoding: chunked", "fffffffffffffff\r\n{}"),
        ("Transfer-Encoding: chunked", "x\r\n{}"),
    ],
)
def test_an_answer_that_ends_before_its_time(head, body):
    def answer(connection, n):
        connection.recv(65536)
        connection.sendall(f"HTTP/1.1 200 OK\r\n{head}\r\n\r\n{body}".encode())
        connection.close()

    with listening(answer) as address, Client(address, timeout=5, tries=1) as client:
        with pytest.raises(RequestError) as error:
            client.versions()
        assert error.value.code in (Code.UNAVAILABLE, Code.UNKNOWN)


def test_one_deadline_over_all_tries():
    """A connection that was kept open and is dead is tried anew, with what is left of the time."""

    def answer(connection, n):
        connection.recv(65536)
        if n == 1:
            body = b'{"outputs": {"n": [1]}}'
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            connection.recv(65536)
            time.sleep(0.5)
            connection.shutdown(socket.SHUT_RDWR)

    with listening(answer) as address, Client(address, timeout=1) as client:
        assert client.predict("any", text=["x"])["n"].tolist() == [1]
        start = time.monotonic()
        with pytest.raises(RequestError) as error:
            client.predict("any", text=["x"])
        assert error.value.code is Code.DEADLINE_EXCEEDED
        assert time.monotonic() - start < 1.4


@pytest.mark.parametrize("begin", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"], ids=["head", "body"])
def test_an_answer_that_trickles_has_no_more_time(begin):
    def answer(connection, n):
        with contextlib.suppress(OSError):
            connection.sendall(begin or b"HTTP/1.1 200 OK\r\nX: ")
            while True:
                connection.sendall(b" ")
                time.sleep(0.05)

    with listening(answer) as address, Client(address, timeout=0.5) as client:
        start = time.monotonic()
        with pytest.raises(RequestError) as error:
            client.predict("any", text=["x"])
        assert error.value.code is Code.DEADLINE_EXCEEDED
        assert time.monotonic() - start < 2


@pytest.mark.parametrize("kind", ["grpc", "rest"])
def test_close_is_for_all_threads(kind, toy_server):
    client = Client(getattr(toy_server, kind), model="toy", timeout=60)
    ended = []

    def ask():
        try:
            client.predict("slow", text=["20000"])
        except RequestError as error:
            ended.append(error.code)

    asking = [threading.Thread(target=ask) for _ in range(2)]
    for thread in asking:
        thread.start()
    time.sleep(0.5)
    client.close()
    for thread in asking:
        thread.join(5)
    assert ended == [Code.CANCELLED, Code.CANCELLED]
    with pytest.raises(RequestError, match="has been closed"):
        client.predict("single", text=["x"])


def test_connections_of_threads_that_have_ended_are_closed(toy_server):
    with Client(toy_server.rest, model="toy") as client:
        for _ in range(3):
            thread = threading.Thread(target=client.predict, args=("single",), kwargs={"text": ["x"]})
            thread.start()
            thread.join()
        gc.collect()
        assert not client._transport._all


def test_targets(tmp_path):
    with pytest.raises(InputError, match="no folder with version 1, 2"):
        Client(tmp_path)
    with pytest.raises(InputError, match="no folder with version 7"):
        Client(tmp_path, version=7)
    with pytest.raises(InputError, match="names no host"):
        Client("http://")
    with pytest.raises(InputError, match="not both"):
        Client("localhost:1", version=1, label="stable")


def test_asking_a_server_needs_no_tensorflow(toy_server):
    code = f"""
import sys
from serving.client import Client
for target in ({toy_server.grpc!r}, {toy_server.rest!r}):
    print(Client(target, model="toy").predict("single", text=["abc"])["length"].tolist())
print(sorted({{"tensorflow", "keras"}} & sys.modules.keys()))
"""
    root = ROOT
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.split() == ["[3]", "[3]", "[]"]


def test_what_a_classifier_says(monkeypatch):
    names = np.array([[b"a", "é".encode()]] * 2, object)
    shares = np.array([[0.25, 0.75], [0.5, 0.5]], np.float32)
    answers = {
        "classify": {"label": np.array(["é".encode(), b"a"], object), "labels": names, "probabilities": shares},
        "classify_labels": {
            "labels": np.array([["é".encode(), b""], [b"", b""]], object),
            "names": names,
            "probabilities": shares,
        },
        "score": {"score": np.array([1.5, 2], np.float32)},
        "similarity": {"score": np.array([0.5], np.float32)},
    }
    asked = []

    def predict(signature, **inputs):
        asked.append((signature, inputs))
        return answers[signature.removesuffix("_pair")]

    with Client("localhost:1") as client:
        monkeypatch.setattr(client, "predict", predict)
        first, second = client.classify(["x", "y"])
        assert (first.labels, first.probabilities) == (["é"], {"a": 0.25, "é": 0.75})
        assert second.labels == ["a"]
        assert [one.labels for one in client.classify_labels(["x", "y"], ["z", ""])] == [["é"], []]
        assert client.score(["x", "y"]).tolist() == [1.5, 2]
        assert client.similarity(["x"], ["y"]).tolist() == [0.5]
    assert asked == [
        ("classify", {"text": ["x", "y"]}),
        ("classify_labels_pair", {"first": ["x", "y"], "second": ["z", ""]}),
        ("score", {"text": ["x", "y"]}),
        ("similarity", {"first": ["x"], "second": ["y"]}),
    ]
