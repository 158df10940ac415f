"""Documents from files: formats, chunks, duplicates, and every kind of bad input."""

import bz2
import gzip
import io
import itertools
import json
import os
import pathlib

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from apache_beam.io.filesystems import FileSystems
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocessing import tfrecord
from preprocessing.beam import runner
from preprocessing.corpus import documents as corpu_documents
from preprocessing.corpus import inputs, plain_text, readers, reading
from preprocessing.corpus.chunks import Chunk, Tally
from preprocessing.errors import InputError
from preprocessing.settings import CorpusSettings

TEXTS = ["One sentence. And another.\nA second paragraph.", "A second document.", "Ein drittes – mit Ümläuten."]


def texts_of(path, format_="paragraphs", start=0, end=None, **options):
    """(texts, tally, bad lines) of a chunk."""
    tally, bad = Tally(), []
    chunk = Chunk(0, str(path), format_, start, end)
    found = list(readers.read_texts(chunk, CorpusSettings(**options), tally, lambda *line: bad.append(line)))
    return found, tally, bad


COLLECTED: list[corpu_documents.Document] = []


def collect(document):
    COLLECTED.append(document)  # the local runner's worker is this process


def run(input_, set_aside=None, **options):
    """(documents, counters) of a Beam run."""
    COLLECTED.clear()
    paths = input_ if isinstance(input_, list | tuple) else [input_]
    pipeline = beam.Pipeline(options=runner.make_options())
    documents = pipeline | reading.ReadDocuments(CorpusSettings(tuple(map(str, paths)), **options), set_aside)
    _ = documents | beam.Map(collect)
    counters = runner.counters(runner.run(pipeline))
    return list(COLLECTED), counters


def write(folder, format_, texts=TEXTS):
    """A file of that format with the texts."""
    path = folder / {"jsonl": "a.jsonl", "parquet": "a.parquet", "tfrecord": "a.tfrecord"}.get(format_, "a.txt")
    if format_ == "jsonl":
        path.write_text("".join(json.dumps({"id": 1, "text": text}) + "\n" for text in texts))
    elif format_ == "parquet":
        pq.write_table(pa.table({"id": list(range(len(texts))), "text": texts}), path, row_group_size=2)
    elif format_ == "tfrecord":
        feature = [tf.train.Feature(bytes_list=tf.train.BytesList(value=[text.encode()])) for text in texts]
        examples = [tf.train.Example(features=tf.train.Features(feature={"text": f})) for f in feature]
        path.write_bytes(tfrecord.frame(example.SerializeToString() for example in examples))
    else:
        path.write_text("\n\n".join(texts) + "\n")
    return path


