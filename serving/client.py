"""A small typed client of a served model, over gRPC or REST, or of an exported folder without a server.

    with Client("127.0.0.1:8500") as client:            # gRPC
        client.embed(["Paris is in France."]).shape     # (1, hidden)
    Client("http://127.0.0.1:8501", model="bert")       # REST
    Client("serving_model/bert")                        # the newest version in a folder, loaded here

Only a folder needs TensorFlow; the other two import in a fraction of a second.
"""

import contextlib
import dataclasses
import http.client
import io
import json
import os
import pathlib
import random
import re
import socket
import ssl
import threading
import time
import urllib.parse
import weakref
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np

from preprocessing.errors import InputError, require
from serving.export import golden
from serving.protocol.errors import Code, RequestError

Arrays = dict[str, np.ndarray]
_Signatures = dict[str, tuple[Collection[str], Collection[str]]]  # names of inputs and outputs
Texts = Sequence[str | bytes]

_CODES = {405: Code.INVALID_ARGUMENT, 413: Code.INVALID_ARGUMENT}  # that have no gRPC code of their own
# Worth another try: nothing was answered, and Predict changes nothing.
_PASSING = (Code.UNAVAILABLE, Code.RESOURCE_EXHAUSTED)
_CLOSED = "the client has been closed"
_PIECE = 1 << 20  # bytes of an answer


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One filling of a `[MASK]`."""

    token: str
    score: float  # probability
    sequence: str  # the text with it


@dataclasses.dataclass(frozen=True)
class Classified:
    """What a classifier says of a text: the likeliest label, or those above their thresholds; and each one's
    probability."""

    labels: list[str]
    probabilities: dict[str, float]


@dataclasses.dataclass(frozen=True)
class Span:
    """A part of a context: `context[start:end]`, and where that is in its UTF-8."""

    text: str
    start: int
    end: int
    byte_start: int
    byte_end: int
    score: float  # probability among the best ones


@dataclasses.dataclass(frozen=True)
class Answered:
    """`text` is the answer, "" where there is none; `spans` are the best, the best first, whether there is one or not;
    `no_answer`: by how much no answer scores better than the best span, in nats."""

    text: str
    spans: list[Span]
    no_answer: float


@dataclasses.dataclass(frozen=True)
class Word:
    """A word with its tag. `text[start:end]` of what was asked is the word; of words that were given `start` is its
    number, from 0."""

    text: str
    tag: str
    score: float  # the tag's probability
    start: int
    end: int


@dataclasses.dataclass(frozen=True)
class Entity:
    """Some words on end that tags mark, with places as `Word` has them."""

    text: str
    type: str
    score: float  # the mean of its words'
    start: int
    end: int


@dataclasses.dataclass(frozen=True)
class Tagged:
    """What is found in a text."""

    words: list[Word]
    entities: list[Entity]


class Client:
    """Asks one model. Safe to share between threads.

    Args:
        target: `host:port` for gRPC, `http://host:port` or `https://...` for REST, else an exported folder.
        model: its name on the server.
        version, label: of the model; the newest if neither is given.
        timeout: seconds for a call, tries included.
        tries: how often a call is tried while the server is not there or overloaded.
        root_certificates: PEM bytes that the server's certificate is checked against; makes gRPC speak TLS.

    Calls raise RequestError, whose `code` is gRPC's, whatever the protocol; over REST, where several are status 400,
    INVALID_ARGUMENT stands for them. What still waits for a server at `close`, or asks it afterwards, is CANCELLED.
    """

    def __init__(
        self,
        target: str | os.PathLike,
        *,
        model: str = "bert",
        version: int | None = None,
        label: str | None = None,
        timeout: float = 30.0,
        tries: int = 4,
        root_certificates: bytes | None = None,
    ):
        if version is not None and label is not None:
            raise InputError("name a version or a label, not both")
        require(0 < timeout < threading.TIMEOUT_MAX, "timeout must be positive seconds", timeout)
        self._timeout = timeout
        self._tries = tries
        chosen = (model, version, label)
        if isinstance(target, str) and re.match(r"https?://", target):
            self._transport: _Rest | _Grpc | _Folder = _Rest(target, *chosen, root_certificates)
        elif isinstance(target, str) and re.fullmatch(r"(?!/)[^/\s]+:\d+", target):
            self._transport = _Grpc(target, *chosen, root_certificates)
        else:
            self._transport = _Folder(pathlib.Path(target), *chosen)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def close(self) -> None:
        self._transport.close()

    def predict(self, signature: str, /, **inputs: Texts | np.ndarray) -> Arrays:
        """All outputs of a signature, by name. Inputs are lists of texts (or bytes), or arrays; strings come back as
        object arrays of bytes."""
        arrays = {name: _array(values) for name, values in inputs.items()}
        return self._retried(lambda end: self._transport.predict(signature, arrays, end))

    def embed(self, texts: Texts) -> np.ndarray:
        """float32 [texts, hidden]."""
        return self.predict("serving_default", text=texts)["embedding"]

    def fill_mask(self, texts: Texts) -> list[list[list[Candidate]]]:
        """For each text, for each `[MASK]` in it, the candidates, the likeliest first."""
        outputs = self.predict("fill_mask", text=texts)
        columns = [outputs[name] for name in ("tokens", "scores", "sequence")]

        def candidates(row, mask):
            found = zip(*(column[row, mask] for column in columns), strict=True)
            return [
                Candidate(token.decode(), float(score), text.decode("utf-8", "replace")) for token, score, text in found
            ]

        return [[candidates(row, mask) for mask in range(count)] for row, count in enumerate(outputs["mask_count"])]

    def next_sentence(self, first: Texts, second: Texts) -> np.ndarray:
        """float32 [texts]: the probability that each second text follows the first."""
        return self.predict("next_sentence", first=first, second=second)["is_next"]

    def classify(self, texts: Texts, second: Texts | None = None) -> list[Classified]:
        """One label of each text, or of each pair."""
        outputs = self._asked("classify", texts, second)
        said = [[label] for label in outputs["label"]]
        return _classified(said, outputs["labels"], outputs["probabilities"])

    def classify_labels(self, texts: Texts, second: Texts | None = None) -> list[Classified]:
        """Any labels of each text, or of each pair."""
        outputs = self._asked("classify_labels", texts, second)
        return _classified(outputs["labels"], outputs["names"], outputs["probabilities"])

    def score(self, texts: Texts, second: Texts | None = None) -> np.ndarray:
        """float32 [texts]: a number for each text, or pair."""
        return self._asked("score", texts, second)["score"]

    def similarity(self, first: Texts, second: Texts) -> np.ndarray:
        """float32 [texts]: the cosine of what `embed` gives of the two texts of each pair."""
        return self.predict("similarity", first=first, second=second)["score"]

    def _asked(self, signature: str, texts: Texts, second: Texts | None) -> Arrays:
        if second is None:
            return self.predict(signature, text=texts)
        return self.predict(f"{signature}_pair", first=texts, second=second)

    def tokenize(self, texts: Texts) -> list[list[str]]:
        """What the model sees of each text, with [CLS] and [SEP]."""
        outputs = self.predict("tokenize", text=texts)
        return [
            [token.decode() for token in tokens[:length]]
            for tokens, length in zip(outputs["tokens"], outputs["length"], strict=True)
        ]

    def answer(self, questions: Texts, contexts: Texts) -> list[Answered]:
        """What in each context, however long, answers each question."""
        outputs = self.predict("answer", question=questions, context=contexts)
        columns = [
            outputs[name] for name in ("answers", "char_starts", "char_ends", "byte_starts", "byte_ends", "scores")
        ]

        def spans(row):
            found = zip(*(column[row].tolist() for column in columns), strict=True)
            spans = (Span(text.decode("utf-8", "replace"), *others) for text, *others in found)
            return [span for span in spans if span.text]  # where there are fewer, empty ones follow

        rows = zip(outputs["answer"].tolist(), outputs["no_answer"].tolist(), strict=True)
        return [Answered(text.decode("utf-8", "replace"), spans(row), score) for row, (text, score) in enumerate(rows)]

    def tag(self, texts: Texts) -> list[Tagged]:
        """The words of each text with their tags, and its entities. Places are in characters, as Python counts them."""
        outputs = self.predict("tag", text=texts)

        def found(kind, row, count, *names):
            columns = (outputs[name][row, : outputs[count][row]].tolist() for name in names)
            return [kind(text.decode(), tag.decode(), *numbers) for text, tag, *numbers in zip(*columns, strict=True)]

        words = ("words", "tags", "scores", "char_starts", "char_ends")
        entities = ("entities", "entity_types", "entity_scores", "entity_char_starts", "entity_char_ends")
        return [
            Tagged(found(Word, row, "word_count", *words), found(Entity, row, "entity_count", *entities))
            for row in range(len(texts))
        ]

    def tag_words(self, texts: Sequence[Sequence[str]]) -> list[Tagged]:
        """The same of texts whose words are given: exactly one tag for each. Places are in words."""
        given = np.full((len(texts), max(map(len, texts), default=0)), b"", object)
        for row, words in enumerate(texts):  # an empty word among them is one of which nothing is left
            given[row, : len(words)] = [word.encode() or b" " for word in words]
        outputs = self.predict("tag_words", words=given)

        def found(row, words):
            tags, scores = (outputs[name][row, : len(words)].tolist() for name in ("tags", "scores"))
            names = ("entity_types", "entity_scores", "entity_starts", "entity_ends")
            entities = (outputs[name][row, : outputs["entity_count"][row]].tolist() for name in names)
            return Tagged(
                [
                    Word(word, tag.decode(), score, place, place + 1)
                    for place, (word, tag, score) in enumerate(zip(words, tags, scores, strict=True))
                ],
                [
                    Entity(" ".join(words[start:end]), kind.decode(), score, start, end)
                    for kind, score, start, end in zip(*entities, strict=True)
                ],
            )

        return [found(row, words) for row, words in enumerate(texts)]

    def signatures(self) -> dict[str, tuple[list[str], list[str]]]:
        """Names of the inputs and of the outputs, in the order of the alphabet, by signature."""
        found = self._retried(self._transport.signatures)
        return {
            name: (sorted(inputs), sorted(outputs))
            for name, (inputs, outputs) in sorted(found.items())
            if not name.startswith("__saved_model")  # what TensorFlow itself runs
        }

    def versions(self) -> dict[int, str]:
        """State by version: `AVAILABLE`, `LOADING`, `END` (refused) and so on."""
        return self._retried(self._transport.versions)

    def _retried(self, call: Callable[[float], object]):
        """Tries a call until its time is up, waiting longer each time, by chance, so that clients do not come back all
        at once. The call is told when that is, in monotonic seconds: whatever it does, it has no more."""
        end = time.monotonic() + self._timeout
        wait = 0.05
        for left in reversed(range(self._tries)):
            try:
                return call(end)
            except RequestError as error:
                pause = wait * (0.5 + random.random())
                if error.code not in _PASSING or not left or time.monotonic() + pause >= end:
                    raise
            time.sleep(pause)
            wait *= 2


def _classified(said, names, probabilities) -> list[Classified]:
    return [
        Classified(
            [label.decode() for label in labels if label],
            {name.decode(): float(share) for name, share in zip(*of_text, strict=True)},
        )
        for labels, *of_text in zip(said, names, probabilities, strict=True)
    ]


class _Grpc:
    def __init__(self, target, model, version, label, root_certificates):
        import grpc

        from serving.protocol import protos, tensors

        self._grpc, self._protos, self._tensors = grpc, protos, tensors
        self._target = target
        self._spec = {"name": model} | ({"version": {"value": version}} if version is not None else {})
        self._spec |= {"version_label": label} if label is not None else {}
        options = [("grpc.max_receive_message_length", -1), ("grpc.enable_retries", 0)]
        if root_certificates is None:
            self._channel = grpc.insecure_channel(target, options)
        else:
            self._channel = grpc.secure_channel(target, grpc.ssl_channel_credentials(root_certificates), options)
        self._predict = self._method(protos.PREDICT, protos.PredictResponse)
        self._metadata = self._method(protos.GET_MODEL_METADATA, protos.GetModelMetadataResponse)
        self._status = self._method(protos.GET_MODEL_STATUS, protos.GetModelStatusResponse)

    def predict(self, signature, inputs: Mapping[str, np.ndarray], end) -> Arrays:
        request = self._protos.PredictRequest(model_spec={**self._spec, "signature_name": signature})
        for name, array in inputs.items():
            self._tensors.to_proto(array, request.inputs[name])
        response = self._called(self._predict, request, end)
        return {name: self._tensors.from_proto(proto) for name, proto in response.outputs.items()}

    def signatures(self, end) -> _Signatures:
        request = self._protos.GetModelMetadataRequest(model_spec=self._spec, metadata_field=["signature_def"])
        packed = self._called(self._metadata, request, end).metadata["signature_def"]
        found = self._protos.SignatureDefMap.FromString(packed.value).signature_def
        return {name: (signature.inputs, signature.outputs) for name, signature in found.items()}

    def versions(self, end) -> dict[int, str]:
        names = {0: "UNKNOWN", 10: "START", 20: "LOADING", 30: "AVAILABLE", 40: "UNLOADING", 50: "END"}
        request = self._protos.GetModelStatusRequest(model_spec=self._spec)
        response = self._called(self._status, request, end)
        return {status.version: names.get(status.state, "UNKNOWN") for status in response.model_version_status}

    def close(self):
        self._channel.close()

    def _method(self, path, response):
        return self._channel.unary_unary(
            path,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=response.FromString,
        )

    def _called(self, method, request, end):
        try:
            return method(request, timeout=_left(end))
        except ValueError:  # of a closed channel
            raise RequestError(Code.CANCELLED, _CLOSED) from None
        except self._grpc.RpcError as error:
            known = error.code().name in Code.__members__
            code = Code[error.code().name] if known else Code.UNKNOWN
            raise RequestError(code, error.details() or f"no answer from {self._target}") from None


class _Rest:
    def __init__(self, target, model, version, label, root_certificates):
        try:
            parts = urllib.parse.urlsplit(target)
            self._host, self._port, self._prefix = parts.hostname, parts.port, parts.path.rstrip("/")
        except ValueError as error:
            raise InputError(f"{target}: no address of a server ({error})") from None
        if not self._host:
            raise InputError(f"{target}: no address of a server (it names no host)")
        self._tls = None
        if parts.scheme == "https":
            cadata = root_certificates.decode() if root_certificates else None
            self._tls = ssl.create_default_context(cadata=cadata)
        self._path = f"{self._prefix}/v1/models/{urllib.parse.quote(model)}"
        if version is not None:
            self._path += f"/versions/{version}"
        elif label is not None:
            self._path += f"/labels/{urllib.parse.quote(label)}"
        self._mine = threading.local()  # a connection per thread, kept open
        self._all: weakref.WeakSet[http.client.HTTPConnection] = weakref.WeakSet()  # those of a thread end with it
        self._closed = False
        self._lock = threading.Lock()

    def predict(self, signature, inputs: Mapping[str, np.ndarray], end) -> Arrays:
        body = {
            "signature_name": signature,
            "inputs": {name: golden.encoded(array.tolist()) for name, array in inputs.items()},
        }
        answer = self._asked("POST", f"{self._path}:predict", json.dumps(body).encode(), end)
        with self._understood():
            outputs = answer["outputs"]
            if not isinstance(outputs, dict):  # a single output has no name in JSON: ask for it
                (name,) = self.signatures(end)[signature][1]
                outputs = {name: outputs}
            return {name: _from_json(values) for name, values in outputs.items()}

    def signatures(self, end) -> _Signatures:
        answer = self._asked("GET", f"{self._path}/metadata", None, end)
        with self._understood():
            found = answer["metadata"]["signature_def"]["signature_def"]
            return {name: (dict(one["inputs"]), dict(one["outputs"])) for name, one in found.items()}

    def versions(self, end) -> dict[int, str]:
        answer = self._asked("GET", self._path, None, end)
        with self._understood():
            return {int(status["version"]): status["state"] for status in answer["model_version_status"]}

    def close(self):
        with self._lock:
            self._closed = True
            for connection in self._all:
                if connection.sock is not None:
                    with contextlib.suppress(OSError):
                        connection.sock.shutdown(socket.SHUT_RDWR)  # whoever waits for an answer is told
                connection.close()

    @contextlib.contextmanager
    def _understood(self):
        """Whatever is missing in an answer, or of another type, it is not that of such a server."""
        try:
            yield
        except (LookupError, TypeError, ValueError, AttributeError):
            raise RequestError(
                Code.UNKNOWN, f"{self._host}:{self._port} did not answer as TensorFlow Serving does"
            ) from None

    def _asked(self, method, path, body, end):
        reused = getattr(self._mine, "connection", None) is not None
        try:
            status, content = self._exchange(method, path, body, end)
        except Exception as error:
            if connection := getattr(self._mine, "connection", None):
                connection.close()
                self._mine.connection = None
            if self._closed:  # under the call's feet: anything may have failed
                raise RequestError(Code.CANCELLED, _CLOSED) from None
            if isinstance(error, TimeoutError):
                raise RequestError(Code.DEADLINE_EXCEEDED, f"no answer from {self._host} in time") from None
            if not isinstance(error, OSError | http.client.HTTPException):
                raise
            if reused:  # the server closes connections that were idle for long
                return self._asked(method, path, body, end)
            said = error if isinstance(error, OSError) else f"did not answer in HTTP ({type(error).__name__})"
            raise RequestError(Code.UNAVAILABLE, f"{self._host}:{self._port}: {said}") from None
        try:
            answer = json.loads(content)
        except (ValueError, RecursionError):
            raise RequestError(
                Code.UNKNOWN, f"{self._host}:{self._port} did not answer in JSON (HTTP {status})"
            ) from None
        if status != 200:
            code = next((code for code in Code if code.http_status == status), _CODES.get(status, Code.UNKNOWN))
            message = answer.get("error") if isinstance(answer, dict) else None
            raise RequestError(code, message if isinstance(message, str) else content[:200].decode("utf-8", "replace"))
        return answer

    def _exchange(self, method, path, body, end):
        connection = getattr(self._mine, "connection", None)
        if connection is None:
            if self._tls:
                connection = http.client.HTTPSConnection(self._host, self._port, context=self._tls)
            else:
                connection = http.client.HTTPConnection(self._host, self._port)
            with self._lock:
                if self._closed:
                    raise OSError
                self._mine.connection = connection
                self._all.add(connection)
        connection.response_class = lambda sock, **options: http.client.HTTPResponse(
            _Until(end, sock),  # type: ignore[arg-type]  # all that it wants of a socket is `makefile`
            **options,
        )
        connection.timeout = _left(end)
        if connection.sock is None:
            connection.connect()
        connection.sock.settimeout(_left(end))
        connection.request(method, path, body, {"Content-Type": "application/json"})
        with contextlib.closing(connection.getresponse()) as response:
            pieces = []
            while piece := response.read(_PIECE):  # never as much at once as a server says that it will send
                pieces.append(piece)
            if response.length:
                raise http.client.IncompleteRead(b"", response.length)
            return response.status, b"".join(pieces)


class _Until(io.RawIOBase):
    """What comes from a socket until a deadline. A socket's own timeout begins anew with every byte."""

    def __init__(self, end, sock):
        self._end, self._sock, self._file = end, sock, sock.makefile("rb", buffering=0)

    def makefile(self, mode):
        return io.BufferedReader(self)

    def readable(self):
        return True

    def readinto(self, buffer):
        self._sock.settimeout(_left(self._end))
        return self._file.readinto(buffer)

    def close(self):
        self._file.close()
        super().close()


