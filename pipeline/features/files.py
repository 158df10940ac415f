"""Files of vectors, written row by row under another name, and renamed when they are whole.

NumPy's .npy holds float32 [rows, numbers], or [rows] of scores; Parquet a row each, `line` of the input and `vector`
or `score`, and in its schema's metadata how they were made.
"""

import contextlib
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet

# (lines, float32 [rows] or [rows, numbers])
Add = Callable[[Sequence[int], np.ndarray], None]
ENDINGS = (".parquet", ".npy")


@contextlib.contextmanager
def written(
    path: str | os.PathLike, rows: int, width: int | None, made: Mapping[str, str] | None = None
) -> Iterator[Add]:
    """What takes all rows, in order. `width`: numbers of a vector; None: scores. Raises OSError."""
    scratch = f"{path}.{os.getpid()}.tmp"
    write = _npy if str(path).endswith(".npy") else _parquet
    try:
        with write(scratch, rows, width, made or {}) as add:
            yield add
        os.replace(scratch, path)
    finally:
        pathlib.Path(scratch).unlink(missing_ok=True)


@contextlib.contextmanager
def _npy(path, rows, width, made):
    shape = (rows,) if width is None else (rows, width)
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
        yield lambda lines, values: file.write(values.astype("<f4").tobytes())


@contextlib.contextmanager
def _parquet(path, rows, width, made):
    kind = pa.float32() if width is None else pa.list_(pa.float32(), width)
    name = "score" if width is None else "vector"
    schema = pa.schema([("line", pa.int64()), (name, kind)], metadata=dict(made))

    def add(lines, values):
        column = pa.array(values.ravel())
        if width is not None:
            column = pa.FixedSizeListArray.from_arrays(column, width)
        writer.write_table(pa.table([pa.array(lines, pa.int64()), column], schema=schema))

    with open(path, "wb") as file, pa.parquet.ParquetWriter(file, schema) as writer:
        yield add
