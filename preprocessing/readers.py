"""Documents out of files: one function for each format, reading one chunk of one file.

A chunk is a byte range of an uncompressed text file, a range of row groups of a Parquet file, or a whole file. A
document belongs to the chunk in which it begins, so cutting a file into chunks never changes the documents. Memory is
bounded by the longest line and document of the settings, not by the file.
"""

import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems
from tfx_bsl.coders.example_coder import ExampleToNumpyDict

from preprocessing import tfrecord
from preprocessing.errors import InputError
from preprocessing.settings import CorpusSettings

SPLITTABLE = ("sentences", "paragraphs", "jsonl")  # by byte ranges, where not compressed
COMPRESSIONS = {".gz": "gzip", ".gzip": "gzip", ".bz2": "bz2", ".zst": "zstd", ".zstd": "zstd"}

_BLOCK = 1 << 20
_BLANKS = b" \t\r\x0b\x0c"
_BOM = b"\xef\xbb\xbf"


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


def read_texts(chunk: Chunk, settings: CorpusSettings, tally: Tally, set_aside: BadLine) -> Iterator[str]:
    """Texts of the documents that begin in `chunk`: lines stripped, none blank, joined by line ends.

    Bad lines (not UTF-8, NUL, oversized, broken JSON) go to `set_aside` and are left out. Raises InputError for a file
    that cannot be read.
    """

    def refuse(line: int, reason: str, data: bytes) -> None:
        tally.bad += 1
        set_aside(line, reason, data)

    try:
        with open_file(chunk.path) as handle:
            for text in _READERS[chunk.format](handle, chunk, settings, tally, refuse):
                tally.documents += 1
                yield text
    except InputError:
        raise
    except (OSError, EOFError, ValueError, pa.ArrowException) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise InputError(
            f"{chunk.path}: cannot be read as {chunk.format}: {reason}. Replace or remove the file, or name its format"
        ) from error


def open_file(path: str) -> BinaryIO:
    """Opens a file on any filesystem of Beam's, decompressed by its ending; a truncated one raises OSError."""
    raw = FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED)
    compression = compression_of(path)
    # Arrow's stream complains of a truncated file, which Beam's own reader takes for whole.
    return pa.CompressedInputStream(pa.PythonFile(raw), compression) if compression else raw


def compression_of(path: str) -> str | None:
    return next((name for ending, name in COMPRESSIONS.items() if path.endswith(ending)), None)


def _lines(handle: BinaryIO, chunk: Chunk, limit: int, tally: Tally) -> Iterator[tuple[int, bytes, bool]]:
    """(offset in the file, line, whether it is complete) from the chunk's start on; of a line over `limit` bytes, its
    beginning. Counts the line ends within the chunk."""
    offset = read = chunk.start
    carry, dropped = b"", 0
    while block := handle.read(_BLOCK):
        inside = len(block) if read + len(block) <= chunk.limit else max(int(chunk.limit) - read, 0)
        tally.newlines += block.count(b"\n", 0, inside)
        if not read:
            trimmed = block.removeprefix(_BOM)
            offset += len(block) - len(trimmed)
            read, block = offset, trimmed
        read += len(block)
        *lines, rest = block.split(b"\n")
        if lines:
            lines[0] = carry + lines[0]
            for line in lines:
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


def _decode(line: bytes) -> tuple[str, str]:
    """(text, ""), or ("", the reason why the line is set aside)."""
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        return "", f"not UTF-8 (byte 0x{line[error.start]:02x} at column {error.start + 1})"
    return ("", "contains a NUL character") if "\0" in text else (text, "")


class _Document:
    """Gathers the lines of one document; gives its texts, several where it exceeds the bound."""

    def __init__(self, settings: CorpusSettings, tally: Tally, refuse: BadLine):
        self._settings, self._tally, self._refuse = settings, tally, refuse
        self._lines: list[bytes] = []
        self._numbers: list[int] = []
        self._size = 0
        self._parts = 0

    def add(self, number: int, line: bytes) -> str:
        """Takes a line. Gives the text of the lines before it where that would exceed the bound with it, else ""."""
        full = ""
        if self._size + len(line) > self._settings.max_document_bytes and self._lines:
            full = self._flush()
        self._lines.append(line)
        self._numbers.append(number)
        self._size += len(line) + 1
        return full

    def close(self) -> str:
        """The text of the lines since the last one given, and a fresh start."""
        text = self._flush()
        self._tally.split += self._parts > 1
        self._parts = 0
        return text

    def _flush(self) -> str:
        text, reason = _decode(b"\n".join(self._lines))
        if reason:
            good = []
            for number, line in zip(self._numbers, self._lines, strict=True):
                text, reason = _decode(line)
                if reason:
                    self._refuse(number, reason, line)
                else:
                    good.append(text)
            text = "\n".join(good)
        self._lines, self._numbers, self._size = [], [], 0
        text = "" if text.isspace() else text
        self._parts += bool(text)
        return text


