"""Text files to documents: checked, cut into sentences, each once.

A document's id is a hash of its text. `ReadDocuments` reads the files twice: a first pass finds duplicates, bad lines
and totals, and only hashes leave it; the second gives the documents. So no runner has to hold the text.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.parquet
from apache_beam.io.filesystem import CompressionTypes, FileMetadata, MatchResult
from apache_beam.io.filesystems import FileSystems
from apache_beam.metrics import Metrics
from apache_beam.pvalue import AsMultiMap, AsSingleton, TaggedOutput

from preprocessing.beam.runner import NAMESPACE
from preprocessing.corpus import readers, sentences
from preprocessing.corpus.chunks import COMPRESSIONS, Chunk, Tally, compression_of
from preprocessing.errors import InputError
from preprocessing.examples.token_store import ID_BYTES, ID_TYPE
from preprocessing.settings import CorpusSettings

_FORMATS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".parquet": "parquet", ".tfrecord": "tfrecord",
            ".tfrecords": "tfrecord"}  # fmt: skip
_MIN_CHUNK, _MAX_CHUNK, _CHUNKS = 1 << 20, 32 << 20, 64
_ORDINAL = np.dtype([("id", ID_TYPE), ("chunk", "<u4"), ("document", "<u4")])
_SHOWN_BYTES = 1000  # of a line that is set aside
_SHOWN_LINES = 1000  # of those that are set aside of a chunk


class Document(NamedTuple):
    """`id`: hash of the text, 16 bytes."""

    id: bytes
    sentences: Sequence[str]


@dataclasses.dataclass
class ChunkReport:
    """What was found in a chunk; `bad_lines` are (line in the chunk, reason, beginning), the first ones."""

    chunk: Chunk
    tally: Tally = dataclasses.field(default_factory=Tally)
    bad_lines: list[tuple[int, str, bytes]] = dataclasses.field(default_factory=list)

    def set_aside(self, line: int, reason: str, data: bytes) -> None:
        if len(self.bad_lines) < _SHOWN_LINES:
            self.bad_lines.append((line, reason, data[:_SHOWN_BYTES]))


def find_chunks(settings: CorpusSettings) -> list[Chunk]:
    """The input, cut for reading. Raises InputError where nothing matches, a file cannot be read, everything is empty,
    or formats are mixed."""
    if not settings.input:
        raise InputError("no input: name a file, a folder or a glob")
    found = [(file.path, file.size_in_bytes) for file in files(settings.input)]
    for path, _ in found:
        with _reading(path):
            FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED).close()
    if not any(size for _, size in found):
        raise InputError(f"{found[0][0]}: {'the file is' if len(found) == 1 else 'all input files are'} empty")
    found = [(path, size) for path, size in found if size]
    by_format: dict[str, str] = {}
    for path, _ in found:
        by_format.setdefault(settings.format if settings.format != "auto" else _format_of(path), path)
    if len(by_format) > 1:
        formats = ", ".join(f"{name} ({path})" for name, path in sorted(by_format.items()))
        raise InputError(
            f"all input files must have one format; name it with --format or run once for each. Received: {formats}"
        )
    (format_,) = by_format
    chunk_bytes = min(max(sum(size for _, size in found) // _CHUNKS, _MIN_CHUNK), _MAX_CHUNK)
    chunks: list[Chunk] = []
    for path, size in found:
        for start, end, share in _cut(path, size, format_, chunk_bytes, settings):
            chunks.append(Chunk(len(chunks), path, format_, start, end, share))
    if not chunks:
        raise InputError(f"{found[0][0]}: {'the file holds' if len(found) == 1 else 'all input files hold'} no row")
    return chunks


def check_input(settings: CorpusSettings) -> None:
    """Raises InputError early, before any worker starts: see `find_chunks`."""
    find_chunks(settings)


def files(patterns: Iterable[str]) -> list[FileMetadata]:
    """The files that file names, folders and globs stand for, each once, sorted by path. Raises InputError where one
    matches nothing."""
    found = {file.path: file for pattern in patterns for file in _match(pattern)}
    return [found[path] for path in sorted(found)]


@contextlib.contextmanager
def _reading(name: str) -> Iterator[None]:
    """Turns what goes wrong in the block into InputError: each filesystem has errors of its own."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        cause = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{name}: cannot be read: {cause}") from error


