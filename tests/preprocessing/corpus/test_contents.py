"""What a file holds is told by its content where its name does not say."""

import bz2
import gzip
import json
import pathlib
import shutil
import tempfile

import pyarrow as pa
import pytest

from preprocessing import tfrecord
from preprocessing.corpus import inputs, readers
from preprocessing.corpus.chunks import Tally
from preprocessing.errors import InputError
from preprocessing.settings import CorpusSettings
from tests.preprocessing.corpus.test_corpus import TEXTS, run, write


def documents(*paths, **options):
    """(texts, sums of tallies, bad lines, notes) of all that a run would read."""
    settings = CorpusSettings(tuple(map(str, paths)), **options)
    texts, tallies, bad, notes = [], [], [], []
    for chunk in inputs.find_chunks(settings):
        tallies.append(Tally())
        texts += readers.read_texts(chunk, settings, tallies[-1], lambda *line: bad.append(line), notes.append)
    return texts, tallies, bad, notes


def record(*values):
    import tensorflow as tf

    feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[value.encode() for value in values]))
    return tf.train.Example(features=tf.train.Features(feature={"text": feature})).SerializeToString()


def packed(kind):
    """An archive of this folder."""
    with tempfile.TemporaryDirectory() as folder:
        return pathlib.Path(shutil.make_archive(f"{folder}/a", kind, pathlib.Path(__file__).parent)).read_bytes()


class TestNames:
    @pytest.mark.parametrize("format_", ["parquet", "tfrecord", "jsonl", "paragraphs"])
    @pytest.mark.parametrize("name", ["part-00000", "data.bin", "x.dat"])
    def test_any_name(self, tmp_path, format_, name):
        path = write(tmp_path, format_).rename(tmp_path / name)
        assert documents(path)[0] == TEXTS

    @pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lambda data: pa.compress(data, "zstd", True)])
    @pytest.mark.parametrize("format_", ["tfrecord", "jsonl", "paragraphs"])
    @pytest.mark.parametrize("name", ["x", "x.txt", "x.gz"])
    def test_any_compression_under_any_name(self, tmp_path, compress, format_, name):
        if compress not in (gzip.compress, bz2.compress):
            data = write(tmp_path, format_).read_bytes()
            with pa.CompressedOutputStream(str(tmp_path / name), "zstd") as file:
                file.write(data)
        else:
            (tmp_path / name).write_bytes(compress(write(tmp_path, format_).read_bytes()))
        assert documents(tmp_path / name)[0] == TEXTS

    def test_not_compressed_whatever_its_name_says(self, tmp_path):
        path = write(tmp_path, "paragraphs").rename(tmp_path / "a.txt.gz")
        assert documents(path)[0] == TEXTS

    @pytest.mark.parametrize(
        "name", ["w.tfrecord-00000-of-00002", "w.tfrec", "W.TFRECORDS", "tf_examples.tf_record_000"]
    )
    def test_names_of_tfrecords(self, tmp_path, name):
        assert documents(write(tmp_path, "tfrecord").rename(tmp_path / name))[0] == TEXTS

    def test_a_format_that_the_content_contradicts(self, tmp_path):
        for format_ in ("parquet", "tfrecord"):
            path = write(tmp_path, format_)
            with pytest.raises(InputError, match=rf"format must be {format_} for this file. Received: paragraphs"):
                documents(path, format="paragraphs")

    @pytest.mark.parametrize(
        ("data", "name"),
        [
            (packed("zip"), "a ZIP archive"),
            (packed("tar"), "a tar archive"),
            (packed("gztar"), "a tar archive"),
            (b"%PDF-1.7\n...", "a PDF"),
            (b"\xfd7zXZ\x00...", "an xz file"),
            (b"\x89PNG\r\n\x1a\n...", "a PNG picture"),
            (b"PARE" + bytes(20), "an encrypted Parquet file"),
        ],
    )
    def test_what_is_no_text_is_named(self, tmp_path, data, name):
        path = tmp_path / "a.txt"
        path.write_bytes(data)
        with pytest.raises(InputError, match=rf"^{path}: {name}, which is not read: unpack or convert it"):
            documents(path)


