"""What people have for text and for checkpoints: files of every format and folders, with something changed."""

import bz2
import gzip
import io
import json
import os
import pathlib
import random
import resource
import shutil
import tempfile
import time
import warnings

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from hypothesis import strategies as st

from model import checkpoints
from preprocessing import tfrecord
from preprocessing.corpus import inputs, paths, readers
from preprocessing.corpus.chunks import Tally
from preprocessing.errors import InputError
from preprocessing.settings import CorpusSettings
from tests.fuzz import fuzzed, mutated
from tests.model.checkpoints.test_checkpoints import VOCAB, randomised

SECONDS = 30  # of one input, on a busy machine
MEMORY = 512 << 10  # KB that all inputs together may take more; each is below a megabyte
TEXTS = [
    "One sentence. And another.\nA second line.",
    "Ein drittes – mit Ümläuten.",
    "第三。\n文字\u3000です。",
    "a\r\nb",
]

texts = st.lists(st.sampled_from(TEXTS) | st.text(max_size=30), min_size=1, max_size=6)


@pytest.fixture(scope="module", autouse=True)
def stated_memory():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEMORY


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


def answer(act):
    """What it gives, or None where it refuses, in one line."""
    start = time.monotonic()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return act()
    except InputError as error:
        told = str(error)
    finally:
        assert time.monotonic() - start < SECONDS
    assert told.strip()
    assert "\n" not in told
    return None


def read(path, settings):
    """(texts, tallies, set aside) of a run on one file."""
    found, tallies, aside = [], [], []
    for chunk in inputs.find_chunks(settings):
        tallies.append(Tally())
        found += readers.read_texts(chunk, settings, tallies[-1], lambda *line: aside.append(line))
    assert sum(tally.documents for tally in tallies) == len(found)
    assert sum(tally.bad for tally in tallies) == len(aside)
    assert all(0 <= tally.bad_bytes <= tally.bytes and tally.bad <= tally.lines for tally in tallies)
    for text in found:
        assert text.strip()
        assert "\0" not in text
        assert all(line.strip(" \t\r\x0b\x0c") == line and line for line in text.split("\n")) or "\r" in text
        text.encode()
    return found, tallies, aside


def example(text):
    feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[text.encode(errors="replace")]))
    return tf.train.Example(features=tf.train.Features(feature={"text": feature})).SerializeToString()


def parquet(found, **options):
    file = io.BytesIO()
    column = pa.array([text.encode(errors="replace").decode() for text in found])
    pq.write_table(pa.table({"text": column, "n": list(range(len(found)))}), file, row_group_size=2, **options)
    return file.getvalue()


def as_json(found):
    return json.dumps([{"text": text} for text in found])


WRITTEN = {
    "text": lambda found: "\n\n".join(found).encode(errors="replace"),
    "utf-16": lambda found: "\n\n".join(found).encode("utf-16", errors="replace"),
    "jsonl": lambda found: "\n".join(json.dumps({"text": text}) for text in found).encode(),
    "array": lambda found: as_json(found).encode(),
    "indented": lambda found: json.dumps(json.loads(as_json(found)), indent=2).encode(),
    "tfrecord": lambda found: tfrecord.frame(map(example, found)),
    "parquet": parquet,
    "parquet plain": lambda found: parquet(found, use_dictionary=False, compression="none"),
    "wiki": lambda found: "".join(f'<doc id="1" url="x" title="t">\n{text}\n</doc>\n' for text in found).encode(
        errors="replace"
    ),
}
PACKED = {"": lambda data: data, ".gz": gzip.compress, ".bz2": bz2.compress}
NAMES = ("a", "a.txt", "a.json", "a.jsonl", "a.parquet", "a.tfrecord", "a.tfrecord-00000-of-00001")
FORMATS = ("auto", "auto", "auto", "sentences", "document", "jsonl", "parquet", "tfrecord")


@st.composite
def file_bytes(draw):
    written, packed = draw(st.sampled_from(sorted(WRITTEN))), draw(st.sampled_from(sorted(PACKED)))
    data = draw(mutated(texts.map(WRITTEN[written])))
    data = PACKED[packed](data)
    return draw(mutated(st.just(data))) if packed and draw(st.booleans()) else data