def _match(pattern: str) -> list[FileMetadata]:
    """The files of one pattern. As in a shell, hidden ones must be named."""
    with _reading(pattern):
        if os.path.isdir(pattern):
            paths = [os.path.join(pattern, name) for name in os.listdir(pattern) if not name.startswith(".")]
            found = [_metadata(path) for path in paths if os.path.isfile(path)]
        elif os.path.exists(pattern):
            if not os.path.isfile(pattern):
                raise InputError(f"{pattern}: not a regular file, and input is read twice: write it to a file first")
            found = [_metadata(pattern)]
        else:
            # Beam finds nothing for a glob without a folder.
            glob = pattern if os.path.dirname(pattern) else os.path.join(".", pattern)
            matches = FileSystems.match([FileSystems.join(glob, "*"), glob])
            inside, named = ([file for file in match.metadata_list if _is_meant(file, match)] for match in matches)
            found = inside or named
        if not found:
            raise InputError(f"no file matches {pattern!r}: check the path, and quote a glob")
    return found


def _metadata(path: str) -> FileMetadata:
    return FileMetadata(path, os.path.getsize(path), os.path.getmtime(path))


def _is_meant(file: FileMetadata, match: MatchResult) -> bool:
    hidden = os.path.basename(file.path).startswith(".") and not os.path.basename(match.pattern).startswith(".")
    return not hidden and (os.path.isfile(file.path) or not os.path.exists(file.path))  # or is on another filesystem


def _format_of(path: str) -> str:
    path = path.lower()
    for ending in COMPRESSIONS:
        path = path.removesuffix(ending)
    return next((name for ending, name in _FORMATS.items() if path.endswith(ending)), "paragraphs")


