"""Serialized tf.Examples from arrays, vectorised over a batch, and always the same bytes for the same values.

Protocol buffers leave the order of a map's entries open, and C++ shuffles it anew in every process and every message;
here entries stand in the order of their names, as in Python's `SerializeToString(deterministic=True)`. Each example is
laid out in a row of bytes wide enough for the longest, beside a mask of the bytes in use; taking those out of all rows
at once gives the messages, one after the other.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

# Tags of the messages of tensorflow/core/example: field number << 3 | 2 (length-delimited).
_FEATURES = _ENTRY = _KEY = _VALUES = 0x0A
_VALUE, _FLOAT_LIST, _INT64_LIST = 0x12, 0x12, 0x1A


class _Part(NamedTuple):
    """Some bytes of each of N messages: uint8 [N, n] (or [1, n] for all alike), which of them are used (None: all), and
    how many in each row, int [N] or one number."""

    data: npt.NDArray[np.uint8]
    used: npt.NDArray[np.bool_] | None
    length: npt.NDArray[np.int64] | int


def serialize(columns: Mapping[str, npt.NDArray]) -> list[bytes]:
    """A tf.Example for each row of the columns: float32 [N, n] or integers [N, n] from 0 to 2**28 - 1.

    Raises ValueError for an integer outside of that range.
    """
    rows = len(next(iter(columns.values())))
    entries: list[_Part] = []
    for name in sorted(columns):
        values = columns[name]
        if values.dtype == np.float32:
            data = np.ascontiguousarray(values, "<f4").view(np.uint8)
            parts, kind = [_Part(data, None, data.shape[1])], _FLOAT_LIST
        else:
            parts, kind = [_varints(values)], _INT64_LIST
        for tag in (_VALUES, kind, _VALUE):
            parts = _delimit(tag, parts)
        key = name.encode()
        entries += _delimit(_ENTRY, [_constant(bytes([_KEY, len(key)]) + key), *parts])
    message = _delimit(_FEATURES, entries)
    width = sum(part.data.shape[1] for part in message)
    data, used = np.empty((rows, width), np.uint8), np.ones((rows, width), bool)
    at = 0
    for part in message:
        end = at + part.data.shape[1]
        data[:, at:end] = part.data
        if part.used is not None:
            used[:, at:end] = part.used
        at = end
    ends = np.cumsum(np.broadcast_to(_length(message), rows)).tolist()
    packed = data[used].tobytes()
    return [packed[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)] if ends else []


def _length(parts: list[_Part]):
    return sum(part.length for part in parts)


def _delimit(tag: int, parts: list[_Part]) -> list[_Part]:
    """The parts as one length-delimited field: the tag and their length before them."""
    return [_constant(bytes([tag])), _varints(np.reshape(_length(parts), (-1, 1))), *parts]


def _constant(data: bytes) -> _Part:
    return _Part(np.frombuffer(data, np.uint8)[None], None, len(data))


def _varints(values: npt.NDArray[np.integer]) -> _Part:
    """Integers [N, n] seven bits at a time, least first; all but the last byte of each have the high bit set."""
    rows, count = values.shape
    least, most = int(values.min(initial=0)), int(values.max(initial=0))
    if least < 0 or most >= 1 << 28:
        raise ValueError(f"only integers from 0 to 2**28 - 1 can be written. Received: {least} to {most}")
    if most < 128:
        return _Part(values.astype(np.uint8), None, count)
    width = -(-most.bit_length() // 7)
    left = values.astype(np.uint32)
    data = np.empty((rows, count, width), np.uint8)
    used = np.ones((rows, count, width), bool)
    length = np.full(rows, count, np.int64)
    for byte in range(width):
        if byte:
            used[:, :, byte] = left > 0
            length += np.count_nonzero(left, axis=1)
        low = left.astype(np.uint8) & np.uint8(0x7F)
        left >>= np.uint32(7)
        data[:, :, byte] = low | ((left > 0).view(np.uint8) << np.uint8(7))
    return _Part(data.reshape(rows, -1), used.reshape(rows, -1), length)
