"""Which files are input, of which format, and in which chunks they are read."""

import contextlib
import os
from collections.abc import Iterable, Iterator

import pyarrow as pa
import pyarrow.parquet
from apache_beam.io.filesystem import CompressionTypes, FileMetadata, MatchResult
from apache_beam.io.filesystems import FileSystems

from preprocessing.corpus import readers
from preprocessing.corpus.chunks import COMPRESSIONS, Chunk, compression_of
from preprocessing.errors import InputError
from preprocessing.settings import CorpusSettings

_FORMATS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".parquet": "parquet", ".tfrecord": "tfrecord",
            ".tfrecords": "tfrecord"}  # fmt: skip
_MIN_CHUNK, _MAX_CHUNK, _CHUNKS = 1 << 20, 32 << 20, 64


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
