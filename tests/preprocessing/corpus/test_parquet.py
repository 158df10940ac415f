"""Parquet as it is written today: both readers, what neither reads, and how little they hold."""

import base64
import datetime
import resource
import shutil

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from preprocessing.corpus import inputs, parquet
from preprocessing.errors import InputError
from preprocessing.settings import CorpusSettings
from tests.preprocessing.corpus.test_contents import documents
from tests.preprocessing.corpus.test_corpus import TEXTS, run

# Types of Arrow's schema, as it numbers them.
LARGE_STRING, STRING_VIEW, LARGE_BINARY, BINARY_VIEW = 20, 24, 19, 23


def of_newer_arrow(path, old, new):
    """Writes another type into the Arrow schema that a file holds, as a newer Arrow would have."""
    data = path.read_bytes()
    stored = pq.read_metadata(path).metadata[b"ARROW:schema"]
    schema = base64.b64decode(stored)
    for at in (at for at, byte in enumerate(schema) if byte == old):
        changed = schema[:at] + bytes([new]) + schema[at + 1 :]
        try:
            wanted = any(str(kind).endswith("_view") for kind in pa.ipc.read_schema(pa.py_buffer(changed)).types)
        except (pa.ArrowException, OSError) as error:
            wanted = f"Unrecognized type:{new}" in str(error)
        if wanted:
            path.write_bytes(data.replace(stored, base64.b64encode(changed)))
            return
    raise AssertionError("no such type in the schema")


def write(path, column, name="text", **options):
    pq.write_table(pa.table({name: column, "other": list(range(len(column)))}), path, **options)
    return path


class TestTypes:
    @pytest.mark.parametrize(
        "kind", [pa.string(), pa.large_string(), pa.binary(), pa.large_binary(), pa.dictionary(pa.int32(), pa.string())]
    )
    def test_text_in_any_dress(self, tmp_path, kind):
        column = pa.array(TEXTS).dictionary_encode() if pa.types.is_dictionary(kind) else pa.array(TEXTS).cast(kind)
        assert documents(write(tmp_path / "a.parquet", column, row_group_size=2))[0] == TEXTS

    @pytest.mark.parametrize("kinds", [(LARGE_STRING, STRING_VIEW), (LARGE_BINARY, BINARY_VIEW)])
    @pytest.mark.parametrize("field", ["text", "other"])
    def test_views(self, tmp_path, kinds, field):
        """In the column that is read, and in another."""
        column = pa.array(TEXTS, pa.large_string() if kinds[0] == LARGE_STRING else pa.large_binary())
        path = tmp_path / "a.parquet"
        if field == "text":
            write(path, column, row_group_size=2)
        else:
            pq.write_table(pa.table({"x": column, "text": TEXTS}), path, row_group_size=2)
        of_newer_arrow(path, *kinds)
        assert documents(path)[0] == TEXTS

    def test_of_duckdb(self, tmp_path):
        """Delta-encoded text, and beside it types that Arrow does not know."""
        path = str(tmp_path / "a.parquet")
        connection = duckdb.connect()
        connection.execute("CREATE TABLE t (text VARCHAR)")
        connection.executemany("INSERT INTO t VALUES (?)", [[text] for text in TEXTS])
        others = "1::HUGEINT AS h, INTERVAL 1 DAY AS i, uuid() AS u, [1] AS l"
        for more in (others, "42::VARIANT AS v"):
            connection.execute(f"COPY (SELECT *, {more} FROM t) TO '{path}' (FORMAT parquet, PARQUET_VERSION 'v2')")
            assert documents(path)[0] == TEXTS

    def test_of_spark_and_pandas(self, tmp_path):
        """Times in 96 bits, text in categories, columns in columns."""
        table = {"text": pa.array(TEXTS).dictionary_encode(), "t": [datetime.datetime(2026, 1, 1)] * 3}
        table["meta"] = [{"text": "inner", "more": [1]}] * 3
        pq.write_table(
            pa.table(table), tmp_path / "a.parquet", use_deprecated_int96_timestamps=True, compression="gzip"
        )
        assert documents(tmp_path / "a.parquet")[0] == TEXTS

    def test_null_in_one_of_several_files(self, tmp_path):
        write(tmp_path / "a.parquet", pa.array([*TEXTS, None]))
        write(tmp_path / "b.parquet", pa.nulls(5))
        texts, tallies, _, _ = documents(tmp_path)
        assert texts == TEXTS
        assert sum(tally.nulls for tally in tallies) == 6
        assert run(tmp_path)[1]["lines_without_text"] == 6

    def test_text_that_is_not_utf8_is_set_aside(self, tmp_path):
        column = pa.Array.from_buffers(pa.string(), 2, pa.array([b"good", b"\xff\xfe"]).buffers())
        texts, _, bad, _ = documents(write(tmp_path / "a.parquet", column))
        assert (texts, [reason[:9] for _, reason, _ in bad]) == (["good"], ["not UTF-8"])

    def test_column_names(self, tmp_path):
        table = pa.table({"Text": TEXTS, 'a "b" c': [text.upper() for text in TEXTS], "TEXT": ["x"] * 3})
        for name, wanted in (("Text", TEXTS), ("TEXT", ["x"] * 3), ('a "b" c', [text.upper() for text in TEXTS])):
            pq.write_table(table.append_column("v", pa.array(TEXTS, pa.large_string())), tmp_path / "a.parquet")
            of_newer_arrow(tmp_path / "a.parquet", LARGE_STRING, STRING_VIEW)
            assert documents(tmp_path / "a.parquet", text_field=name)[0] == wanted

    @pytest.mark.parametrize("name", ["home [1] x", "*", "q'q", "ü", "year=2020"])
    def test_paths(self, tmp_path, name):
        (tmp_path / name).mkdir()
        path = write(tmp_path / name / "a.parquet", pa.array(TEXTS, pa.large_string()))
        of_newer_arrow(path, LARGE_STRING, STRING_VIEW)
        assert documents(tmp_path / name)[0] == TEXTS


