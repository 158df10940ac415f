"""Documents out of files: one function for each format, reading one chunk of one file.

A chunk is a byte range of an uncompressed text file, a range of row groups of a Parquet file, or a whole file. A
document belongs to the chunk in which it begins, so cutting a file into chunks never changes the documents. Memory is
bounded by the longest line and document of the settings, not by the file.
"""

import json
from collections.abc import Iterable, Iterator

import pyarrow as pa
import pyarrow.parquet
from tfx_bsl.coders.example_coder import ExampleToNumpyDict

from preprocessing import tfrecord
from preprocessing.corpus import plain_text
from preprocessing.corpus.chunks import BadLine, Chunk, Tally, decode, lines, open_file
from preprocessing.errors import InputError
from preprocessing.settings import CorpusSettings

SPLITTABLE = ("sentences", "paragraphs", "jsonl")  # by byte ranges, where not compressed


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


def _read_jsonl(handle, chunk, settings, tally, refuse) -> Iterator[str]:
    """A JSON object on each line, its text in the field `text_field`."""
    at_line_start = True
    if chunk.start:
        handle.seek(chunk.start - 1)
        at_line_start = handle.read(1) == b"\n"
    for number, (offset, line, complete) in enumerate(lines(handle, chunk, settings.max_line_bytes, tally)):
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
            except UnicodeDecodeError:
                reason = "not UTF-8"
            except json.JSONDecodeError as error:
                reason = f"not JSON ({error})"
            except RecursionError:
                reason = "JSON nested too deeply"
            except ValueError:  # Python's bound on digits
                reason = "JSON with an integer of too many digits"
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
            text, reason = decode(value) if isinstance(value, bytes) else (value, "")
            raw = value if isinstance(value, bytes) else b""
            yield from _record(text, reason, raw, number, settings, tally, refuse)


def check_column(file: pyarrow.parquet.ParquetFile, path: str, name: str) -> None:
    """Raises InputError unless the Parquet file has a column of text of that name."""
    columns = file.schema_arrow.names
    if name not in columns:
        raise InputError(f"{path}: no column {name!r}. Its columns: {', '.join(columns)}. Name one with --text-field")
    if columns.count(name) > 1:
        raise InputError(f"{path}: only one column may be named {name!r}. Its columns: {', '.join(columns)}")
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
                text, reason = decode(values[0])
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
        refuse(number, reason, raw or text.encode())
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
    "sentences": plain_text.read,
    "paragraphs": plain_text.read,
    "document": plain_text.read,
    "jsonl": _read_jsonl,
    "parquet": _read_parquet,
    "tfrecord": _read_tfrecord,
}
