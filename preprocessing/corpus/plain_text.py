"""Documents of plain text: blank lines (nothing but ASCII white space) part them.

A document begins at its first character that is not blank, and belongs to the chunk in which that stands.
"""

import dataclasses
import re
from collections.abc import Iterator
from typing import BinaryIO

from preprocessing.corpus.chunks import BOM, BadLine, Chunk, Tally, compression_of, decode, lines
from preprocessing.settings import CorpusSettings

_BLANKS = b" \t\r\x0b\x0c"
_BLANK_LINE = re.compile(rb"\n[ \t\r\x0b\x0c]*\n")
_BLOCK = 4 << 20  # read at once
_TAIL = 64 << 10  # read at a time, of a document that goes on behind a block


def read(handle: BinaryIO, chunk: Chunk, settings: CorpusSettings, tally: Tally, refuse: BadLine) -> Iterator[str]:
    """Texts of the documents that begin in `chunk`: lines stripped, none blank, joined by line ends."""
    if chunk.format == "document" or compression_of(chunk.path):
        yield from _by_line(handle, chunk, settings, tally, refuse)
        return
    # In blocks, since cutting a file changes nothing; a block with nothing out of the ordinary is cut up at once.
    start = chunk.start
    while start < chunk.limit:
        end = int(min(start + _BLOCK, chunk.limit))
        block = dataclasses.replace(chunk, start=start, end=end)
        before = tally.newlines
        texts = _at_once(handle, block, settings, tally)
        if texts is not None:
            yield from texts
        else:
            handle.seek(start)
            yield from _by_line(
                handle, block, settings, tally, lambda line, *what, before=before: refuse(before + line, *what)
            )
        start = end
        handle.seek(start)
        if not handle.read(1):
            break


def _at_once(handle, chunk, settings, tally) -> list[str] | None:
    """The texts of a chunk; None, and nothing counted, where a line or document may exceed its bound, or is not UTF-8
    without NUL."""
    fresh, at_line_start = _before(handle, chunk.start)
    handle.seek(chunk.start)
    data = handle.read(chunk.end - chunk.start)
    newlines = data.count(b"\n")
    if not chunk.start:
        data = data.removeprefix(BOM)
    # What goes on from an earlier chunk becomes the first document, to be dropped.
    foreign = b"" if fresh else b"x\n" if at_line_start else b"x"
    kept = foreign + data.rstrip(_BLANKS + b"\n")
    rest = data[len(kept) - len(foreign) :]
    texts: list[str] = []
    if len(kept) > len(foreign) and (fresh or _BLANK_LINE.search(kept)):
        end = _until_blank_line(handle, rest, settings.max_document_bytes) if rest.count(b"\n") < 2 else b""
        if end is None or len(kept) + len(end) > settings.max_line_bytes or b"\0" in kept or b"\0" in end:
            return None
        kept += end
        stripped = b"\n".join([line.strip(_BLANKS) for line in kept.split(b"\n")])
        documents = [found for piece in stripped.split(b"\n\n") if (found := piece.strip(b"\n"))][bool(foreign) :]
        if max(map(len, documents), default=0) > settings.max_document_bytes:
            return None
        try:
            texts = [text for document in documents if not (text := document.decode()).isspace()]
        except UnicodeDecodeError:
            return None
        tally.lines += sum(document.count(b"\n") + 1 for document in documents)
    tally.newlines += newlines
    return texts


def _until_blank_line(handle, data: bytes, bound: int) -> bytes | None:
    """`data` and what follows in the file, up to a blank line; None where that is longer than the bound."""
    searched = 0
    while not (found := _BLANK_LINE.search(data, searched)):
        if len(data) > bound:
            return None
        searched = max(data.rfind(b"\n"), 0)
        more = handle.read(_TAIL)
        if not more:
            break
        data += more
    return data[: found.start()] if found else data


def _by_line(handle, chunk, settings, tally, refuse) -> Iterator[str]:
    """The texts of a chunk, whatever is in it."""
    whole_file = chunk.format == "document"
    limit = chunk.limit
    fresh, at_line_start = _before(handle, chunk.start)  # may a document begin here
    if chunk.start:
        handle.seek(chunk.start)
    document = _Document(settings, tally, refuse)
    inside = False  # a document of ours
    for number, (offset, line, complete) in enumerate(lines(handle, chunk, settings.max_line_bytes, tally)):
        if not inside and offset >= limit:
            break
        if not number and not at_line_start:
            continue  # the rest of a line that begins in an earlier chunk
        stripped = line.strip(_BLANKS)
        if not stripped:
            fresh = True
            if inside and not whole_file:
                inside = False
                if text := document.close():
                    yield text
            continue
        if not inside:
            if not fresh:
                continue
            if offset + len(line) - len(line.lstrip(_BLANKS)) >= limit:
                break
            inside, fresh = True, False
        tally.lines += 1
        if not complete:
            refuse(number, f"longer than {settings.max_line_bytes:,} bytes (max_line_bytes)", stripped)
        elif text := document.add(number, stripped):
            yield text
    if inside and (text := document.close()):
        yield text


def _before(handle, start: int) -> tuple[bool, bool]:
    """Whether a blank line or nothing at all stands before `start` of a plain text, and whether nothing but blanks
    stands before it on its line."""
    newlines = 0
    while start:
        step = min(start, 4096)
        handle.seek(start - step)
        before = handle.read(step)
        kept = before.rstrip(_BLANKS + b"\n")
        newlines += before.count(b"\n", len(kept))
        if kept:
            return newlines >= 2, newlines >= 1
        start -= step
    return True, True


class _Document:
    """Gathers the lines of one document; gives its texts, several where it exceeds the bound."""

    def __init__(self, settings: CorpusSettings, tally: Tally, refuse: BadLine):
        self._settings, self._tally, self._refuse = settings, tally, refuse
        self._lines: list[bytes] = []
        self._numbers: list[int] = []
        self._size = 0
        self._parts = 0

    def add(self, number: int, line: bytes) -> str:
        """Takes a line. Gives the text of the lines before it where that would exceed the bound with it, else ""."""
        full = ""
        if self._size + len(line) > self._settings.max_document_bytes and self._lines:
            full = self._flush()
        self._lines.append(line)
        self._numbers.append(number)
        self._size += len(line) + 1
        return full

    def close(self) -> str:
        """The text of the lines since the last one given, and a fresh start."""
        text = self._flush()
        self._tally.split += self._parts > 1
        self._parts = 0
        return text

    def _flush(self) -> str:
        text, reason = decode(b"\n".join(self._lines))
        if reason:
            good = []
            for number, line in zip(self._numbers, self._lines, strict=True):
                text, reason = decode(line)
                if reason:
                    self._refuse(number, reason, line)
                else:
                    good.append(text)
            text = "\n".join(good)
        self._lines, self._numbers, self._size = [], [], 0
        text = "" if text.isspace() else text
        self._parts += bool(text)
        return text
