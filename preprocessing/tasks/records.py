"""The records of a file, one at a time: lines cut into cells, JSON objects, rows of Parquet.

Each comes as (line, record, why it cannot be used or ""); lines are counted from 1, in Parquet rows are.
"""

import contextlib
import csv
import itertools
import json
from collections.abc import Iterator, Sequence
from typing import Any

from preprocessing import storage
from preprocessing.errors import InputError

MAX_ROW = 16 << 20  # bytes of a line, and of a CSV cell: a quote that is never closed must not read the whole file
AT_ONCE = 1000  # rows of Parquet


def text_lines(path: str) -> Iterator[tuple[int, str]]:
    """(number, line with its end). Bytes that are not UTF-8, and NUL, are lone surrogates."""
    with open(storage.local(path), "rb") as handle:
        for number in itertools.count(1):
            data = handle.readline(MAX_ROW + 1)
            if not data:
                return
            if len(data) > MAX_ROW:
                raise InputError(f"{path}:{number}: a line must not exceed {MAX_ROW >> 20} MiB. Received: a longer one")
            if number == 1:
                if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
                    raise InputError(f"{path}:1: a table must be UTF-8. Received: UTF-16; convert it")
                data = data.removeprefix(b"\xef\xbb\xbf")
            yield number, data.decode("utf-8", "surrogateescape").replace("\0", "\udc00")


def cells(path: str, kind: str) -> Iterator[tuple[int, list[str], str]]:
    """Rows of a TSV or CSV file (`kind`) that are not blank."""
    if kind == "tsv":
        for line, text in text_lines(path):
            if text.strip("\r\n"):
                yield line, text.rstrip("\r\n").split("\t"), ""
        return
    csv.field_size_limit(max(csv.field_size_limit(), MAX_ROW))
    reader, line = csv.reader((text for _, text in text_lines(path)), strict=True), 0
    while True:
        begins = line + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise InputError(
                f"{path}:{begins}: the row that begins here is no CSV: {error}; quotes must be closed, and "
                "doubled inside of quotes"
            ) from error
        line = reader.line_num
        if row:
            yield begins, row, ""


def objects(path: str) -> Iterator[tuple[int, Any, str]]:
    """JSON objects, one a line."""
    for line, text in text_lines(path):
        if not text.strip():
            continue
        try:
            record = json.loads(text)
        except (ValueError, RecursionError) as error:
            yield line, {}, f"not JSON ({str(error)[:60]})"
        else:
            yield line, record, "" if isinstance(record, dict) else "not a JSON object"


def parquet_names(path: str) -> list[str]:
    import pyarrow.parquet

    with _reading(path):
        return list(pyarrow.parquet.read_schema(storage.local(path)).names)


def parquet(path: str, names: Sequence[str]) -> Iterator[tuple[int, dict[str, Any], str]]:
    """Rows of Parquet as mappings of these columns."""
    import pyarrow.parquet

    line = 0
    with _reading(path):
        for batch in pyarrow.parquet.ParquetFile(storage.local(path)).iter_batches(AT_ONCE, columns=list(names)):
            for record in batch.to_pylist():
                line += 1
                yield line, record, ""


@contextlib.contextmanager
def _reading(path: str) -> Iterator[None]:
    """Arrow's errors as InputError."""
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{path}: cannot be read as Parquet: {str(error).splitlines()[0]}") from error