@fuzzed(
    data=file_bytes(),
    name=st.sampled_from(NAMES),
    ending=st.sampled_from(sorted(PACKED)),
    format_=st.sampled_from(FORMATS),
    bounds=st.sampled_from([{}, {"max_line_bytes": 20}, {"max_document_bytes": 15}]),
)
def test_files_of_any_format_changed(folder, data, name, ending, format_, bounds):
    path = folder / (name + ending)
    path.write_bytes(data)
    answer(lambda: read(path, CorpusSettings((str(path),), format=format_, **bounds)))
    path.unlink()


@fuzzed(found=texts, written=st.sampled_from(sorted(WRITTEN)), packed=st.sampled_from(sorted(PACKED)))
def test_nothing_is_left_out_in_silence(folder, found, written, packed):
    """What stands in a whole file comes out, whatever its format, but for what was set aside."""
    path = folder / "whole"
    path.write_bytes(PACKED[packed](WRITTEN[written](found)))
    result = answer(lambda: read(path, CorpusSettings((str(path),))))
    path.unlink()
    if result is None:
        return
    texts_, tallies, aside = result
    wanted = "".join("".join(found).encode(errors="replace").decode().split())
    wiki = ("<doc" in wanted) or ("</doc>" in wanted)
    if not aside and not wiki and not any(tally.nulls for tally in tallies):
        assert "".join("".join(texts_).split()).replace("\ufeff", "") == wanted.replace("\ufeff", "")


@fuzzed(
    names=st.lists(
        st.text("ab._~#*[]{},' \\ü\n", min_size=1, max_size=5).filter(lambda name: name.strip(".") and name.strip()),
        min_size=1,
        max_size=6,
    ),
    pattern=st.sampled_from(["", "/", "/*", "/**", "/*/*", "/{a,b}*", "/[ab]*", "/_*", "/.*"]),
)
def test_each_file_is_read_or_told(names, pattern):
    with tempfile.TemporaryDirectory(prefix="f[1]*") as root:
        for number, name in enumerate(names):
            place = pathlib.Path(root, *([name, f"f{number}"] if number % 2 else [name]))
            try:
                place.parent.mkdir(exist_ok=True)
                place.write_text("text")
            except OSError:
                continue  # a name that stands for a file and a folder
        found = answer(lambda: paths.find([root + pattern]))
        if found is None or pattern not in ("", "/"):
            return
        known = {file.path for file in found.files} | {path for path, _ in found.passed_over}
        for place, _, files in os.walk(root):
            for file in files:
                path = os.path.join(place, file)
                assert any(path == os.path.normpath(each) or path.startswith(each + "/") for each in known), path


# -------------------------------------------------------------------------------------------------------- checkpoints


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Folder of a checkpoint by format."""
    encoder, folders = randomised(), {}
    for kind in checkpoints.FORMATS:
        folders[kind] = tmp_path_factory.mktemp(kind)
        checkpoints.save_as(kind, encoder, folders[kind], VOCAB, lower_case=False)
    return folders


@fuzzed(kind=st.sampled_from(checkpoints.FORMATS), seed=st.integers(0, 2**32), data=st.data())
def test_a_checkpoint_with_one_thing_changed(folder, written, kind, seed, data):
    chance = random.Random(seed)
    copy = folder / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(written[kind], copy)
    path = chance.choice(sorted(path for path in copy.rglob("*") if path.is_file()))
    change = chance.choice(["remove", "empty", "cut", "mutate", "folder", "json"])
    content = path.read_bytes()
    if change == "remove" or change == "folder":
        path.unlink()
        if change == "folder":
            path.mkdir()
    elif change == "json" and path.suffix == ".json" and isinstance(json.loads(content), dict):
        values = json.loads(content)
        key = chance.choice(sorted(values) or ["x"])
        values[key] = data.draw(st.none() | st.integers() | st.text(max_size=3) | st.lists(st.integers(), max_size=2))
        path.write_text(json.dumps(values))
    elif change == "empty" or change == "cut":
        path.write_bytes(content[: chance.randrange(len(content) or 1) if change == "cut" else 0])
    else:
        path.write_bytes(data.draw(mutated(st.just(content))))

    def load():
        checkpoints.load(copy, report=lambda line: None)
        checkpoints.tokenizer(copy)

    answer(load)
