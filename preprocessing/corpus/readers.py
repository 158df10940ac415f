"""Documents out of files: one function for each format, reading one chunk of one file.

A chunk is a byte range of an uncompressed text file, a range of row groups of a Parquet file, or a whole file. A
document belongs to the chunk in which it begins, so cutting a file into chunks never changes the documents. Memory is
bounded by the longest line and document of the settings, not by the file.
"""

import json
from collections.abc import Callable, Iterator

import pyarrow as pa
from tfx_bsl.coders.example_coder import ExampleToNumpyDict

from preprocessing import tfrecord
from preprocessing.corpus import json_values, parquet, plain_text
from preprocessing.corpus.chunks import BadLine, Chunk, LoneReturns, Tally, decode, lines, open_file
from preprocessing.errors import InputError
from preprocessing.settings import CorpusSettings

SPLITTABLE = ("sentences", "paragraphs", "jsonl")  # by byte ranges, where not compressed


def read_texts(
    chunk: Chunk,
    settings: CorpusSettings,
    tally: Tally,
    set_aside: BadLine,
    note: Callable[[str], None] = lambda _: None,
) -> Iterator[str]:
    """Texts of the documents that begin in `chunk`: lines stripped, none blank, joined by line ends.

    Bad lines (not UTF-8, NUL, oversized, broken JSON) go to `set_aside` and are left out. Raises InputError for a file
    that cannot be read. `note` is told what else is left out of it.
    """

    def refuse(line: int, reason: str, data: bytes, size: int | None = None) -> None:
        tally.bad += 1
        tally.bad_bytes += len(data) if size is None else size
        set_aside(line, reason, data)

    try:
        for text in _texts(chunk, settings, tally, refuse, note):
            tally.documents += 1
            yield text
    except InputError:
        raise
    except (OSError, EOFError, ValueError, pa.ArrowException) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise InputError(
            f"{chunk.path}: cannot be read as {chunk.format}: {reason}. Replace or remove the file, or name its format"
        ) from error


def _texts(chunk, settings, tally, refuse, note) -> Iterator[str]:
    if chunk.format == "parquet":
        yield from _read_parquet(chunk, settings, tally, refuse)
        return
    with open_file(chunk.path, note) as handle:
        text = LoneReturns(handle) if chunk.returns else handle
        yield from _READERS[chunk.format](text, chunk, settings, tally, refuse)


def _read_jsonl(handle, chunk, settings, tally, refuse) -> Iterator[str]:
    """A JSON object on each line, its text in the field `text_field`."""
    at_line_start = True
    if chunk.start:
        handle.seek(chunk.start - 1)
        at_line_start = handle.read(1) == b"\n"
    for number, (offset, line, size) in enumerate(lines(handle, chunk, settings.max_line_bytes, tally)):
        if offset >= chunk.limit:
            break
        if (not number and not at_line_start) or not line.strip():
            continue
        tally.lines += 1
        tally.bytes += size
        if size > len(line):
            refuse(number, f"longer than {settings.max_line_bytes:,} bytes (max_line_bytes)", line, size)
            continue
        text: str | None = ""
        reason = ""
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
            text, reason = _field(record, settings.text_field)
        if text is None:
            tally.nulls += 1
        else:
            yield from _record(text, reason, line, number, settings, tally, refuse)


def _read_json(handle, chunk, settings, tally, refuse) -> Iterator[str]:
    """JSON objects that need not stand on lines of their own, or an array of them or of strings."""
    for line, size, value in json_values.read(handle, settings.max_line_bytes):
        tally.lines += 1
        tally.bytes += size
        text, reason = (value, "") if isinstance(value, str) else _field(value, settings.text_field)
        if size > settings.max_line_bytes:
            raw = json.dumps(value)[: settings.max_line_bytes].encode()
            refuse(line, f"longer than {settings.max_line_bytes:,} bytes (max_line_bytes)", raw, size)
        elif text is None:
            tally.nulls += 1
        else:
            raw = b"" if text else json.dumps(value).encode()
            yield from _record(text, reason, raw, line, settings, tally, refuse)


def _field(record, name: str) -> tuple[str | None, str]:
    """(text, ""), (None, "") where it is null, or ("", the reason why the record is set aside)."""
    if isinstance(record, dict) and name in record:
        value = record[name]
        return (value, "") if value is None or isinstance(value, str) else ("", f"no text in a field {name!r}")
    return "", f"no text in a field {name!r}"


def _read_parquet(chunk, settings, tally, refuse) -> Iterator[str]:
    """A text in each row of the column `text_field`."""
    for number, value in enumerate(parquet.rows(chunk.path, settings.text_field, chunk.start, chunk.end)):
        tally.newlines += 1
        if value is None:
            tally.nulls += 1
            continue
        tally.lines += 1
        text, reason = decode(value) if isinstance(value, bytes) else (value, "")
        raw = value if isinstance(value, bytes) else value.encode()
        tally.bytes += len(raw)
        yield from _record(text, reason, raw, number, settings, tally, refuse)


def _read_tfrecord(handle, chunk, settings, tally, refuse) -> Iterator[str]:
    """A tf.Example in each record, its text in the bytes feature `text_field`: each value a line, or several."""
    for number, record in enumerate(tfrecord.records(handle)):
        tally.lines += 1
        tally.newlines += 1
        tally.bytes += len(record)
        text, reason = "", ""
        try:
            values = ExampleToNumpyDict(record).get(settings.text_field)
        except (ValueError, RuntimeError):
            reason = "not a tf.Example"
        else:
            if values is None or not len(values) or not isinstance(values[0], bytes):
                reason = f"no text in a feature {settings.text_field!r}"
            else:
                text, reason = decode(b"\n".join(values))
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
        refuse(number, reason, raw or text.encode(errors="backslashreplace"))
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
    "wiki": plain_text.read_wiki,
    "jsonl": _read_jsonl,
    "json": _read_json,
    "tfrecord": _read_tfrecord,
}
