"""TensorFlow Serving's REST API, the metrics and the page, as an ASGI application.

Plain ASGI: there are six paths, and a framework's routing costs more than all of the rest.
"""

import asyncio
import importlib.resources
import inspect
import itertools
import logging
import re
import time
from collections.abc import Callable, Iterator

import orjson
from google.protobuf import json_format

from serving.engine.inference import Inference
from serving.engine.loaded_model import LoadedModel
from serving.protocol.errors import Code, RequestError
from serving.server import encoding, rest_json
from serving.server.metadata import METADATA_FIELD, no_examples, signature_def_map
from serving.server.metrics import CONTENT_TYPE, Metrics

log = logging.getLogger(__name__)

_PATH = re.compile(
    r"/v1/models/(?P<model>[^/:]+)(?:/versions/(?P<version>[0-9]{1,19})|/labels/(?P<label>[^/:]+))?"
    r"(?::(?P<verb>\w+)|(?P<metadata>/metadata))?"
)
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
_PAGE_HEADERS = {
    "content-security-policy": "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}
# The same under protobuf's newer name, and the one before version 5.
_NEWER, _OLDER = "always_print_fields_with_no_presence", "including_default_value_fields"
_WITH_DEFAULTS = {_NEWER if _NEWER in inspect.signature(json_format.MessageToDict).parameters else _OLDER: True}

_CORS_HEADERS = {  # TensorFlow Serving's
    "access-control-allow-origin": "*",
    "access-control-allow-methods": "POST, GET",
    "access-control-allow-headers": "Content-Type",
}
_AUTHORITY = re.compile(r"https?://[^/]*", re.IGNORECASE)  # of a target in absolute form, as proxies send it

WATCH_SECONDS = 0.05

Response = tuple[int, str, bytes | Iterator[bytes]]


class RestApi:
    """The application.

    Args:
        inference, metrics: shared with gRPC.
        timeout: seconds a request may take.
        prometheus_path: where the metrics are.
        cors: whether pages from anywhere may ask.
        waiting_rows: for the metrics.
    """

    def __init__(
        self,
        inference: Inference,
        metrics: Metrics,
        *,
        timeout: float,
        prometheus_path: str,
        cors: bool = False,
        waiting_rows: Callable[[], int] = lambda: 0,
    ):
        self._inference = inference
        self._metrics = metrics
        self._timeout = timeout
        self._prometheus_path = prometheus_path
        self._cors = cors
        self._waiting_rows = waiting_rows
        self._page = page_files()

    async def __call__(self, scope, receive, send):
        path, method = _AUTHORITY.sub("", scope["path"], count=1) or "/", scope["method"]
        asked = {name: value.decode("latin-1") for name, value in scope["headers"]}
        headers: dict[str, str] = {}
        body: bytes | Iterator[bytes]
        if path.startswith("/v1/"):
            if self._cors and method == "OPTIONS":
                status, content_type, body = _preflight(asked)
            else:
                status, content_type, body = await self._api(method, path, asked, receive)
            headers = _CORS_HEADERS if self._cors else {}
        elif method not in ("GET", "HEAD"):
            status, content_type, body = 405, "application/json", rest_json.error(f"Method not allowed: {method}")
            headers = {"allow": "GET, HEAD"}
        elif path == self._prometheus_path:
            status, content_type, body = 200, CONTENT_TYPE, self._metrics.text(self._waiting_rows(), self._versions())
        elif path in self._page:
            content_type, body = self._page[path]
            status, headers = 200, _PAGE_HEADERS
        elif path == "/page/models.json":
            status, content_type, body = 200, "application/json", orjson.dumps({"models": self._inference.models.names})
        else:
            status, content_type, body = 404, "application/json", rest_json.error(f"Not found: {method} {path[:200]}")
        start = {"content-type": content_type, **headers}
        if method != "HEAD" and (not isinstance(body, bytes) or len(body) > encoding.LARGE):
            start["vary"] = "accept-encoding"
            if encoding.takes_gzip(asked.get(b"accept-encoding", "")):
                start["content-encoding"] = "gzip"
                body = encoding.gzipped([body] if isinstance(body, bytes) else body)
        if isinstance(body, bytes):
            start["content-length"] = str(len(body))
        if status == 413:  # what the client still sends was not read
            start["connection"] = "close"
        encoded = [(name.encode(), value.encode()) for name, value in start.items()]
        await send({"type": "http.response.start", "status": status, "headers": encoded})
        if not isinstance(body, bytes):
            for piece in body:
                if piece:
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
                await asyncio.sleep(0)  # others have their turn
            body = b""
        await send({"type": "http.response.body", "body": b"" if method == "HEAD" else body})

    async def _api(self, method, path, headers, receive) -> Response:
        try:
            match = _PATH.fullmatch(path)
            if not match or method not in (("POST",) if match["verb"] else ("GET", "HEAD")):
                raise RequestError(Code.INVALID_ARGUMENT, f"Malformed request: {method} {path[:200]}")
            model, version, label = match["model"], match["version"], match["label"]
            number = int(version) if version else None
            if match["verb"]:
                gzip = encoding.is_gzip(headers.get(b"content-encoding", ""))
                body = await self._verb(match["verb"], model, number, label, gzip, receive)
            elif match["metadata"]:
                body = _metadata(self._inference.models.find(model, number, label))
            else:
                body = self._status(model, number, label)
        except RequestError as error:
            return error.code.http_status, "application/json", rest_json.error(error.message)
        except _TooLarge as error:
            return 413, "application/json", rest_json.error(str(error))
        except asyncio.CancelledError:  # the server ends, and has waited for as long as it may
            return 503, "application/json", rest_json.error("the server is shutting down")
        except Exception as error:
            log.exception("a request failed")
            return 500, "application/json", rest_json.error(f"the server failed: {type(error).__name__}")
        return 200, "application/json", body

    async def _verb(self, verb, model, version, label, gzip, receive) -> bytes | Iterator[bytes]:
        if verb in ("classify", "regress"):
            raise RequestError(Code.UNIMPLEMENTED, no_examples(verb))
        if verb != "predict":
            raise RequestError(Code.INVALID_ARGUMENT, f"Malformed request: the verb is :predict. Received: :{verb}")
        start, status, name = time.perf_counter(), "INTERNAL", "unknown"
        read = None
        try:
            async with _timeout(self._timeout):
                read = await self._read(receive, gzip)
                request = rest_json.parse(read)
                signature = self._inference.signature(model, version, label, request.get("signature_name", ""))
                name = signature.model.name
                async with _while_connected(receive):
                    outputs = await self._inference.run(signature, rest_json.inputs_of(request, signature))
            by_rows = "instances" in request
            pieces = rest_json.answer(outputs, by_rows, len(request["instances"]) if by_rows else None)
            first, second = next(pieces), next(pieces, None)
            status = "OK"
            return first if second is None else itertools.chain((first, second), pieces)
        except asyncio.TimeoutError:
            status = "DEADLINE_EXCEEDED"
            late = "no answer" if read is not None else "the request did not come whole"
            raise RequestError(Code.DEADLINE_EXCEEDED, f"{late} within {self._timeout:g} s") from None
        except RequestError as error:
            status = error.code.name
            raise
        except _TooLarge:
            status = "INVALID_ARGUMENT"
            raise
        except asyncio.CancelledError:
            status = "CANCELLED"
            raise
        finally:
            self._metrics.answered(name, "REST", status, time.perf_counter() - start)

    async def _read(self, receive, gzip) -> bytes:
        """The body. Raises _TooLarge before more than the bound is in memory, as it came or as it opens."""
        limit = self._inference.limits.message_bytes
        chunks, came, size = [], 0, 0
        gunzip = encoding.Gunzip() if gzip else None
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise RequestError(Code.CANCELLED, "the client has gone")
            chunk = message.get("body", b"")
            came += len(chunk)
            for part in gunzip.opened(chunk) if gunzip else (chunk,):
                size += len(part)
                if max(came, size) > limit:
                    raise _TooLarge(f"a request may have {limit} bytes")
                chunks.append(part)
            if not message.get("more_body"):
                if gunzip:
                    gunzip.end()
                return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def _status(self, model, version, label) -> bytes:
        statuses = [
            {
                "version": str(number),
                "state": state.name,
                "status": {"error_code": "UNKNOWN" if message else "OK", "error_message": message},
            }
            for number, state, message in self._inference.models.status(model, version, label)
        ]
        return orjson.dumps({"model_version_status": statuses}, option=orjson.OPT_INDENT_2)

    def _versions(self):
        models = self._inference.models
        return [
            (name, number)
            for name in models.names
            for number, state, _ in models.status(name)
            if state.name == "AVAILABLE"
        ]


def _preflight(headers) -> Response:
    """What a browser asks before a page's request to another host."""
    if headers.get(b"origin", "").startswith(("http://", "https://")):
        return 200, "application/json", b""
    return 400, "application/json", rest_json.error("Origin header is missing in CORS preflight")


class _TooLarge(Exception):
    pass


class _timeout:
    """`asyncio.timeout` of Python 3.11: cancels the task after so many seconds and raises asyncio.TimeoutError.
    Unlike `asyncio.wait_for` it needs no task of its own."""

    def __init__(self, seconds: float):
        self._seconds = seconds
        self._over = False

    async def __aenter__(self):
        self._handle = asyncio.get_running_loop().call_later(self._seconds, self._end, asyncio.current_task())

    def _end(self, task):
        self._over = True
        task.cancel()

    async def __aexit__(self, kind, error, traceback):
        self._handle.cancel()
        if self._over and kind is asyncio.CancelledError:
            raise asyncio.TimeoutError


class _while_connected:
    """Cancels the task when its client goes, and raises RequestError: who waits in a queue is not answered then. Those
    who are answered soon are not watched, as that would cost them more than it saves."""

    def __init__(self, receive):
        self._receive = receive
        self._gone = False
        self._watch = None

    async def __aenter__(self):
        self._timer = asyncio.get_running_loop().call_later(WATCH_SECONDS, self._begin, asyncio.current_task())

    def _begin(self, task):
        self._watch = asyncio.create_task(self._until_gone(task))

    async def _until_gone(self, task):
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._gone = True
        task.cancel()

    async def __aexit__(self, kind, error, traceback):
        self._timer.cancel()
        if self._watch is not None:
            self._watch.cancel()
        if self._gone and kind is asyncio.CancelledError:
            raise RequestError(Code.CANCELLED, "the client has gone")


def page_files() -> dict[str, tuple[str, bytes]]:
    """{path: (content type, bytes)} of the page. Read once: no path of a request is ever looked up on disk."""
    found = {}
    for entry in importlib.resources.files("serving").joinpath("page").iterdir():
        suffix = "." + entry.name.rpartition(".")[2]
        if suffix in _TYPES:
            found["/" if entry.name == "index.html" else f"/page/{entry.name}"] = (_TYPES[suffix], entry.read_bytes())
    return found


def _metadata(model: LoadedModel) -> bytes:
    definitions = json_format.MessageToDict(
        signature_def_map(model), preserving_proto_field_name=True, **_WITH_DEFAULTS
    )
    return orjson.dumps(
        {
            "model_spec": {"name": model.name, "signature_name": "", "version": str(model.version)},
            "metadata": {METADATA_FIELD: definitions},
        },
        option=orjson.OPT_INDENT_2,
    )
