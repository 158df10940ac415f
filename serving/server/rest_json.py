"""TensorFlow Serving's JSON: rows (`instances` -> `predictions`) and columns (`inputs` -> `outputs`).

Bytes that are no text travel as `{"b64": "..."}`; outputs whose name ends in `_bytes` come back so. A signature with
one output answers with its values alone. Source: TensorFlow Serving's `api_rest.md`.
"""

import base64
import binascii
import itertools
import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import orjson

from serving.engine.loaded_model import LoadedSignature, Spec
from serving.protocol.errors import Code, RequestError

MAX_DEPTH = 32
PIECE = 1 << 17  # values of an answer that are written at once, in a few milliseconds


def parse(body: bytes) -> dict:
    """The request's object. Raises RequestError."""
    try:
        # NaN and Infinity are not JSON, but what TensorFlow Serving writes it also reads: the slow parser takes them.
        request = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        try:
            request = json.loads(body)
        except (ValueError, RecursionError):
            raise RequestError(Code.INVALID_ARGUMENT, f"JSON Parse error: {error}") from None
    if not isinstance(request, dict):
        raise RequestError(Code.INVALID_ARGUMENT, "the request must be a JSON object")
    if ("instances" in request) == ("inputs" in request):
        raise RequestError(Code.INVALID_ARGUMENT, "a request must have either instances or inputs")
    if not isinstance(request.get("signature_name", ""), str):
        raise RequestError(Code.INVALID_ARGUMENT, "signature_name must be a string")
    return request


def inputs_of(request: Mapping[str, Any], signature: LoadedSignature) -> dict[str, np.ndarray]:
    """The input arrays of a parsed request. Raises RequestError."""
    specs = signature.inputs
    if "inputs" in request:
        columns = request["inputs"]
        if not isinstance(columns, dict) or _is_bytes(columns):
            columns = {_only(specs): columns}
    else:
        rows = request["instances"]
        if not isinstance(rows, list) or not rows:
            raise RequestError(Code.INVALID_ARGUMENT, "instances must be a list that is not empty")
        if isinstance(rows[0], dict) and not _is_bytes(rows[0]):
            names = rows[0].keys()
            for row in rows:
                if not isinstance(row, dict) or row.keys() != names:
                    raise RequestError(Code.INVALID_ARGUMENT, f"all instances must be objects with {sorted(names)}")
            columns = {name: [row[name] for row in rows] for name in names}
        else:
            columns = {_only(specs): rows}
    return {name: _array(name, value, specs.get(name)) for name, value in columns.items()}


def answer(outputs: Mapping[str, np.ndarray], by_rows: bool, rows: int | None) -> Iterator[bytes]:
    """The response's body, a large one in pieces: the event loop must not stand still for seconds, nor be all of it in
    memory. With `by_rows`, `rows` is how many instances were sent.

    Raises RequestError at once if an output has another number of rows."""
    if by_rows:
        for name, array in outputs.items():
            if not array.ndim or len(array) != rows:
                raise RequestError(
                    Code.INVALID_ARGUMENT,
                    f"output {name} has no row for each instance; ask in columns, with inputs instead of instances",
                )
    if sum(array.size for array in outputs.values()) <= PIECE:
        return iter([_small(outputs, by_rows)])
    return _gathered(_pieces(outputs, by_rows))


def _small(outputs, by_rows) -> bytes:
    values = {name: _jsonable(name, array) for name, array in outputs.items()}
    content: Any
    if len(values) == 1:
        content = next(iter(values.values()))
    elif by_rows:
        content = [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]
    else:
        content = values
    return _dumped({"predictions" if by_rows else "outputs": content}, outputs.values())


def _pieces(outputs, by_rows) -> Iterator[bytes]:
    yield b'{"predictions":' if by_rows else b'{"outputs":'
    if len(outputs) == 1:
        ((name, array),) = outputs.items()
        yield from _array_pieces(name, array)
    elif by_rows:
        rows = (
            {name: array[row] for name, array in outputs.items()} for row in range(len(next(iter(outputs.values()))))
        )
        yield from _listed(map(_object_pieces, rows), b"[", b"]")
    else:
        yield from _object_pieces(outputs)
    yield b"}"


def _object_pieces(values) -> Iterator[bytes]:
    members = (
        itertools.chain([orjson.dumps(name), b":"], _array_pieces(name, value)) for name, value in values.items()
    )
    return _listed(members, b"{", b"}")


