"""TensorProto to NumPy and back. Works with TensorFlow's class and with that of `protos`, and needs neither.

Strings are object arrays of bytes.
"""

import math

import numpy as np

from serving.protocol.errors import Code, RequestError
from serving.protocol.protos import DATA_TYPES

_NAMES = {number: name for name, number in DATA_TYPES.items()}
_VALUES = {
    "float32": "float_val",
    "float64": "double_val",
    "int32": "int_val",
    "int64": "int64_val",
    "bool": "bool_val",
    "object": "string_val",
}
MAX_RANK = 32  # NumPy's
_EXPANDED = 1 << 24  # bytes that the short form may stand for; it must not buy memory for free
# Field key of packed float_val and double_val: number << 3 | 2.
_PACKED = {"float32": b"\x2a", "float64": b"\x32"}


def from_proto(proto) -> np.ndarray:
    """Raises RequestError for types that no text model takes, and for contents that do not fill the shape."""
    name = _NAMES.get(proto.dtype)
    if name is None:
        raise RequestError(
            Code.INVALID_ARGUMENT,
            f"tensors are of type {', '.join(_VALUES)}. Received: DataType {proto.dtype}".replace("object", "string"),
        )
    shape = tuple(dim.size for dim in proto.tensor_shape.dim)
    if proto.tensor_shape.unknown_rank or any(size < 0 for size in shape):
        raise RequestError(Code.INVALID_ARGUMENT, f"a tensor's shape must be known. Received: {list(shape)}")
    if len(shape) > MAX_RANK or math.prod(max(size, 1) for size in shape) > 1 << 40:
        raise RequestError(Code.INVALID_ARGUMENT, f"no array has that shape. Received: {list(shape)}"[:200])
    size = math.prod(shape)
    if proto.tensor_content:
        if name == "object":
            raise RequestError(Code.INVALID_ARGUMENT, "strings must be in string_val, not in tensor_content")
        dtype = np.dtype(name)
        if len(proto.tensor_content) != size * dtype.itemsize:
            received = f"{len(proto.tensor_content)} bytes"
            raise RequestError(
                Code.INVALID_ARGUMENT, f"tensor_content must fill the shape {list(shape)}. Received: {received}"
            )
        return np.frombuffer(proto.tensor_content, dtype).reshape(shape)
    values = getattr(proto, _VALUES[name])
    if len(values) > size:
        raise RequestError(
            Code.INVALID_ARGUMENT, f"a tensor of shape {list(shape)} needs {size} values. Received: {len(values)}"
        )
    # TensorFlow's short form: the last value, or zero where there is none, stands for the rest.
    last = values[-1] if values else b"" if name == "object" else 0
    width = 8 + len(last) if isinstance(last, bytes) else 8
    if (size - len(values)) * width > _EXPANDED:
        raise RequestError(Code.INVALID_ARGUMENT, f"a tensor of {size} values in short form is too large")
    flat = np.empty(size, name)
    flat[: len(values)] = values
    flat[len(values) :] = [last]
    return flat.reshape(shape)


def to_proto(array: np.ndarray, proto, as_content: bool = False) -> None:
    """Fills an empty TensorProto, in the `*_val` fields as TensorFlow Serving does by default, or, all but strings, in
    `tensor_content`."""
    if array.dtype.kind in "SU":
        array = array.astype(object)
    name = array.dtype.name
    if name not in DATA_TYPES:  # half, bfloat16 (kind V) and small integers are widened
        array = array.astype(np.float32 if array.dtype.kind in "fV" else np.int64)
        name = array.dtype.name
    if as_content and name != "object":
        proto.tensor_content = np.ascontiguousarray(array).tobytes()
    elif name in _PACKED and array.size:
        # Packed floats are the array's own bytes: parsing them is far faster than adding the values one by one.
        raw = np.ascontiguousarray(array).tobytes()
        proto.MergeFromString(_PACKED[name] + _varint(len(raw)) + raw)
    else:
        values = array.ravel().tolist()
        if name == "object":
            values = [value.encode() if isinstance(value, str) else value for value in values]
        getattr(proto, _VALUES[name]).extend(values)
    proto.dtype = DATA_TYPES[name]
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)


def _varint(number):
    parts = bytearray()
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    parts.append(number)
    return bytes(parts)