def _read_text(handle, chunk, settings, tally, refuse) -> Iterator[str]:
    """Plain text: blank lines (nothing but ASCII white space) part documents. A document begins at its first character
    that is not blank."""
    whole_file = chunk.format == "document"
    limit = chunk.limit
    fresh, at_line_start = _before(handle, chunk.start)  # may a document begin here
    if chunk.start:
        handle.seek(chunk.start)
    document = _Document(settings, tally, refuse)
    inside = False  # a document of ours
    for number, (offset, line, complete) in enumerate(_lines(handle, chunk, settings.max_line_bytes, tally)):
        if not inside and offset >= limit:
            break
        if not number and not at_line_start:
            continue  # the rest of a line that begins in an earlier chunk
        stripped = line.strip(_BLANKS)
        if not stripped:
            fresh = True
            if inside and not whole_file:
                inside = False
                if text := document.close():
                    yield text
            continue
        if not inside:
            if not fresh:
                continue
            if offset + len(line) - len(line.lstrip(_BLANKS)) >= limit:
                break
            inside, fresh = True, False
        tally.lines += 1
        if not complete:
            refuse(number, f"longer than {settings.max_line_bytes:,} bytes (max_line_bytes)", stripped)
        elif text := document.add(number, stripped):
            yield text
    if inside and (text := document.close()):
        yield text


def _before(handle, start: int) -> tuple[bool, bool]:
    """Whether a blank line or nothing at all stands before `start` of a plain text, and whether nothing but blanks
    stands before it on its line."""
    newlines = 0
    while start:
        step = min(start, 4096)
        handle.seek(start - step)
        before = handle.read(step)
        kept = before.rstrip(_BLANKS + b"\n")
        newlines += before.count(b"\n", len(kept))
        if kept:
            return newlines >= 2, newlines >= 1
        start -= step
    return True, True


def _read_jsonl(handle, chunk, settings, tally, refuse) -> Iterator[str]:
    """A JSON object on each line, its text in the field `text_field`."""
    at_line_start = True
    if chunk.start:
        handle.seek(chunk.start - 1)
        at_line_start = handle.read(1) == b"\n"
    for number, (offset, line, complete) in enumerate(_lines(handle, chunk, settings.max_line_bytes, tally)):
        if offset >= chunk.limit:
            break
        if (not number and not at_line_start) or not line.strip():
            continue
        tally.lines += 1
        text, reason = "", ""
        if not complete:
            reason = f"longer than {settings.max_line_bytes:,} bytes (max_line_bytes)"
        else:
            try:
                record = json.loads(line)
            except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
                reason = f"not JSON ({error})" if isinstance(error, json.JSONDecodeError) else "not UTF-8"
            else:
                value = record.get(settings.text_field) if isinstance(record, dict) else None
                text = value if isinstance(value, str) else ""
                reason = "" if isinstance(value, str) else f"no text in a field {settings.text_field!r}"
        yield from _record(text, reason, line, number, settings, tally, refuse)


def _read_parquet(handle, chunk, settings, tally, refuse) -> Iterator[str]:
    """A text in each row of the column `text_field`."""
    file = pyarrow.parquet.ParquetFile(handle)
    check_column(file, chunk.path, settings.text_field)
    groups = range(chunk.start, file.num_row_groups if chunk.end is None else chunk.end)
    rows: Iterable = (
        value.as_py()
        for batch in file.iter_batches(1000, row_groups=list(groups), columns=[settings.text_field])
        for value in batch.column(0)
    )
    for number, value in enumerate(rows):
        tally.newlines += 1
        if value is not None:
            tally.lines += 1
            text, reason = _decode(value) if isinstance(value, bytes) else (value, "")
            yield from _record(text, reason, b"", number, settings, tally, refuse)


def check_column(file: pyarrow.parquet.ParquetFile, path: str, name: str) -> None:
    """Raises InputError unless the Parquet file has a column of text of that name."""
    columns = file.schema_arrow.names
    if name not in columns:
        raise InputError(f"{path}: no column {name!r}. Its columns: {', '.join(columns)}. Name one with --text-field")
    kind = file.schema_arrow.field(name).type
    if not any(test(kind) for test in (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary)):
        raise InputError(f"{path}: column {name!r} must hold text. Received: {kind}")


def _read_tfrecord(handle, chunk, settings, tally, refuse) -> Iterator[str]:
    """A tf.Example in each record, its text in the bytes feature `text_field`."""
    for number, record in enumerate(tfrecord.records(handle)):
        tally.lines += 1
        tally.newlines += 1
        text, reason = "", ""
        try:
            values = ExampleToNumpyDict(record).get(settings.text_field)
        except (ValueError, RuntimeError):
            reason = "not a tf.Example"
        else:
            if values is None or not len(values) or not isinstance(values[0], bytes):
                reason = f"no text in a feature {settings.text_field!r}"
            else:
                text, reason = _decode(values[0])
        yield from _record(text, reason, record, number, settings, tally, refuse)


def _record(text, reason, raw, number, settings, tally, refuse) -> Iterator[str]:
    """The texts of one record: in pieces, cut at white space, where it exceeds the bound."""
    if not reason and "\0" in text:
        reason = "contains a NUL character"
    if not reason and not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            reason = "not Unicode (a lone surrogate)"
    if reason:
        refuse(number, reason, raw)
        return
    bound = settings.max_document_bytes
    parts = 0
    while text:
        # A character takes up to four bytes: measure only where it may matter.
        stop = len(text)
        if stop * (1 if text.isascii() else 4) > bound:
            stop = len(text.encode()[:bound].decode(errors="ignore")) or 1
            if stop < len(text):
                blank = max(text.rfind("\n", 0, stop), text.rfind(" ", 0, stop))
                stop = blank + 1 if blank > 0 else stop
        lines = [line for piece in text[:stop].split("\n") if (line := piece.strip())]
        text = text[stop:]
        if lines:
            parts += 1
            yield "\n".join(lines)
    tally.split += parts > 1


_READERS = {
    "sentences": _read_text,
    "paragraphs": _read_text,
    "document": _read_text,
    "jsonl": _read_jsonl,
    "parquet": _read_parquet,
    "tfrecord": _read_tfrecord,
}
