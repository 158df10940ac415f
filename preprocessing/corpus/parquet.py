"""Text columns of Parquet files, by two readers: Arrow's, and DuckDB's for what is newer than that.

TFX holds Arrow at a version that knows no views, variants or half floats, even in columns that are not read, and not
all encodings. Both read by row groups, and hold little.
"""

import contextlib
import glob
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from preprocessing.errors import InputError
from preprocessing.storage import is_remote

_ERRORS = (pa.ArrowException, OSError, ValueError)  # of Arrow's reader
_NEWER = ("not yet implemented", "not implemented", "unrecognized", "not recognized", "unsupported", "not supported")
_BATCH = 1000  # rows

Value = str | bytes | None


def row_groups(path: str, column: str) -> int:
    """How many row groups a file has. Raises InputError where it cannot be read or has no column of text of that name,
    or several."""
    try:
        with _arrow(path) as file:
            _check(path, column, file.schema_arrow.names, lambda at: _arrow_text(file.schema_arrow.types[at]))
            return file.num_row_groups
    except InputError:
        raise
    except _ERRORS as error:
        with _duckdb(path, error) as (connection, source):
            _duckdb_column(connection, source, path, column)
            return len(_duckdb_groups(connection, source))


def rows(path: str, column: str, start: int, end: int | None) -> Iterator[Value]:
    """The values of a column in the row groups [start, end)."""
    done = 0
    try:
        with _arrow(path) as file:
            _check(path, column, file.schema_arrow.names, lambda at: _arrow_text(file.schema_arrow.types[at]))
            groups = list(range(start, file.num_row_groups if end is None else end))
            for batch in file.iter_batches(_BATCH, row_groups=groups, columns=[column]):
                for value in _as_bytes(batch.column(0)):
                    yield value.as_py()
                    done += 1
        return
    except InputError:
        raise
    except _ERRORS as error:
        failed = error
    with _duckdb(path, failed) as (connection, source):
        name = _duckdb_column(connection, source, path, column)
        counts = _duckdb_groups(connection, source)
        first, last = sum(counts[:start]) + done, sum(counts[:end])
        connection.execute(
            f"SELECT {name} FROM read_parquet(?, hive_partitioning=false, file_row_number=true) "
            "WHERE file_row_number >= ? AND file_row_number < ?",
            [source, first, last],
        )
        while batch := connection.fetchmany(_BATCH):
            yield from (value for (value,) in batch)


@contextlib.contextmanager
def _arrow(path: str) -> Iterator[pyarrow.parquet.ParquetFile]:
    with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as handle:
        yield pyarrow.parquet.ParquetFile(handle)


def _check(path: str, name: str, columns: list[str], kind) -> None:
    """`kind` gives "" for the number of a column of text, else its type."""
    if name not in columns:
        raise InputError(f"{path}: no column {name!r}. Its columns: {', '.join(columns)}. Name one with --text-field")
    if columns.count(name) > 1:
        raise InputError(f"{path}: only one column may be named {name!r}. Its columns: {', '.join(columns)}")
    if other := kind(columns.index(name)):
        raise InputError(f"{path}: column {name!r} must hold text. Received: {other}")


def _arrow_text(kind: pa.DataType) -> str:
    kinds = pa.types
    value = kind.value_type if kinds.is_dictionary(kind) else kind
    tests = kinds.is_string, kinds.is_large_string, kinds.is_binary, kinds.is_large_binary, kinds.is_null
    return "" if any(test(value) for test in tests) else str(kind)


def _as_bytes(values: pa.Array) -> pa.Array:
    """Text as bytes, which need not be UTF-8."""
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    return values.cast(pa.large_binary()) if pa.types.is_large_string(values.type) else values.cast(pa.binary())


@contextlib.contextmanager
def _duckdb(path: str, failed: Exception) -> Iterator[tuple[Any, str]]:
    """A connection and the file's name in it. Raises InputError where DuckDB cannot read it either: `failed` says why
    Arrow could not."""
    import duckdb

    with contextlib.ExitStack() as stack:
        source = path
        if is_remote(path):
            copy = stack.enter_context(tempfile.NamedTemporaryFile(suffix=".parquet"))
            with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as handle:
                shutil.copyfileobj(handle, copy)
            copy.flush()
            source = copy.name
        config: dict[str, Any] = {
            "threads": 1,
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
        }
        connection = stack.enter_context(duckdb.connect(config=config))
        try:
            yield connection, glob.escape(source)
        except duckdb.Error as error:
            both = str(failed).splitlines()[0], str(error).splitlines()[0]
            if any(word in text.lower() for text in both for word in _NEWER):
                reason = f"newer than its readers (Arrow {pa.__version__}, DuckDB {duckdb.__version__}): {both[1]}"
            else:
                reason = f"damaged, or not a Parquet file: {both[0]}"
            raise InputError(f"{path}: {reason}") from error


def _duckdb_column(connection, source: str, path: str, column: str) -> str:
    """The column's name as DuckDB wants it, which takes capitals and small letters for the same."""
    described = connection.execute(
        "DESCRIBE SELECT * FROM read_parquet(?, hive_partitioning=false)", [source]
    ).fetchall()
    schema = connection.execute("SELECT name, num_children, logical_type FROM parquet_schema(?)", [source]).fetchall()
    names, nulls, at = [], [], 1  # behind the root
    while at < len(schema):
        names.append(schema[at][0])
        nulls.append("Null" in (schema[at][2] or ""))
        end = at + 1
        while at < end:
            end += schema[at][1] or 0
            at += 1
    kinds = [row[1] for row in described]
    _check(path, column, names, lambda at: "" if nulls[at] or kinds[at] in ("VARCHAR", "JSON", "BLOB") else kinds[at])
    name = described[names.index(column)][0].replace('"', '""')
    return f'"{name}"'


def _duckdb_groups(connection, source: str) -> list[int]:
    """Rows of each row group."""
    found = connection.execute(
        "SELECT any_value(row_group_num_rows) FROM parquet_metadata(?) GROUP BY row_group_id ORDER BY row_group_id",
        [source],
    ).fetchall()
    return [rows for (rows,) in found]