def test_elsewhere_a_file_is_copied_once(tmp_path, monkeypatch):
    path = write(tmp_path / "a.parquet", pa.array(TEXTS, pa.large_string()), row_group_size=1)
    of_newer_arrow(path, LARGE_STRING, STRING_VIEW)
    monkeypatch.setattr(parquet, "is_remote", lambda path: True)
    copied, copy = [], shutil.copyfileobj
    monkeypatch.setattr(parquet.shutil, "copyfileobj", lambda *files: copied.append(copy(*files)))
    parquet._copy.cache_clear()
    texts, tallies, _, _ = documents(path)
    assert (texts, len(tallies), len(copied) <= 1) == (TEXTS, 3, True)


class TestRefusals:
    @pytest.mark.parametrize("newer", [False, True])
    def test_columns(self, tmp_path, newer):
        path = write(tmp_path / "a.parquet", pa.array(TEXTS, pa.large_string()), "body")
        if newer:
            of_newer_arrow(path, LARGE_STRING, STRING_VIEW)
        with pytest.raises(InputError, match=r"no column 'text'. Its columns: body, other. Name one with --text-field"):
            documents(path)
        with pytest.raises(InputError, match=r"column 'other' must hold text. Received: (int64|BIGINT)"):
            documents(path, text_field="other")

    def test_what_neither_reader_knows_is_called_newer(self, tmp_path, monkeypatch):
        path = write(tmp_path / "a.parquet", pa.array(TEXTS))

        def unknown(*_):
            raise duckdb.NotImplementedException("Not implemented Error: encoding 99")

        monkeypatch.setattr(parquet, "_duckdb_column", unknown)
        monkeypatch.setattr(parquet, "_arrow", lambda path: (_ for _ in ()).throw(OSError("Unrecognized encoding")))
        message = rf"newer than its readers \(Arrow {pa.__version__}, DuckDB {duckdb.__version__}\): Not implemented"
        with pytest.raises(InputError, match=message):
            documents(path)

    @pytest.mark.parametrize("cut", [5, 200, -1])
    def test_cut_short(self, tmp_path, cut):
        path = write(tmp_path / "a.parquet", pa.array(TEXTS * 20))
        path.write_bytes(path.read_bytes()[:cut])
        with pytest.raises(InputError, match=r"a\.parquet: damaged, or not a Parquet file: "):
            documents(path)

    def test_damage_within(self, tmp_path):
        path = write(tmp_path / "a.parquet", pa.array(TEXTS * 20), compression="snappy", use_dictionary=False)
        data = path.read_bytes()
        path.write_bytes(data[:40] + bytes(60) + data[100:])
        with pytest.raises(InputError, match=r"a\.parquet: "):
            documents(path)


@pytest.mark.long
def test_a_large_file_of_newer_arrow_is_never_held(tmp_path):
    path = tmp_path / "a.parquet"
    column = pa.array([f"{number} " + "lorem ipsum dolor " * 100 for number in range(50_000)], pa.large_string())
    with pq.ParquetWriter(path, pa.schema({"text": pa.large_string()}), compression="zstd") as writer:
        for _ in range(8):
            writer.write_table(pa.table({"text": column}), row_group_size=10_000)
    del column
    of_newer_arrow(path, LARGE_STRING, STRING_VIEW)
    settings = CorpusSettings((str(path),))
    chunks = inputs.find_chunks(settings)
    assert len(chunks) == 40
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    counts = [sum(1 for _ in parquet.rows(str(path), "text", chunk.start, chunk.end)) for chunk in chunks[::13]]
    assert counts == [10_000] * 4
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # KB; the column is 700 MB
