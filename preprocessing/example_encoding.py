"""Serialized tf.Examples from arrays, vectorised over a batch, and always the same bytes for the same values.

Protocol buffers leave the order of a map's entries open, and C++ shuffles it anew in every process and every message;
here entries stand in the order of their names, as in Python's `SerializeToString(deterministic=True)`. Each example is
laid out in a row of bytes wide enough for the longest, beside a mask of the bytes in use; taking those out of all rows
at once gives the messages, one after the other.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Used = npt.NDArray[np.bool_]

# Tags of the messages of tensorflow/core/example: field number << 3 | 2 (length-delimited).
_FEATURES = _ENTRY = _KEY = _VALUES = 0x0A
_VALUE, _FLOAT_LIST, _INT64_LIST = 0x12, 0x12, 0x1A


def serialize(columns: Mapping[str, npt.NDArray]) -> list[bytes]:
    """A tf.Example for each row of the columns: float32 [N, n] or integers [N, n] from 0 to 2**28 - 1.

    Raises ValueError for an integer outside of that range.
    """
    entries: list[tuple[Bytes, Used]] = []
    for name in sorted(columns):
        values = columns[name]
        if values.dtype == np.float32:
            parts = [_always(np.ascontiguousarray(values, "<f4").view(np.uint8))]
            kind = _FLOAT_LIST
        else:
            parts = [_varints(values)]
            kind = _INT64_LIST
        for tag in (_VALUES, kind, _VALUE):
            parts = _delimit(tag, parts)
        key = name.encode()
        parts = [_constant(bytes([_KEY, len(key)]) + key, len(values)), *parts]
        entries += _delimit(_ENTRY, parts)
    message = _delimit(_FEATURES, entries)
    data = np.concatenate([part for part, _ in message], axis=1)
    used = np.concatenate([use for _, use in message], axis=1)
    ends = np.cumsum(used.sum(axis=1)).tolist()
    packed = data[used].tobytes()
    return [packed[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)] if ends else []


def _delimit(tag: int, parts: list[tuple[Bytes, Used]]) -> list[tuple[Bytes, Used]]:
    """The parts as one length-delimited field: the tag and their length before them."""
    length = np.sum([use.sum(axis=1) for _, use in parts], axis=0)[:, None]
    return [_constant(bytes([tag]), len(length)), _varints(length), *parts]


def _constant(data: bytes, rows: int) -> tuple[Bytes, Used]:
    return _always(np.broadcast_to(np.frombuffer(data, np.uint8), (rows, len(data))))


def _always(data: Bytes) -> tuple[Bytes, Used]:
    return data, np.ones(data.shape, bool)


def _varints(values: npt.NDArray[np.integer]) -> tuple[Bytes, Used]:
    """Integers [N, n] seven bits at a time, least first; all but the last byte of each have the high bit set."""
    rows, count = values.shape
    largest = int(values.max(initial=0))
    if values.min(initial=0) < 0 or largest >= 1 << 28:
        raise ValueError(f"only integers from 0 to 2**28 - 1 can be written. Received: {values.min()} to {largest}")
    if largest < 128:
        return _always(values.astype(np.uint8))
    width = -(-largest.bit_length() // 7)
    left = values.astype(np.uint32)
    data = np.empty((rows, count, width), np.uint8)
    used = np.empty((rows, count, width), bool)
    for byte in range(width):
        low = (left & np.uint32(0x7F)).astype(np.uint8)
        used[:, :, byte] = left > 0 if byte else True
        left >>= np.uint32(7)
        data[:, :, byte] = low | ((left > 0).astype(np.uint8) << 7)
    return data.reshape(rows, -1), used.reshape(rows, -1)
