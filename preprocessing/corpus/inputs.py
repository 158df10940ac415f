"""Which files are input, what they hold, and in which chunks they are read."""

import dataclasses
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from apache_beam.io.filesystem import FileMetadata

from preprocessing.corpus import parquet, paths, readers, spans
from preprocessing.corpus.chunks import Chunk
from preprocessing.corpus.contents import Content, look
from preprocessing.errors import InputError
from preprocessing.settings import CorpusSettings
from preprocessing.storage import reading

_MIN_CHUNK, _MAX_CHUNK, _CHUNKS = 1 << 20, 32 << 20, 64
_SHOWN_FILES, _TOLD_FILES = 10, 3  # of those that are passed over for one reason, in a report and on a line


@dataclasses.dataclass(frozen=True)
class Inputs:
    """The input, cut for reading; how many files it is, and (file or folder, reason) of what was passed over."""

    chunks: list[Chunk]
    files: int
    passed_over: list[tuple[str, str]]

    def told(self) -> list[str]:
        """What was passed over, a line for each reason."""
        lines = []
        for reason, passed in self.report()["passed_over"].items():
            names = ", ".join(passed["first"][:_TOLD_FILES]) + ", ..." * (passed["count"] > _TOLD_FILES)
            lines.append(f"passed over {passed['count']:,} ({reason}): {names}")
        return lines

    def report(self) -> dict[str, Any]:
        """What stands in a run's report: counts, and the first names of each reason."""
        reasons: dict[str, list[str]] = defaultdict(list)
        for path, reason in self.passed_over:
            reasons[reason].append(path)
        passed = {reason: {"count": len(paths), "first": paths[:_SHOWN_FILES]} for reason, paths in reasons.items()}
        return {"files": self.files, "passed_over": passed}


def survey(settings: CorpusSettings) -> Inputs:
    """Finds the input and looks into each file. Raises InputError where nothing matches, a file cannot be read or is no
    text, everything is empty, or formats are mixed."""
    if not settings.input:
        raise InputError("no input: name a file, a folder or a glob")
    found = paths.find(settings.input)
    sizes = {file.path: file.size_in_bytes for file in found.files}
    if not any(sizes.values()):
        raise InputError(f"{found.files[0].path}: {'the file is' if len(sizes) == 1 else 'all input files are'} empty")
    passed_over = [*found.passed_over, *((path, "empty") for path, size in sizes.items() if not size)]
    sizes = {path: size for path, size in sizes.items() if size}
    contents: dict[str, Content] = {}
    for path in sizes:
        with reading(path):
            contents[path] = look(path, settings)
    by_format: dict[str, str] = {}
    for path, content in contents.items():
        by_format.setdefault("jsonl" if content.format == "json" else content.format, path)
    if len(by_format) > 1:
        formats = ", ".join(f"{name} ({path})" for name, path in sorted(by_format.items()))
        raise InputError(
            f"all input files must have one format; name it with --format or run once for each. Received: {formats}"
        )
    chunk_bytes = min(max(sum(sizes.values()) // _CHUNKS, _MIN_CHUNK), _MAX_CHUNK)
    chunks: list[Chunk] = []
    for path, size in sizes.items():
        content = contents[path]
        for start, end, share in _cut(path, size, content, chunk_bytes, settings):
            chunks.append(Chunk(len(chunks), path, content.format, start, end, share, content.returns))
    if not chunks:
        raise InputError(
            f"{next(iter(sizes))}: {'the file holds' if len(sizes) == 1 else 'all input files hold'} no row"
        )
    return Inputs(chunks, len(sizes), passed_over)


def find_chunks(settings: CorpusSettings) -> list[Chunk]:
    """The input, cut for reading. Raises InputError as `survey` does."""
    return survey(settings).chunks


def check_input(settings: CorpusSettings) -> None:
    """Raises InputError early, before any worker starts: see `survey` and, of an input in spans, `spans.window`."""
    for _, part in spans.narrowed(settings):
        survey(part)


def files(patterns: Iterable[str]) -> list[FileMetadata]:
    """The files that file names, folders and globs stand for, each once, sorted by path. Raises InputError where one
    matches nothing."""
    return paths.find(patterns).files


def _cut(path: str, size: int, content: Content, chunk_bytes: int, settings: CorpusSettings):
    """(start, end, bytes) of the chunks of one file."""
    if content.format == "parquet":
        groups = parquet.row_groups(path, settings.text_field)
        return [(group, group + 1, size // groups) for group in range(groups)]
    if content.format not in readers.SPLITTABLE or content.compressed or size <= chunk_bytes:
        return [(0, None, size)]
    return [(at, min(at + chunk_bytes, size), min(chunk_bytes, size - at)) for at in range(0, size, chunk_bytes)]
