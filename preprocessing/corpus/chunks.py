"""Parts of input files to be read apart, and their lines."""

import dataclasses
import re
from collections.abc import Callable, Iterator
from typing import BinaryIO

from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from preprocessing.corpus import compression

BOM = b"\xef\xbb\xbf"

_BLOCK = 1 << 20
_LONE_RETURN = re.compile(rb"\r(?!\r*\n)")


@dataclasses.dataclass(frozen=True)
class Chunk:
    """`start` and `end` are bytes (text), row groups (Parquet), or 0 and None for a whole file. `size`: bytes.
    `returns`: lone carriage returns end lines, like line feeds."""

    index: int
    path: str
    format: str
    start: int = 0
    end: int | None = None
    size: int = 0
    returns: bool = False

    @property
    def limit(self) -> float:
        """Offset at which the chunk ends."""
        return float("inf") if self.end is None else self.end


@dataclasses.dataclass
class Tally:
    """What reading a chunk found. `newlines`: line ends in [start, end), to number lines across chunks."""

    lines: int = 0  # not blank; records where the format has no lines
    bytes: int = 0  # of these
    bad: int = 0
    bad_bytes: int = 0
    nulls: int = 0  # records whose text is null
    returns: int = 0  # carriage returns inside lines
    split: int = 0  # documents over the bound, split
    documents: int = 0
    newlines: int = 0


Refuse = Callable[..., None]  # as a BadLine, and the size where not all of it is given
BadLine = Callable[[int, str, bytes], None]  # line or record from the chunk's start (0-based), reason, its beginning


def open_raw(path: str) -> BinaryIO:
    """Opens a file on any filesystem of Beam's, as it stands."""
    return FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED)


def open_file(path: str, note: Callable[[str], None] = lambda _: None) -> BinaryIO:
    """Opens a file on any filesystem of Beam's, decompressed where its content is compressed, and then not seekable; a
    truncated one raises OSError. `note` is told what is left out."""
    raw = open_raw(path)
    kind = compression.of_head(raw.read(compression.HEAD))
    raw.seek(0)
    return compression.decompressed(raw, kind, note) if kind else raw


class LoneReturns:
    """A text whose lone carriage returns are line feeds, byte for byte. Those before a line feed belong to it."""

    def __init__(self, raw: BinaryIO):
        self._raw, self._ahead = raw, b""
        self.seekable = raw.seekable

    def seek(self, offset: int) -> None:
        self._raw.seek(offset)
        self._ahead = b""

    def read(self, size: int) -> bytes:
        data = self._ahead + self._raw.read(max(size - len(self._ahead), 0))
        data, self._ahead = data[:size], data[size:]
        if data.endswith(b"\r"):  # what stands behind the run that it belongs to?
            while not self._ahead.strip(b"\r") and len(self._ahead) < _BLOCK and (more := self._raw.read(64)):
                self._ahead += more
        return _LONE_RETURN.sub(b"\n", data + self._ahead)[: len(data)]


def lines(handle: BinaryIO, chunk: Chunk, limit: int, tally: Tally) -> Iterator[tuple[int, bytes, int]]:
    """(offset in the file, line, its size) from the chunk's start on; of a line over `limit` bytes, its beginning.
    Counts the line ends within the chunk."""
    offset = read = chunk.start
    carry, dropped = b"", 0
    while block := handle.read(_BLOCK):
        inside = len(block) if read + len(block) <= chunk.limit else max(int(chunk.limit) - read, 0)
        tally.newlines += block.count(b"\n", 0, inside)
        if not read:
            trimmed = block.removeprefix(BOM)
            offset += len(block) - len(trimmed)
            read, block = offset, trimmed
        read += len(block)
        *complete, rest = block.split(b"\n")
        if complete:
            complete[0] = carry + complete[0]
            for line in complete:
                size = len(line) + dropped
                if size > limit:
                    yield offset, line[:limit], size
                    dropped = 0
                else:
                    yield offset, line, size
                offset += size + 1
            carry = rest
        else:
            carry += rest
        if len(carry) > limit:
            dropped += len(carry) - limit
            carry = carry[:limit]
    if carry:
        yield offset, carry, len(carry) + dropped


def decode(line: bytes) -> tuple[str, str]:
    """(text, ""), or ("", the reason why the line is set aside)."""
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        return "", f"not UTF-8 (byte 0x{line[error.start]:02x} at column {error.start + 1})"
    return ("", "contains a NUL character") if "\0" in text else (text, "")
