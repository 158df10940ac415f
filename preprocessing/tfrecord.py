"""The TFRecord file format: length, its checksum, data, its checksum; all little-endian.

Written and read here by the batch, on any file object; TensorFlow's own writer takes local paths and one record a call.
"""

import functools
import struct
from collections.abc import Iterable, Iterator
from typing import BinaryIO

import google_crc32c


def masked_crc(data: bytes) -> int:
    """CRC-32C, rotated and offset, so that a file that holds checksums has one that differs."""
    crc = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


@functools.lru_cache(maxsize=4096)
def _header(length: int) -> bytes:
    packed = struct.pack("<Q", length)
    return packed + struct.pack("<I", masked_crc(packed))


def frame(records: Iterable[bytes]) -> bytes:
    """The records as they stand in a file."""
    parts: list[bytes] = []
    for record in records:
        parts += _header(len(record)), record, masked_crc(record).to_bytes(4, "little")
    return b"".join(parts)


def is_header(data: bytes) -> bool:
    """Whether a record begins with these 12 bytes."""
    return data == _header(int.from_bytes(data[:8], "little"))


def records(handle: BinaryIO) -> Iterator[bytes]:
    """Records of a file. Raises OSError for one that is broken or cut short."""
    while header := handle.read(12):
        length = int.from_bytes(header[:8], "little")
        if len(header) != 12 or header != _header(length):
            raise OSError("not a TFRecord, or a truncated one")
        record = handle.read(length)
        if len(record) != length or handle.read(4) != struct.pack("<I", masked_crc(record)):
            raise OSError("a truncated or corrupt TFRecord")
        yield record
