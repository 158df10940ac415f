"""Text files to documents: checked, cut into sentences, each once.

A document's id is a hash of its text. The files are read twice: a first pass finds duplicates, bad lines and totals,
and only hashes leave it; the second gives the documents. So a run stops early on bad input, and no runner has to hold
the text.
"""

import hashlib
import json
import os
from typing import NamedTuple

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.parquet
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems
from apache_beam.metrics import Metrics
from apache_beam.pvalue import AsMultiMap, AsSingleton, TaggedOutput

from preprocessing import readers, sentences
from preprocessing.beam_runner import NAMESPACE
from preprocessing.errors import InputError
from preprocessing.readers import Chunk, Tally
from preprocessing.settings import CorpusSettings
from preprocessing.token_store import ID_BYTES, ID_TYPE

_FORMATS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".parquet": "parquet", ".tfrecord": "tfrecord",
            ".tfrecords": "tfrecord"}  # fmt: skip
_MIN_CHUNK, _MAX_CHUNK, _CHUNKS = 1 << 20, 32 << 20, 64
_ORDINAL = np.dtype([("id", ID_TYPE), ("chunk", "<u4"), ("document", "<u4")])
_SHOWN_BYTES = 1000  # of a line that is set aside


class Document(NamedTuple):
    """`id`: hash of the text, 16 bytes."""

    id: bytes
    sentences: tuple[str, ...]


