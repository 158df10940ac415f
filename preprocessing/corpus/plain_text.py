"""Documents of plain text: blank lines (nothing but white space, of Unicode's too) part them.

A document begins at its first character that is not ASCII white space, and belongs to the chunk in which that stands.
"""

import dataclasses
import re
from collections.abc import Iterator
from typing import BinaryIO

from preprocessing.corpus.chunks import BOM, Chunk, Refuse, Tally, decode, lines
from preprocessing.settings import CorpusSettings

_BLANKS = b" \t\r\x0b\x0c"
# The white space of str.isspace that _BLANKS lacks, its first bytes, and how a character of it may be cut.
_WIDE = rb"[\x1c-\x1f]|\xc2[\x85\xa0]|\xe1\x9a\x80|\xe2\x80[\x80-\x8a\xa8\xa9\xaf]|\xe2\x81\x9f|\xe3\x80\x80"
_WIDE_STARTS = b"\x1c\x1d\x1e\x1f\xc2\xe1\xe2\xe3"
_WHITE = rb"(?:[ \t\r\x0b\x0c]|" + _WIDE + rb")*"
_ALL_WHITE = re.compile(_WHITE)
_CUT_AT_END = re.compile(rb"(?:\xc2|\xe1\x9a?|\xe2[\x80\x81]?|\xe3\x80?)?\Z")
_CUT_AT_START = re.compile(rb"[\x80-\xbf]{0,2}")
_PERHAPS_WHITE = re.compile(_WHITE + _CUT_AT_END.pattern)
_BLANK_LINE = re.compile(rb"\n" + _WHITE + rb"\n")
_WIDE_BLANK_LINE = re.compile(rb"\n[ \t\r\x0b\x0c]*(?:" + _WIDE + rb")" + _WHITE + rb"(?=\n|\Z)")
WIKI_DOCUMENT = re.compile(rb'<doc id="[^"]*" (?:\w+="[^"]*" ?)*>')
_BLOCK = 4 << 20  # read at once
_TAIL = 64 << 10  # read at a time, of a document that goes on behind a block


def read(handle: BinaryIO, chunk: Chunk, settings: CorpusSettings, tally: Tally, refuse: Refuse) -> Iterator[str]:
    """Texts of the documents that begin in `chunk`: lines stripped, none blank, joined by line ends."""
    if chunk.format == "document" or not handle.seekable():
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


def read_wiki(handle: BinaryIO, chunk: Chunk, settings: CorpusSettings, tally: Tally, refuse: Refuse) -> Iterator[str]:
    """Texts of the articles that WikiExtractor wrote, each between lines <doc ...> and </doc>."""
    document = _Document(settings, tally, refuse)
    for number, (_, line, size) in enumerate(lines(handle, chunk, settings.max_line_bytes, tally)):
        stripped = line.strip(_BLANKS)
        if WIKI_DOCUMENT.match(stripped) or stripped == b"</doc>":
            if text := document.close():
                yield text
        elif stripped and (text := _line(document, number, stripped, size, len(line), settings, tally, refuse)):
            yield text
    if text := document.close():
        yield text


def _line(document, number, stripped, size, complete, settings, tally, refuse) -> str:
    """Counts a line that is not blank and adds it to the document, or sets it aside."""
    tally.lines += 1
    if size > complete:
        tally.bytes += size
        refuse(number, f"longer than {settings.max_line_bytes:,} bytes (max_line_bytes)", stripped, size)
        return ""
    tally.bytes += len(stripped)
    tally.returns += stripped.count(b"\r")
    return document.add(number, stripped)