class TestJSON:
    OBJECTS = tuple({"id": 1, "text": text} for text in TEXTS)

    @pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a"])
    @pytest.mark.parametrize(
        "dumped",
        [
            lambda objects: json.dumps(objects),
            lambda objects: json.dumps(objects, indent=2),
            lambda objects: "\n".join(json.dumps(each, indent=1) for each in objects),
            lambda objects: "\n".join(map(json.dumps, objects)),
            lambda objects: "\r".join(map(json.dumps, objects)),
            lambda objects: "\ufeff" + "\r\n".join(map(json.dumps, objects)),
        ],
        ids=["array", "indented array", "indented objects", "lines", "carriage returns", "windows"],
    )
    def test_however_it_is_written(self, tmp_path, name, dumped):
        (tmp_path / name).write_text(dumped(self.OBJECTS), encoding="utf-8")
        assert documents(tmp_path / name)[0] == TEXTS

    def test_an_array_of_strings(self, tmp_path):
        (tmp_path / "a.json").write_text(json.dumps(TEXTS))
        assert documents(tmp_path / "a.json")[0] == TEXTS

    def test_a_long_array_is_never_held(self, tmp_path):
        import tracemalloc

        path = tmp_path / "a.json"
        with path.open("w") as file:
            file.write("[")
            for number in range(300):
                file.write(f'{{"text": "{number} {"x" * 200_000}"}},')
            file.write('{"text": "last"}]')
        tracemalloc.start()
        settings = CorpusSettings((str(path),))
        (chunk,) = inputs.find_chunks(settings)
        assert sum(1 for _ in readers.read_texts(chunk, settings, Tally(), print)) == 301
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 20_000_000

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            ('[{"text": "a"}\n{"text": "b"}]', r"line 2: not JSON \(an array must go on or end here\)"),
            ('[{"text": "a"},\n', "line 2: not JSON"),
            ('[{"text": "a"},\n{"text": ]', "line 2: not JSON"),
            ('[{"text": "a"},' + "[" * 200_000, "line 1: a value over 1,000 bytes"),
            ('[{"text": "' + "a" * 1_500_000 + '"}]', "line 1: a value over 1,000 bytes"),
        ],
    )
    def test_broken(self, tmp_path, data, message):
        (tmp_path / "a.json").write_text(data)
        with pytest.raises(InputError, match=rf"^{tmp_path}/a\.json: cannot be read as json: {message}"):
            documents(tmp_path / "a.json", max_line_bytes=1000)

    def test_null_is_counted_and_passed_over(self, tmp_path):
        lines = [{"text": "good"}, {"text": None}, {"text": "fine"}]
        (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, lines)))
        (tmp_path / "a.json").write_text(json.dumps(lines))
        for name in ("a.jsonl", "a.json"):
            texts, (tally,), bad, _ = documents(tmp_path / name)
            assert (texts, tally.nulls, bad) == (["good", "fine"], 1, [])
        assert run(tmp_path / "a.jsonl")[1]["lines_without_text"] == 1

    def test_nothing_but_null(self, tmp_path):
        (tmp_path / "a.jsonl").write_text('{"text": null}\n' * 3)
        with pytest.raises(InputError, match=r"nothing but blank lines and 3 records whose text is null$"):
            run(tmp_path / "a.jsonl")

    def test_another_field(self, tmp_path):
        (tmp_path / "wiki_00").write_text('{"id": 1, "body": "good"}\n')
        with pytest.raises(InputError, match=r"JSON without a field 'text'\. Its fields: id, body\. Name one with"):
            documents(tmp_path / "wiki_00")
        assert documents(tmp_path / "wiki_00", text_field="body")[0] == ["good"]
        assert documents(tmp_path / "wiki_00", format="paragraphs")[0] == ['{"id": 1, "body": "good"}']

    def test_a_first_line_longer_than_what_is_looked_at(self, tmp_path):
        (tmp_path / "wiki_00").write_text(json.dumps({"id": 1, "url": "x" * 100_000, "text": "good"}) + "\n")
        assert documents(tmp_path / "wiki_00")[0] == ["good"]

    @pytest.mark.parametrize(
        "text", ["[Music] plays.", "{he said}", "[1] a note", '{"a": 1} is JSON', "[]", "{}", '"a"']
    )
    def test_prose_that_begins_like_json(self, tmp_path, text):
        (tmp_path / "a.txt").write_text(text)
        assert documents(tmp_path / "a.txt")[0] == [text]