class TestFormats:
    @pytest.mark.parametrize("format_", ["paragraphs", "jsonl", "parquet", "tfrecord"])
    def test_same_documents_from_every_format(self, tmp_path, format_):
        chunks = inputs.find_chunks(CorpusSettings((str(write(tmp_path, format_)),)))
        assert {chunk.format for chunk in chunks} == {format_}
        found = [text for c in chunks for text in readers.read_texts(c, CorpusSettings(), Tally(), print)]
        assert found == TEXTS

    def test_sentences_are_split_or_as_given(self, tmp_path):
        path = write(tmp_path, "paragraphs")
        by_id = dict(run(path)[0])
        given_ = dict(run(path, format="sentences")[0])
        assert by_id.keys() == given_.keys()
        assert sorted(map(len, by_id.values())) == [1, 1, 3]
        assert sorted(map(len, given_.values())) == [1, 1, 2]

    def test_one_document_a_file(self, tmp_path):
        path = write(tmp_path, "paragraphs")
        assert texts_of(path, "document")[0] == ["\n".join(TEXTS)]

    @pytest.mark.parametrize(("ending", "compress"), [(".gz", gzip.compress), (".bz2", bz2.compress)])
    def test_compressed(self, tmp_path, ending, compress):
        path = tmp_path / f"a.txt{ending}"
        path.write_bytes(compress("\n\n".join(TEXTS).encode()))
        assert texts_of(path)[0] == TEXTS

    def test_zstandard(self, tmp_path):
        path = tmp_path / "a.jsonl.zst"
        with pa.CompressedOutputStream(str(path), "zstd") as file:
            file.write(b'{"text": "hello"}\n')
        assert texts_of(path, "jsonl")[0] == ["hello"]

    def test_globs_folders_and_several_inputs(self, tmp_path):
        for name in ("x/a.txt", "x/b.txt", "y/c.txt"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(name)
        chunks = inputs.find_chunks(CorpusSettings((str(tmp_path / "x"), str(tmp_path / "*" / "[bc].txt"))))
        assert [pathlib.Path(chunk.path).name for chunk in chunks] == ["a.txt", "b.txt", "c.txt"]

    def test_hidden_files_and_pipes_are_passed_over(self, tmp_path):
        for name in ("b.txt", "a.txt", ".hidden.txt"):
            (tmp_path / name).write_text("text")
        os.mkfifo(tmp_path / "pipe.txt")
        for pattern in (tmp_path, tmp_path / "*", tmp_path / "*.txt"):
            files = inputs.files([str(pattern)])
            assert [(pathlib.Path(file.path).name, file.size_in_bytes) for file in files] == [
                ("a.txt", 4),
                ("b.txt", 4),
            ]
            assert files[0].last_updated_in_seconds == (tmp_path / "a.txt").stat().st_mtime
        assert len(inputs.files([str(tmp_path / ".hidden.txt")])) == len(inputs.files([str(tmp_path / ".h*")])) == 1
        with pytest.raises(InputError, match=r"^.*pipe\.txt: not a regular file"):
            inputs.files([str(tmp_path / "pipe.txt")])

    def test_a_path_that_exists_is_no_glob(self, tmp_path):
        (tmp_path / "d[1]").mkdir()
        for name in ("a[1].txt", "a1.txt", "d[1]/b.txt"):
            (tmp_path / name).write_text("text")
        found = inputs.files([str(tmp_path / "a[1].txt"), str(tmp_path / "d[1]")])
        assert [file.path for file in found] == [str(tmp_path / "a[1].txt"), str(tmp_path / "d[1]" / "b.txt")]

    def test_a_glob_without_a_folder(self, tmp_path, monkeypatch):
        write(tmp_path, "paragraphs")
        monkeypatch.chdir(tmp_path)
        assert len(inputs.files(["*.txt"])) == 1

    def test_endings_in_capitals(self, tmp_path):
        path = tmp_path / "A.JSONL.GZ"
        path.write_bytes(gzip.compress(b'{"text": "hello"}'))
        (chunk,) = inputs.find_chunks(CorpusSettings((str(path),)))
        assert texts_of(path, chunk.format)[0] == ["hello"]

    def test_windows_line_ends_and_byte_order_mark(self, tmp_path):
        path = tmp_path / "a.txt"
        path.write_bytes(b"\xef\xbb\xbfone\r\ntwo\r\n\r\nthree")
        assert texts_of(path)[0] == ["one\ntwo", "three"]


WHITE = ["\x1d", "\u3000", " \xa0\u2003 ", "\u3000x\u3000", "\u2028\u201c"]  # some with a character among it
LINE = st.sampled_from(
    [b"", b" ", b"\t", b"a", b"bb cc", b" d ", b"longer line", "ü—".encode(), *(line.encode() for line in WHITE)]
)


class TestChunks:
    @given(lines=st.lists(LINE, max_size=14), cuts=st.lists(st.integers(0, 60), max_size=3), final=st.booleans())
    @settings(deadline=None, max_examples=150)
    @pytest.mark.parametrize("format_", ["paragraphs", "jsonl"])
    def test_cutting_a_file_changes_nothing(self, tmp_path_factory, format_, lines, cuts, final):
        path = tmp_path_factory.getbasetemp() / f"cut-{format_}"
        if format_ == "jsonl":
            lines = [json.dumps({"text": line.decode()}).encode() if line.strip() else line for line in lines]
        data = b"\n".join(lines) + b"\n" * final
        path.write_bytes(data)
        whole, _, _ = texts_of(path, format_)
        bounds = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
        parts = [texts_of(path, format_, start, end) for start, end in itertools.pairwise(bounds)]
        assert [text for texts, _, _ in parts for text in texts] == whole
        assert sum(tally.newlines for _, tally, _ in parts) == data.count(b"\n")

    @given(
        lines=st.lists(LINE | st.sampled_from([b"\xff", b"x\0y", b"\r", b"\xc2\xa0", b"0123456789" * 3]), max_size=20),
        start=st.integers(0, 60),
        length=st.none() | st.integers(1, 60),
        block=st.sampled_from([1, 3, 20, 1000]),
        bounds=st.tuples(st.sampled_from([10, 10**6]), st.sampled_from([15, 10**6])),
    )
    @settings(deadline=None, max_examples=300)
    def test_in_blocks_as_line_by_line(self, lines, start, length, block, bounds):
        """Documents, counts and bad lines."""
        data = b"\n".join(lines)
        chunk = Chunk(0, "a.txt", "paragraphs", min(start, len(data)), length and min(start, len(data)) + length)
        found = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(plain_text, "_BLOCK", block)
            patch.setattr(plain_text, "_TAIL", 4)
            for read in (plain_text.read, plain_text._by_line):
                tally, bad = Tally(), []
                settings_ = CorpusSettings(max_line_bytes=bounds[0], max_document_bytes=bounds[1])
                texts = read(io.BytesIO(data), chunk, settings_, tally, lambda *line, bad=bad: bad.append(line))
                found.append((list(texts), tally, bad))
        assert found[0] == found[1]

    def test_bad_lines_are_numbered_across_chunks(self, tmp_path):
        path = tmp_path / "a.txt"
        lines = [b"x" * 997] * 3000
        lines[1234] = b"\xff" + lines[1234]
        lines[2222] = b"a\0b"
        path.write_bytes(b"\n\n".join(lines))
        aside = tmp_path / "set_aside.jsonl"
        assert len(inputs.find_chunks(CorpusSettings((str(path),)))) > 1
        _, counters = run(path, str(aside))
        rows = sorted(map(json.loads, aside.read_text().splitlines()), key=lambda row: row["line"])
        assert [(row["file"], row["line"]) for row in rows] == [(str(path), 2469), (str(path), 4445)]
        assert counters["lines_set_aside"] == 2
        assert counters["lines"] == 3000

    def test_few_of_many_bad_lines_are_kept(self, tmp_path):
        aside = tmp_path / "set_aside.jsonl"
        (tmp_path / "a.txt").write_bytes(b"\xff\n" * 1500 + b"good")
        _, counters = run(tmp_path / "a.txt", str(aside), max_bad_share=1)
        rows = [json.loads(line) for line in aside.read_text().splitlines()]
        assert (len(rows), counters["lines_set_aside"]) == (1001, 1500)
        assert (rows[-1]["line"], rows[-1]["reason"]) == (1000, "500 more lines after this one, not listed")


class TestDuplicates:
    def test_dropped_and_counted(self, tmp_path):
        (tmp_path / "a.txt").write_text("one\n\ntwo\n\none\n")
        (tmp_path / "b.txt").write_text("  two \n\nthree\n\n\n\none")
        found, counters = run([tmp_path / "a.txt", tmp_path / "b.txt"])
        assert sorted(document.sentences for document in found) == [("one",), ("three",), ("two",)]
        assert len({document.id for document in found}) == 3
        assert counters["duplicates"] == 3

    def test_ids_depend_on_the_content_alone(self, tmp_path):
        text = write(tmp_path, "paragraphs")
        table = write(tmp_path, "parquet")
        assert set(run(text)[0]) == set(run(table)[0])


class TestBadInput:
    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda folder: None, "no file matches"),
            (lambda folder: folder.mkdir(), "no file matches"),
            (lambda folder: folder.write_bytes(b""), "the file is empty"),
        ],
        ids=["absent", "empty folder", "empty file"],
    )
    def test_nothing_to_read(self, tmp_path, make, message):
        make(tmp_path / "input")
        with pytest.raises(InputError, match=message):
            inputs.check_input(CorpusSettings((str(tmp_path / "input"),)))

    def test_no_input(self):
        with pytest.raises(InputError, match="no input"):
            inputs.check_input(CorpusSettings())

    def test_blank_lines_only(self, tmp_path):
        (tmp_path / "a.txt").write_text("\n \n\t\n\n")
        with pytest.raises(InputError, match=r"no text in .*a\.txt: nothing but blank lines$"):
            run(tmp_path / "a.txt")

    def test_an_empty_file_among_others_is_passed_over(self, tmp_path):
        (tmp_path / "a.txt").write_text("")
        (tmp_path / "b.txt").write_text("text")
        assert len(inputs.find_chunks(CorpusSettings((str(tmp_path),)))) == 1

    @pytest.mark.parametrize(("data", "reason"), [(b"bad \xff\xfe", "not UTF-8"), (b"a\0b", "NUL")])
    def test_too_many_bad_lines_stop_the_run(self, tmp_path, data, reason):
        path = tmp_path / "a.txt"
        path.write_bytes(b"good\n" + data + b"\n")
        with pytest.raises(InputError, match=rf"^{path}:2: .*{reason}.*; 1 of 2 lines .* raise --max-bad-share$"):
            run(path)
        assert [document.sentences for document in run(path, max_bad_share=0.7)[0]] == [("good",)]

    def test_oversized_line(self, tmp_path):
        path = tmp_path / "a.txt"
        path.write_bytes(b"before\n" + b"x" * 3_000_000 + b"\nafter\n" + b"y" * 1001)
        found, tally, bad = texts_of(path, max_line_bytes=1000)
        assert found == ["before\nafter"]
        assert [(line, reason[:26]) for line, reason, _ in bad] == [
            (1, "longer than 1,000 bytes (m"),
            (3, "longer than 1,000 bytes (m"),
        ]
        assert tally.bad == 2

    def test_a_line_of_100_mb_takes_little_memory(self, tmp_path):
        import tracemalloc

        path = tmp_path / "a.txt"
        with path.open("wb") as file:
            file.write(b"before\n")
            file.truncate(100_000_000)
            file.seek(0, os.SEEK_END)
            file.write(b"\nafter")
        tracemalloc.start()
        found, _, bad = texts_of(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert (found, len(bad)) == (["before\nafter"], 1)
        assert peak < 60_000_000

    def test_document_over_the_bound_is_split_and_counted(self, tmp_path):
        lines = [f"line {number}" for number in range(100)]
        (tmp_path / "a.txt").write_text("\n".join(lines) + "\n\nanother")
        found, tally, _ = texts_of(tmp_path / "a.txt", max_document_bytes=200)
        assert len(found) > 3
        assert all(len(text) <= 200 for text in found)
        assert "\n".join(found).split("\n") == [*lines, "another"]
        assert tally.split == 1

    def test_record_over_the_bound_is_split_and_counted(self, tmp_path):
        text = " ".join(f"wörd{number}" for number in range(100))
        path = write(tmp_path, "jsonl", [text, "short"])
        found, tally, _ = texts_of(path, "jsonl", max_document_bytes=200)
        assert " ".join(found[:-1]) == text
        assert all(len(part.encode()) <= 200 for part in found)
        assert tally.split == 1

    def test_folder_without_permission(self, tmp_path, monkeypatch):
        def refuse(*_, **__):
            raise PermissionError(13, "Permission denied")

        (tmp_path / "a.txt").write_text("text")
        monkeypatch.setattr(FileSystems, "open", refuse)  # the tests may run as root, who may read everything
        with pytest.raises(InputError, match=r"cannot be read: \[Errno 13\] Permission denied"):
            inputs.check_input(CorpusSettings((str(tmp_path),)))

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
    def test_file_without_permission(self, tmp_path):
        (tmp_path / "a.txt").write_text("text")
        (tmp_path / "a.txt").chmod(0)
        with pytest.raises(InputError, match="cannot be read"):
            inputs.check_input(CorpusSettings((str(tmp_path),)))

    def test_truncated_gzip(self, tmp_path):
        path = tmp_path / "a.txt.gz"
        path.write_bytes(gzip.compress(os.urandom(5000).hex().encode())[:-100])
        with pytest.raises(InputError, match=rf"^{path}: cannot be read as paragraphs: .*Replace or remove the file"):
            run(path)

    def test_parquet_without_the_column(self, tmp_path):
        path = write(tmp_path, "parquet")
        with pytest.raises(InputError, match=r"no column 'body'. Its columns: id, text. Name one with --text-field"):
            inputs.check_input(CorpusSettings((str(path),), text_field="body"))
        with pytest.raises(InputError, match=r"column 'id' must hold text. Received: int64"):
            inputs.check_input(CorpusSettings((str(path),), text_field="id"))

    def test_not_parquet(self, tmp_path):
        (tmp_path / "a.parquet").write_text("text")
        with pytest.raises(InputError, match="not a Parquet file"):
            inputs.check_input(CorpusSettings((str(tmp_path / "a.parquet"),)))

    def test_damaged_parquet(self, tmp_path):
        path = write(tmp_path, "parquet")
        data = path.read_bytes()
        footer = int.from_bytes(data[-8:-4], "little")
        path.write_bytes(data[: -8 - footer] + b"\xff" * footer + data[-8:])
        with pytest.raises(InputError, match=rf"^{path}: damaged, or not a Parquet file: .*$"):
            inputs.check_input(CorpusSettings((str(path),)))

    def test_parquet_with_a_column_twice(self, tmp_path):
        pq.write_table(pa.table([["a"], ["b"]], names=["text", "text"]), tmp_path / "a.parquet")
        with pytest.raises(InputError, match=r"a\.parquet: only one column may be named 'text'"):
            inputs.check_input(CorpusSettings((str(tmp_path),)))

    def test_parquet_without_rows(self, tmp_path):
        pq.ParquetWriter(tmp_path / "a.parquet", pa.schema({"text": pa.string()})).close()
        with pytest.raises(InputError, match=r"a\.parquet: the file holds no row$"):
            inputs.check_input(CorpusSettings((str(tmp_path),)))

    def test_parquet_text_that_is_set_aside(self, tmp_path):
        for rows in (["a\0b"], [b"a\0b"]):
            assert texts_of(write(tmp_path, "parquet", rows), "parquet", end=1)[2][0][2] == b"a\0b"

    def test_not_tfrecord(self, tmp_path):
        path = write(tmp_path, "tfrecord")
        path.write_bytes(path.read_bytes()[:-3])
        with pytest.raises(
            InputError, match=r"a\.tfrecord: cannot be read as tfrecord: a truncated or corrupt TFRecord"
        ):
            texts_of(path, "tfrecord")
        path.write_bytes(b"plain text, and more of it")
        with pytest.raises(InputError, match="not a TFRecord"):
            texts_of(path, "tfrecord")

    def test_broken_json_lines_are_set_aside(self, tmp_path):
        path = tmp_path / "a.jsonl"
        path.write_bytes(
            b'{"text": "good"}\n{"text": \n\n[1]\n{"body": "x"}\n{"text": 7}\n'
            b'{"text": "\\ud800"}\n\xff\n{"text": "a\\u0000"}\n'
            + b'{"text": "x", "id": '
            + b"1" * 5000
            + b"}\n"
            + b"[" * 100_000
        )
        found, tally, bad = texts_of(path, "jsonl")
        assert found == ["good"]
        assert [line for line, _, _ in bad] == [1, 3, 4, 5, 6, 7, 8, 9, 10]
        assert (tally.lines, tally.bad) == (10, 9)
        reasons = [reason for _, reason, _ in bad]
        assert reasons[0].startswith("not JSON")
        assert reasons[1] == reasons[2] == reasons[3] == "no text in a field 'text'"
        assert "surrogate" in reasons[4]
        assert "NUL" in reasons[6]
        assert reasons[7:] == ["JSON with an integer of too many digits", "JSON nested too deeply"]

    def test_inputs_of_different_formats(self, tmp_path):
        write(tmp_path, "jsonl")
        write(tmp_path, "paragraphs")
        with pytest.raises(
            InputError, match=r"must have one format.*Received: jsonl \(.*a\.jsonl\), paragraphs \(.*a\.txt\)"
        ):
            inputs.check_input(CorpusSettings((str(tmp_path),)))

    @pytest.mark.long
    def test_errors_of_worker_processes_are_one_line(self, tmp_path):
        (tmp_path / "a.txt").write_bytes(b"\xff")
        pipeline = beam.Pipeline(options=runner.make_options(workers=2))
        _ = pipeline | reading.ReadDocuments(CorpusSettings((str(tmp_path / "a.txt"),)))
        with pytest.raises(InputError, match=r"^.*a\.txt:1: not UTF-8 .*convert it to UTF-8, with iconv for one$"):
            runner.run(pipeline)