def _cut(path, size, format_, chunk_bytes, settings):
    """(start, end, bytes) of the chunks of one file."""
    if format_ == "parquet":
        try:
            with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as handle:
                file = pyarrow.parquet.ParquetFile(handle)
                readers.check_column(file, path, settings.text_field)
                groups = file.num_row_groups
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: damaged, or not a Parquet file: {str(error).splitlines()[0]}") from error
        return [(group, group + 1, size // groups) for group in range(groups)]
    if format_ not in readers.SPLITTABLE or compression_of(path) or size <= chunk_bytes:
        return [(0, None, size)]
    return [(at, min(at + chunk_bytes, size), min(chunk_bytes, size - at)) for at in range(0, size, chunk_bytes)]


class ReadDocuments(beam.PTransform):
    """pbegin -> PCollection of Document, each text once.

    Lines that cannot be used are counted and, with `set_aside`, written there as JSON lines (file, line, reason, text);
    the run stops with InputError (see `beam_runner.run`) when their share exceeds `max_bad_share`, or when there is
    no text at all. Documents come in no particular order.
    """

    def __init__(self, settings: CorpusSettings, set_aside: str | None = None):
        super().__init__()
        self._settings = settings
        self._set_aside = set_aside

    def expand(self, pbegin):
        chunks = pbegin | "Chunks" >> Chunks(self._settings)
        survey = chunks | "Survey" >> beam.ParDo(_Survey(self._settings)).with_output_types(
            tuple[int, bytes]
        ).with_outputs("reports", main="ids")
        checked = (
            survey.reports
            | "Reports" >> beam.GroupByKey()
            | "Check" >> beam.MapTuple(lambda _, reports: check_reports(reports, self._settings, self._set_aside))
        )
        repeated = survey.ids | beam.GroupByKey() | "Repeated" >> beam.FlatMap(_repeated)
        return chunks | "Read" >> beam.ParDo(
            _Read(self._settings), AsMultiMap(repeated), AsSingleton(checked)
        ).with_output_types(Document)


class Chunks(beam.PTransform):
    """pbegin -> (number, [Chunk]), grouped so that the workers share them out."""

    def __init__(self, settings: CorpusSettings):
        super().__init__()
        self._settings = settings

    def expand(self, pbegin):
        numbered = [(chunk.index, chunk) for chunk in find_chunks(self._settings)]
        return (
            pbegin
            | beam.Impulse()
            | beam.FlatMap(lambda _: numbered).with_output_types(tuple[int, Chunk])
            | beam.GroupByKey()
        )


class _Survey(beam.DoFn):
    """Chunks -> (bucket, packed `_ORDINAL`s); tagged "reports": (0, ChunkReport)."""

    def __init__(self, settings):
        self._settings = settings

    def process(self, numbered):
        for chunk in numbered[1]:
            report = ChunkReport(chunk)
            texts = readers.read_texts(chunk, self._settings, report.tally, report.set_aside)
            digests = [digest(text) for text in texts]
            found = np.empty(len(digests), _ORDINAL)
            found["id"] = np.frombuffer(b"".join(digests), ID_TYPE)
            found["chunk"] = chunk.index
            found["document"] = np.arange(len(digests))
            buckets = np.array([digest[0] for digest in digests], np.uint8)
            for bucket in np.unique(buckets):
                yield int(bucket), found[buckets == bucket].tobytes()
            yield TaggedOutput("reports", (0, report))


def digest(text: str) -> bytes:
    """The id of the document of that text."""
    return hashlib.blake2b(text.encode(), digest_size=ID_BYTES).digest()


def make_document(text: str, format_: str, settings: CorpusSettings) -> Document:
    """The document of a text that `readers.read_texts` gave, its sentences as they stand or found by rules."""
    found = sentences.given(text) if format_ == "sentences" else sentences.split(text, settings.language)
    return Document(digest(text), tuple(found))


def check_reports(reports: Iterable[ChunkReport], settings: CorpusSettings, set_aside: str | None) -> Tally:
    """Sums of all chunks' reports, counted in Beam's counters; writes the bad lines to `set_aside`. Raises InputError
    where they are too many, or where there is no document at all."""
    reports = sorted(reports, key=lambda report: report.chunk.index)
    total = Tally(
        *(sum(values) for values in zip(*(dataclasses.astuple(report.tally) for report in reports), strict=True))
    )
    if set_aside and total.bad:
        with FileSystems.create(set_aside) as file:
            file.writelines(json.dumps(line, ensure_ascii=False).encode() + b"\n" for line in _bad_lines(reports))
    if total.bad > settings.max_bad_share * total.lines:
        first = next(_bad_lines(reports))
        raise InputError(
            f"{first['file']}:{first['line']}: {first['reason']}; {total.bad:,} of {total.lines:,} lines cannot be "
            f"used, more than the {settings.max_bad_share:.4g} allowed. Correct them or raise --max-bad-share"
        )
    if not total.documents:
        raise InputError(f"no text in {', '.join(settings.input)}: nothing but blank lines")
    for name, count in (("lines", total.lines), ("lines_set_aside", total.bad), ("documents_split", total.split)):
        Metrics.counter(NAMESPACE, name).inc(count)
    return total


def _bad_lines(reports: Iterable[ChunkReport]) -> Iterator[dict[str, str | int]]:
    """What `set_aside` tells of each bad line, from the reports in the order of their chunks."""
    before: dict[str, int] = defaultdict(int)
    for report in reports:
        path, number = report.chunk.path, 0
        for line, reason, data in report.bad_lines:
            number = 1 + before[path] + line
            yield {"file": path, "line": number, "reason": reason, "text": data.decode(errors="backslashreplace")}
        if more := report.tally.bad - len(report.bad_lines):
            yield {
                "file": path,
                "line": number,
                "reason": f"{more:,} more lines after this one, not listed",
                "text": "",
            }
        before[path] += report.tally.newlines


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
    """Chunks -> Documents, without the repeated ones."""

    def __init__(self, settings):
        self._settings = settings

    def process(self, numbered, repeated, checked):
        for chunk in numbered[1]:
            skip = set(np.frombuffer(b"".join(repeated[chunk.index]), "<u4").tolist())
            texts = readers.read_texts(chunk, self._settings, Tally(), lambda *line: None)
            for number, text in enumerate(texts):
                if number not in skip:
                    yield make_document(text, chunk.format, self._settings)