def _at_once(handle, chunk, settings, tally) -> list[str] | None:
    """The texts of a chunk; None, and nothing counted, where a line or document may exceed its bound, or is not UTF-8
    without NUL."""
    fresh, at_line_start, cut = _before(handle, chunk.start)
    handle.seek(chunk.start)
    data = handle.read(chunk.end - chunk.start)
    newlines = data.count(b"\n")
    if not chunk.start:
        data = data.removeprefix(BOM)
    # What goes on from an earlier chunk becomes the first document, to be dropped.
    foreign = b"" if fresh else b"x\n" if at_line_start else b"x"
    kept = foreign + data.rstrip(_BLANKS + b"\n")
    rest = data[len(kept) - len(foreign) :]
    # A blank line that goes over the chunk's bounds needs a closer look.
    if not at_line_start and cut is not None:
        return None
    last = kept[kept.rfind(b"\n") + 1 :]
    if last[:1] and last.lstrip(_BLANKS)[0] in _WIDE_STARTS and _PERHAPS_WHITE.fullmatch(last):
        return None
    texts: list[str] = []
    if len(kept) > len(foreign) and (fresh or _BLANK_LINE.search(kept)):
        end = _until_blank_line(handle, rest, settings.max_document_bytes) if rest.count(b"\n") < 2 else b""
        if end is None or len(kept) + len(end) > settings.max_line_bytes or b"\0" in kept or b"\0" in end:
            return None
        kept += end
        own = [line.strip(_BLANKS) for line in kept.split(b"\n")]
        if _is_wide(own[0]) or _WIDE_BLANK_LINE.search(kept):
            own = [b"" if _is_wide(line) else line for line in own]
        stripped = b"\n".join(own)
        documents = [found for piece in stripped.split(b"\n\n") if (found := piece.strip(b"\n"))][bool(foreign) :]
        if max(map(len, documents), default=0) > settings.max_document_bytes:
            return None
        try:
            texts = [text for document in documents if not (text := document.decode()).isspace()]
        except UnicodeDecodeError:
            return None
        in_documents = sum(document.count(b"\n") + 1 for document in documents)
        tally.lines += in_documents
        tally.bytes += sum(map(len, documents)) - in_documents + len(documents)
        if b"\r" in stripped:
            tally.returns += sum(document.count(b"\r") for document in documents)
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
    fresh, at_line_start, cut = _before(handle, chunk.start)  # may a document begin here
    if chunk.start:
        handle.seek(chunk.start)
    document = _Document(settings, tally, refuse)
    inside = False  # a document of ours
    for number, (offset, line, size) in enumerate(lines(handle, chunk, settings.max_line_bytes, tally)):
        if not inside and offset >= limit:
            break
        if not number and not at_line_start:  # the rest of a line that begins in an earlier chunk
            fresh = cut is not None and bool(_ALL_WHITE.fullmatch(cut + line))
            continue
        stripped = line.strip(_BLANKS)
        if not stripped or (not whole_file and size == len(line) and _is_wide(stripped)):
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
        if text := _line(document, number, stripped, size, len(line), settings, tally, refuse):
            yield text
    if inside and (text := document.close()):
        yield text


def _is_wide(line: bytes) -> bool:
    """Whether a line without _BLANKS around it holds other white space, and nothing else."""
    return bool(line) and line[0] in _WIDE_STARTS and bool(_ALL_WHITE.fullmatch(line))


def _before(handle, start: int) -> tuple[bool, bool, bytes | None]:
    """Of a plain text before `start`: whether a blank line or nothing at all stands before the line there; whether
    nothing but _BLANKS stands before it on its line; and, where that is all white, what is there of a character that
    `start` cuts, else None."""
    own = _part_before(handle, start)
    if own is None:
        return False, False, None
    plain, cut, begin = own
    if not plain:
        return False, False, cut
    line_before = _part_before(handle, begin - 1) if begin else (True, b"", 0)
    return line_before is not None and not line_before[1], True, cut


def _part_before(handle, end: int) -> tuple[bool, bytes, int] | None:
    """Of the part of a line before `end`: whether it is nothing but _BLANKS, the cut character at its end, and where it
    begins; None where it is not white."""
    plain, cut, rest, first = True, b"", b"", True
    while end:
        size = min(end, 4096)
        handle.seek(end - size)
        data = handle.read(size) + rest
        begin = data.rfind(b"\n") + 1
        piece = data[begin:]
        if first:
            cut, first = _CUT_AT_END.search(piece)[0], False  # type: ignore[index]
            piece = piece[: len(piece) - len(cut)]
        rest = b"" if begin or end == size else _CUT_AT_START.match(piece)[0]  # type: ignore[index]
        if not _ALL_WHITE.fullmatch(piece, len(rest)):
            return None
        plain = plain and not cut and not piece.strip(_BLANKS)
        end -= size
        if begin:
            return plain, cut, end + begin
    return plain, cut, 0


class _Document:
    """Gathers the lines of one document; gives its texts, several where it exceeds the bound."""

    def __init__(self, settings: CorpusSettings, tally: Tally, refuse: Refuse):
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