def _array_pieces(name, value) -> Iterator[bytes]:
    array = np.asarray(value)
    if array.ndim > 1 and array.size > PIECE:
        return _listed((_array_pieces(name, part) for part in array), b"[", b"]")
    return iter([_dumped(_jsonable(name, array), [array])])


def _listed(members, begin, end) -> Iterator[bytes]:
    yield begin
    for position, pieces in enumerate(members):
        if position:
            yield b","
        yield from pieces
    yield end


def _gathered(pieces) -> Iterator[bytes]:
    """In parts of a megabyte or so."""
    gathered = bytearray()
    for piece in pieces:
        gathered += piece
        if len(gathered) > 1 << 20:
            yield bytes(gathered)
            gathered.clear()
    yield bytes(gathered)


def _dumped(value, arrays) -> bytes:
    if all(array.dtype.kind != "f" or np.isfinite(array).all() for array in arrays):
        return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
    # orjson writes NaN as null; TensorFlow Serving writes NaN.
    return json.dumps(value, default=lambda array: array.tolist(), ensure_ascii=False).encode()


def error(message: str) -> bytes:
    return orjson.dumps({"error": message.encode("utf-8", "replace").decode()})


def _array(name: str, value: Any, spec: Spec | None) -> np.ndarray:
    if spec is None:  # an unknown name: LoadedSignature.checked says so
        return np.zeros(0, object)
    shape: list[int] = []
    level = value
    while isinstance(level, list):
        shape.append(len(level))
        if len(shape) > MAX_DEPTH:
            raise RequestError(Code.INVALID_ARGUMENT, f"input {name} is nested too deeply")
        level = level[0] if level else None
    flat = [value]
    for size in shape:
        if any(not isinstance(inner, list) or len(inner) != size for inner in flat):
            raise RequestError(Code.INVALID_ARGUMENT, f"input {name} must be rectangular: lists of equal lengths")
        flat = [item for inner in flat for item in inner]
    if spec.dtype == object:
        array = np.empty(len(flat), object)
        array[:] = [_bytes(name, item) for item in flat]
    else:
        kinds: Any = {"b": bool, "i": int, "u": int}.get(spec.dtype.kind, (int, float))
        for item in flat:
            if not isinstance(item, kinds) or (isinstance(item, bool) and spec.dtype.kind != "b"):
                raise RequestError(
                    Code.INVALID_ARGUMENT, f"input {name} must be of type {spec.dtype.name}. Received: {_shown(item)}"
                )
        try:
            array = np.array(flat, spec.dtype)
        except OverflowError:
            raise RequestError(Code.INVALID_ARGUMENT, f"input {name} has a number beyond {spec.dtype.name}") from None
    return array.reshape(shape)


def _bytes(name, item) -> bytes:
    if isinstance(item, str):
        try:
            return item.encode()
        except UnicodeEncodeError:
            raise RequestError(Code.INVALID_ARGUMENT, f"input {name} has half a surrogate pair") from None
    if _is_bytes(item) and isinstance(item["b64"], str):
        try:
            encoded = "".join(item["b64"].split())
            return base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
        except (binascii.Error, ValueError):
            raise RequestError(Code.INVALID_ARGUMENT, f"input {name} has a b64 value that is not base64") from None
    raise RequestError(Code.INVALID_ARGUMENT, f"input {name} must be of type string. Received: {_shown(item)}")


def _jsonable(name, array):
    if not array.ndim:
        return _jsonable(name, array.reshape(1))[0]
    if array.dtype.kind not in "OSU":
        return np.ascontiguousarray(array) if array.dtype.kind in "fiub" else array.astype(np.float32)
    if name.endswith("_bytes"):
        return _mapped(lambda item: {"b64": base64.b64encode(item).decode()}, array.tolist())
    return _mapped(lambda item: item.decode("utf-8", "replace") if isinstance(item, bytes) else item, array.tolist())


def _mapped(function, nested):
    return [_mapped(function, item) for item in nested] if isinstance(nested, list) else function(nested)


def _is_bytes(value) -> bool:
    return isinstance(value, dict) and value.keys() == {"b64"}


def _only(specs) -> str:
    if len(specs) != 1:
        raise RequestError(Code.INVALID_ARGUMENT, f"inputs must be named, as there are several: {sorted(specs)}")
    return next(iter(specs))


def _shown(item) -> str:
    return json.dumps(item)[:50]