def find_chunks(settings: CorpusSettings) -> list[Chunk]:
    """The input, cut for reading. Raises InputError where nothing matches, a file cannot be read, everything is empty,
    or formats are mixed."""
    if not settings.input:
        raise InputError("no input: name a file, a folder or a glob")
    files = sorted({file for pattern in settings.input for file in _match(pattern)})
    if not any(size for _, size in files):
        raise InputError(f"{files[0][0]}: {'the file is' if len(files) == 1 else 'all input files are'} empty")
    files = [(path, size) for path, size in files if size]
    by_format: dict[str, str] = {}
    for path, _ in files:
        by_format.setdefault(settings.format if settings.format != "auto" else _format_of(path), path)
    if len(by_format) > 1:
        found = ", ".join(f"{name} ({path})" for name, path in sorted(by_format.items()))
        raise InputError(
            f"all input files must have one format; name it with --format or run once for each. Received: {found}"
        )
    (format_,) = by_format
    chunk_bytes = min(max(sum(size for _, size in files) // _CHUNKS, _MIN_CHUNK), _MAX_CHUNK)
    chunks: list[Chunk] = []
    for path, size in files:
        for start, end, share in _cut(path, size, format_, chunk_bytes, settings):
            chunks.append(Chunk(len(chunks), path, format_, start, end, share))
    return chunks


def check_input(settings: CorpusSettings) -> None:
    """Raises InputError early, before any worker starts: see `find_chunks`."""
    find_chunks(settings)


def _match(pattern: str) -> list[tuple[str, int]]:
    """(path, bytes) of the files that a file name, folder or glob stands for."""
    try:
        inside, found = (match.metadata_list for match in FileSystems.match([FileSystems.join(pattern, "*"), pattern]))
        files = [(file.path, file.size_in_bytes) for file in inside or found if not os.path.isdir(file.path)]
        if not files:
            raise InputError(f"no file matches {pattern!r}: check the path, and quote a glob")
        for path, _ in files:
            FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED).close()
    except InputError:
        raise
    except Exception as error:  # each filesystem has errors of its own
        cause = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{pattern}: cannot be read: {cause}") from error
    return files


def _format_of(path: str) -> str:
    for ending in readers.COMPRESSIONS:
        path = path.removesuffix(ending)
    return next((name for ending, name in _FORMATS.items() if path.lower().endswith(ending)), "paragraphs")


def _cut(path, size, format_, chunk_bytes, settings):
    """(start, end, bytes) of the chunks of one file."""
    if format_ == "parquet":
        try:
            with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as handle:
                file = pyarrow.parquet.ParquetFile(handle)
                readers.check_column(file, path, settings.text_field)
                groups = file.num_row_groups
        except pa.ArrowException as error:
            raise InputError(f"{path}: not a Parquet file: {str(error).splitlines()[0]}") from error
        return [(group, group + 1, size // groups) for group in range(groups)]
    if format_ not in readers.SPLITTABLE or readers.compression_of(path) or size <= chunk_bytes:
        return [(0, None, size)]
    return [(at, min(at + chunk_bytes, size), min(chunk_bytes, size - at)) for at in range(0, size, chunk_bytes)]


class ReadDocuments(beam.PTransform):
    """pbegin -> PCollection of Document, each text once.

    Lines that cannot be used are counted and, with `set_aside`, written there as JSON lines (file, line, reason, text);
    the run stops with InputError (see `beam_transforms.run`) when their share exceeds `max_bad_share`, or when there is
    no text at all. Documents come in no particular order.
    """

    def __init__(self, settings: CorpusSettings, set_aside: str | None = None):
        super().__init__()
        self._settings = settings
        self._set_aside = set_aside

    def expand(self, pbegin):
        chunks = pbegin | "Chunks" >> beam.Create(find_chunks(self._settings)) | beam.Reshuffle()
        survey = chunks | "Survey" >> beam.ParDo(_Survey(self._settings)).with_output_types(
            tuple[int, bytes]
        ).with_outputs("lines", "bad", main="ids")
        totals = survey.lines | "Totals" >> beam.CombineGlobally(_add_up).without_defaults()
        line_starts = survey.lines | "LineEnds" >> beam.Map(lambda counts: (counts[0], counts[1:3]))
        bad = survey.bad | "Number" >> beam.FlatMap(_number_line, AsMultiMap(line_starts))
        first_bad = bad | "FirstBad" >> beam.CombineGlobally(_first_bad)
        checked = totals | "Check" >> beam.Map(_check, self._settings, AsSingleton(first_bad))
        if self._set_aside:
            _ = (
                bad
                | beam.Map(json.dumps, ensure_ascii=False)
                | beam.io.WriteToText(self._set_aside, num_shards=1, shard_name_template="", skip_if_empty=True)
            )
        repeated = survey.ids | beam.GroupByKey() | "Repeated" >> beam.FlatMap(_repeated)
        return chunks | "Read" >> beam.ParDo(
            _Read(self._settings), AsMultiMap(repeated), AsSingleton(checked)
        ).with_output_types(Document)


class _Survey(beam.DoFn):
    """Chunk -> (bucket, packed `_ORDINAL`s); tagged: "lines" (file, start, newlines, lines, bad, documents, split) and
    "bad" (file, start, line in the chunk, reason, beginning)."""

    def __init__(self, settings):
        self._settings = settings

    def process(self, chunk):
        tally = Tally()
        bad = []
        digests = [
            _digest(text) for text in readers.read_texts(chunk, self._settings, tally, lambda *line: bad.append(line))
        ]
        found = np.empty(len(digests), _ORDINAL)
        found["id"] = np.frombuffer(b"".join(digests), ID_TYPE)
        found["chunk"] = chunk.index
        found["document"] = np.arange(len(digests))
        buckets = np.array([digest[0] for digest in digests], np.uint8)
        for bucket in np.unique(buckets):
            yield int(bucket), found[buckets == bucket].tobytes()
        for line, reason, data in bad:
            yield TaggedOutput("bad", (chunk.path, chunk.start, line, reason, data[:_SHOWN_BYTES]))
        yield TaggedOutput(
            "lines", (chunk.path, chunk.start, tally.newlines, tally.lines, tally.bad, tally.documents, tally.split)
        )


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=ID_BYTES).digest()


def _add_up(counts):
    """Sums of (lines, bad, documents, split)."""
    rows = [row[3:] if len(row) > 4 else row for row in counts]
    return tuple(int(total) for total in np.array(rows).reshape(-1, 4).sum(axis=0))


def _number_line(bad, line_starts):
    path, start, line, reason, data = bad
    number = 1 + line + sum(newlines for at, newlines in line_starts[path] if at < start)
    yield {"file": path, "line": number, "reason": reason, "text": data.decode(errors="backslashreplace")}


def _first_bad(lines):
    return min((line for line in lines if line), key=lambda line: (line["file"], line["line"]), default=None)


def _check(totals, settings, first_bad):
    lines, bad, documents, split = totals
    if bad > settings.max_bad_share * lines:
        raise InputError(
            f"{first_bad['file']}:{first_bad['line']}: {first_bad['reason']}; {bad:,} of {lines:,} lines cannot be "
            f"used, more than the {settings.max_bad_share:.4g} allowed. Correct them or raise --max-bad-share"
        )
    if not documents:
        raise InputError(f"no text in {', '.join(settings.input)}: nothing but blank lines")
    for name, count in (("lines", lines), ("lines_set_aside", bad), ("documents_split", split)):
        Metrics.counter(NAMESPACE, name).inc(count)
    return totals


def _repeated(bucket):
    """(bucket, packed ordinals) -> (chunk, packed numbers of the documents that repeat an earlier one)."""
    found = np.frombuffer(b"".join(bucket[1]), _ORDINAL)
    found = found[np.lexsort((found["document"], found["chunk"]))]
    _, first = np.unique(found["id"], return_index=True)
    again = np.delete(found, first)
    Metrics.counter(NAMESPACE, "duplicates").inc(len(again))
    for chunk in np.unique(again["chunk"]):
        yield int(chunk), again["document"][again["chunk"] == chunk].tobytes()


class _Read(beam.DoFn):
    """Chunk -> Documents, without the repeated ones."""

    def __init__(self, settings):
        self._settings = settings

    def process(self, chunk, repeated, checked):
        skip = set(np.frombuffer(b"".join(repeated[chunk.index]), "<u4").tolist())
        texts = readers.read_texts(chunk, self._settings, Tally(), lambda *line: None)
        for number, text in enumerate(texts):
            if number in skip:
                continue
            if chunk.format == "sentences":
                found = sentences.given(text)
            else:
                found = sentences.split(text, self._settings.language)
            yield Document(_digest(text), tuple(found))