class _Folder:
    def __init__(self, folder, model, version, label):
        if label is not None:
            raise InputError("version labels are a server's; name the version")
        from serving.engine import versions

        if (folder / "saved_model.pb").is_file():
            number, path = 1, folder
        else:
            found = versions.on_disk(folder)
            if version is None:
                version = max(found, default=None)
            if version not in found:
                raise InputError(
                    f"{folder}: not host:port, no http:// address, and no folder with version {version or '1, 2, ...'}"
                )
            number, path = version, found[version]
        from serving.engine.loaded_model import LoadedModel

        self._number = number
        try:
            self._model = LoadedModel(model, number, path)
        except Exception as error:  # TensorFlow raises many kinds
            raise InputError(f"{path}: cannot be loaded: {(str(error).splitlines() or ['?'])[0]}") from None

    def predict(self, signature, inputs, end) -> Arrays:
        found = self._model.signature(signature)
        found.checked(inputs)
        return found(inputs)

    def signatures(self, end) -> _Signatures:
        return {name: (one.inputs, one.outputs) for name, one in self._model.signatures.items()}

    def versions(self, end) -> dict[int, str]:
        return {self._number: "AVAILABLE"}

    def close(self):
        pass


def _left(end: float) -> float:
    """Seconds until a deadline. Raises RequestError when it is over."""
    seconds = end - time.monotonic()
    if seconds <= 0:
        raise RequestError(Code.DEADLINE_EXCEEDED, "no answer in time")
    return seconds


def _array(values) -> np.ndarray:
    if isinstance(values, np.ndarray):
        return values
    if isinstance(values, str | bytes):
        raise TypeError("a list of texts is needed, not one text")
    array = np.empty(len(values), object)
    array[:] = [value.encode() if isinstance(value, str) else value for value in values]
    return array


def _from_json(values) -> np.ndarray:
    """float32, int64, bool or object array of bytes; JSON does not say which width."""
    if any(isinstance(leaf, str | dict) for leaf in _leaves(values)):
        return np.array(golden.decoded(values), object)
    array = np.array(values)
    if array.dtype.kind not in "fiub":
        raise ValueError(f"no numbers: {array.dtype}")
    return array.astype(np.float32) if array.dtype.kind == "f" or not array.size else array


def _leaves(nested):
    if isinstance(nested, list):
        for item in nested:
            yield from _leaves(item)
    else:
        yield nested
