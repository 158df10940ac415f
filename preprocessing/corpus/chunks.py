"""Parts of input files to be read apart, and their lines."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import BinaryIO

import pyarrow as pa
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

COMPRESSIONS = {".gz": "gzip", ".gzip": "gzip", ".bz2": "bz2", ".zst": "zstd", ".zstd": "zstd"}
BOM = b"\xef\xbb\xbf"

_BLOCK = 1 << 20


@dataclasses.dataclass(frozen=True)
class Chunk:
    """`start` and `end` are bytes (text), row groups (Parquet), or 0 and None for a whole file. `size`: bytes."""

    index: int
    path: str
    format: str
    start: int = 0
    end: int | None = None
    size: int = 0

    @property
    def limit(self) -> float:
        """Offset at which the chunk ends."""
        return float("inf") if self.end is None else self.end


@dataclasses.dataclass
class Tally:
    """What reading a chunk found. `newlines`: line ends in [start, end), to number lines across chunks."""

    lines: int = 0  # not blank; records where the format has no lines
    bad: int = 0
    split: int = 0  # documents over the bound, split
    documents: int = 0
    newlines: int = 0


BadLine = Callable[[int, str, bytes], None]  # line or record from the chunk's start (0-based), reason, its beginning


def open_file(path: str) -> BinaryIO:
    """Opens a file on any filesystem of Beam's, decompressed by its ending; a truncated one raises OSError."""
    raw = FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED)
    compression = compression_of(path)
    # Arrow's stream complains of a truncated file, which Beam's own reader takes for whole.
    return pa.CompressedInputStream(pa.PythonFile(raw), compression) if compression else raw


def compression_of(path: str) -> str | None:
    return next((name for ending, name in COMPRESSIONS.items() if path.lower().endswith(ending)), None)


def lines(handle: BinaryIO, chunk: Chunk, limit: int, tally: Tally) -> Iterator[tuple[int, bytes, bool]]:
    """(offset in the file, line, whether it is complete) from the chunk's start on; of a line over `limit` bytes, its
    beginning. Counts the line ends within the chunk."""
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
                    yield offset, line[:limit], False
                    dropped = 0
                else:
                    yield offset, line, True
                offset += size + 1
            carry = rest
        else:
            carry += rest
        if len(carry) > limit:
            dropped += len(carry) - limit
            carry = carry[:limit]
    if carry:
        yield offset, carry, not dropped


def decode(line: bytes) -> tuple[str, str]:
    """(text, ""), or ("", the reason why the line is set aside)."""
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        return "", f"not UTF-8 (byte 0x{line[error.start]:02x} at column {error.start + 1})"
    return ("", "contains a NUL character") if "\0" in text else (text, "")