class TestEncodings:
    @pytest.mark.parametrize("mark", [True, False])
    @pytest.mark.parametrize("encoding", ["UTF-16LE", "UTF-16BE", "UTF-32LE", "UTF-32BE"])
    @pytest.mark.parametrize(
        "text", ["One line.\nAnother – line.\n", "第一行文字，很長。\n第二行。\n" * 50, "Привет, мир.\r\n"]
    )
    @pytest.mark.parametrize("name", ["a.txt", "a.jsonl"])
    def test_named_with_the_way_out(self, tmp_path, encoding, mark, text, name):
        (tmp_path / name).write_bytes((("\ufeff" if mark else "") + text).encode(encoding))
        with pytest.raises(
            InputError, match=rf"text must be UTF-8. Received: {encoding}; convert it: iconv -f {encoding}"
        ):
            documents(tmp_path / name)

    def test_zeros_in_plain_text_are_no_other_encoding(self, tmp_path):
        (tmp_path / "a.txt").write_bytes(b"good line of text\n" * 200 + b"a\0b\n\0\0\n \0")
        texts, _, bad, _ = documents(tmp_path / "a.txt")
        assert len(texts) == 1
        assert {reason for _, reason, _ in bad} == {"contains a NUL character"}

    @pytest.mark.parametrize(
        ("data", "way_out"),
        [
            ("Größe und Länge".encode("latin-1"), "convert it to UTF-8, with iconv for one"),
            (b'{"body": "x"}', "name the field with --text-field"),
            (b"{broken", "correct it, or name its format with --format"),
        ],
    )
    def test_a_share_that_would_not_help_is_not_advised(self, tmp_path, data, way_out):
        path = tmp_path / ("a.jsonl" if data[:1] == b"{" else "a.txt")
        path.write_bytes((data + b"\n") * 3)
        with pytest.raises(InputError, match=rf"3 of 3 lines cannot be used, .*\. No text is left: {way_out}$"):
            run(path)


class TestLineEnds:
    LINES = ("one.", "two.", "", "three.", "", "", "four.")

    @pytest.mark.parametrize("ends", ["\r", "\r\n", "\n"])
    def test_all_kinds(self, tmp_path, ends):
        (tmp_path / "a.txt").write_bytes(ends.join(self.LINES).encode())
        assert documents(tmp_path / "a.txt")[0] == ["one.\ntwo.", "three.", "four."]

    def test_mixed_in_a_file(self, tmp_path):
        (tmp_path / "a.txt").write_bytes(("\n".join(self.LINES) + "\n\n" + "\r".join(self.LINES)).encode())
        assert len(documents(tmp_path / "a.txt")[0]) == 6

    def test_cutting_changes_nothing(self, tmp_path, monkeypatch):
        monkeypatch.setattr(inputs, "_MIN_CHUNK", 7)
        monkeypatch.setattr(inputs, "_CHUNKS", 10_000)
        (tmp_path / "a.txt").write_bytes(("\r".join(self.LINES * 30)).encode())
        texts, tallies, _, _ = documents(tmp_path / "a.txt")
        assert len(tallies) > 10
        assert texts == ["one.\ntwo."] + ["three.", "four.\none.\ntwo."] * 29 + [
            "three.",
            "four.",
        ]

    def test_doubled_returns_are_one_line_end(self, tmp_path):
        (tmp_path / "a.txt").write_bytes(b"one.\r\r\ntwo.\r\r\n\r\r\nthree.\r\r\n")
        assert documents(tmp_path / "a.txt")[0] == ["one.\ntwo.", "three."]

    def test_single_ones_inside_lines_stay_and_are_told(self, tmp_path):
        (tmp_path / "a.txt").write_bytes(b"a line.\n" * 100 + b"one\rtwo\r\n")
        assert documents(tmp_path / "a.txt")[0][0].endswith("one\rtwo")
        assert run(tmp_path / "a.txt")[1]["carriage_returns_in_lines"] == 1

    @pytest.mark.parametrize("blank", ["\xa0", "\u3000", " \u2003\t", "\u2028", "\x1f", "\x85", "\u1680\u205f"])
    def test_lines_blank_to_a_reader_part_documents(self, tmp_path, blank):
        (tmp_path / "a.txt").write_text(f"one.\n{blank}\n\u3000two.\n{blank}\n", newline="")
        assert documents(tmp_path / "a.txt")[0] == ["one.", "\u3000two."]

    def test_they_are_lines_of_one_document_where_a_file_is_one(self, tmp_path):
        (tmp_path / "a.txt").write_text("one.\n\u3000\ntwo.")
        assert len(documents(tmp_path / "a.txt", format="document")[0]) == 1


