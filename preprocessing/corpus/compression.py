"""Compressed files, told by their content: gzip, bzip2, Zstandard."""

import io
import zlib
from collections.abc import Callable
from typing import BinaryIO

import pyarrow as pa

_MAGIC = {"gzip": (b"\x1f\x8b\x08",), "bz2": tuple(b"BZh%d1AY&SY" % level for level in range(1, 10)),
          "zstd": (b"\x28\xb5\x2f\xfd",)}  # fmt: skip
HEAD = 10  # bytes, enough to tell
_BLOCK = 1 << 18


def of_head(head: bytes) -> str | None:
    """The compression of a file that begins so."""
    return next((name for name, beginnings in _MAGIC.items() if head.startswith(beginnings)), None)


def decompressed(raw: BinaryIO, kind: str, note: Callable[[str], None]) -> BinaryIO:
    """The content of a compressed file, not seekable; one that is cut short raises OSError. `note` is told what is
    left out."""
    if kind == "gzip":
        return io.BufferedReader(_Gunzip(raw, note), _BLOCK)
    # Arrow's stream complains of a truncated file, which Beam's own reader takes for whole.
    return pa.CompressedInputStream(pa.PythonFile(raw), kind)


class _Gunzip(io.RawIOBase):
    """The members of a gzip file, one after the other. As for `gzip` itself, zeros behind the last one are padding,
    and anything else there is left out with a word."""

    def __init__(self, raw: BinaryIO, note: Callable[[str], None]):
        self._raw, self._note = raw, note
        self._pending, self._decoder = b"", zlib.decompressobj(31)
        self._ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        size = len(buffer)
        while not self._ended:
            if self._decoder.eof:
                self._next_member()
                continue
            self._pending = self._pending or self._raw.read(_BLOCK)
            if not self._pending:
                raise OSError("the gzip file is cut short")
            try:
                data = self._decoder.decompress(self._pending, size)
            except zlib.error as error:
                raise OSError(f"the gzip file is damaged ({error})") from error
            self._pending = self._decoder.unused_data if self._decoder.eof else self._decoder.unconsumed_tail
            if data:
                buffer[: len(data)] = data
                return len(data)
        return 0

    def _next_member(self) -> None:
        padding = True
        while padding:
            self._pending = self._pending.lstrip(b"\0") or self._raw.read(_BLOCK)
            padding = self._pending[:1] == b"\0"
        self._pending += self._raw.read(len(_MAGIC["gzip"][0])) if len(self._pending) < 3 else b""
        self._ended = not self._pending.startswith(_MAGIC["gzip"])
        if self._ended and self._pending:
            self._note("what stands behind the last gzip member is left out, as gzip does")
        self._decoder = zlib.decompressobj(31)

    def close(self) -> None:
        self._raw.close()
        super().close()