class TestShares:
    def test_a_line_over_the_bound_counts_by_its_bytes(self, tmp_path):
        (tmp_path / "a.txt").write_text("short line.\n" * 10_000 + "x" * 11_000_000)
        with pytest.raises(
            InputError, match=r"11,000,000 of 11,110,000 bytes cannot be used, more than the 0.01 allowed"
        ):
            run(tmp_path / "a.txt")
        counters = run(tmp_path / "a.txt", max_bad_share=0.999)[1]
        assert (counters["bytes"], counters["bytes_set_aside"]) == (11_110_000, 11_000_000)


class TestWikiExtractor:
    def test_articles(self, tmp_path):
        article = (
            '<doc id="{0}" url="https://x/?curid={0}" title="T {0}">\nT {0}\n\nOne of {0}.\n\nTwo of {0}.\n</doc>\n'
        )
        for folder in ("AA", "AB"):
            (tmp_path / folder).mkdir()
            for number in range(2):
                text = "".join(article.format(f"{folder}{number}{each}") for each in range(3))
                (tmp_path / folder / f"wiki_0{number}").write_text(text)
        texts = documents(tmp_path)[0]
        assert len(texts) == 12
        assert texts[0] == "T AA00\nOne of AA00.\nTwo of AA00."


class TestTFRecord:
    def test_a_feature_of_several_strings_is_read_whole(self, tmp_path):
        (tmp_path / "a.tfrecord").write_bytes(tfrecord.frame([record("one.", "two.\nthree."), record("four.")]))
        assert documents(tmp_path / "a.tfrecord")[0] == ["one.\ntwo.\nthree.", "four."]


class TestGzip:
    DATA = "\n\n".join(TEXTS).encode()

    @pytest.mark.parametrize("behind", [b"", b"\0", b"\0" * 700_000, gzip.compress(b"", 9)], ids=range(4))
    def test_padding(self, tmp_path, behind):
        (tmp_path / "a.gz").write_bytes(gzip.compress(self.DATA) + behind)
        assert documents(tmp_path / "a.gz")[::3] == (TEXTS, [])

    def test_members(self, tmp_path):
        parts = [self.DATA[:20], self.DATA[20:31], self.DATA[31:]]
        (tmp_path / "a.gz").write_bytes(b"\0\0".join(map(gzip.compress, parts)))
        assert documents(tmp_path / "a.gz")[0] == TEXTS

    @pytest.mark.parametrize("behind", [b"garbage", b"\0\0g", b"\x1f\x8b", b"\x1f" + b"\0" * 600_000])
    def test_garbage_is_left_out_and_told(self, tmp_path, behind):
        (tmp_path / "a.gz").write_bytes(gzip.compress(self.DATA) + behind)
        texts, _, _, notes = documents(tmp_path / "a.gz")
        assert (texts, len(notes)) == (TEXTS, 1)
        aside = tmp_path / "aside.jsonl"
        _, counters = run(tmp_path / "a.gz", str(aside))
        assert counters["files_read_in_part"] == 1
        (row,) = map(json.loads, aside.read_text().splitlines())
        assert row["file"] == str(tmp_path / "a.gz")
        assert "behind the last gzip member" in row["reason"]

    @pytest.mark.parametrize(
        "damage", [lambda data: data[:-9], lambda data: data[:-6] + b"xxxxxx", lambda data: data[:5]]
    )
    def test_damaged(self, tmp_path, damage):
        (tmp_path / "a.gz").write_bytes(damage(gzip.compress(self.DATA)))
        with pytest.raises(InputError, match=rf"^{tmp_path}/a.gz: cannot be read as paragraphs: the gzip file is"):
            documents(tmp_path / "a.gz")
