"""What a file holds, told by its first bytes where its name does not say, or says otherwise."""

import codecs
import json
import re
import unicodedata
from typing import NamedTuple

from preprocessing import tfrecord
from preprocessing.corpus import chunks, compression
from preprocessing.corpus.plain_text import WIKI_DOCUMENT
from preprocessing.errors import InputError
from preprocessing.settings import CorpusSettings

_ENDINGS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".parquet": "parquet", ".tfrecord": "tfrecord",
            ".tfrecords": "tfrecord", ".tfrec": "tfrecord"}  # fmt: skip
_COMPRESSED = (".gz", ".gzip", ".bz2", ".zst", ".zstd")
_SHARD = re.compile(r"(-\d+-of-\d+|_\d+|-\d+)$")  # behind the ending, as TensorFlow names shards
_HEAD = 64 << 10

_FOREIGN = {
    b"PK\x03\x04": "a ZIP archive", b"\xfd7zXZ\x00": "an xz file", b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!\x1a\x07": "a RAR archive", b"\x04\x22\x4d\x18": "an lz4 file", b"\xff\x06\x00\x00sNaPpY": "a Snappy file",
    b"%PDF-": "a PDF", b"\x89PNG": "a PNG picture", b"\xff\xd8\xff": "a JPEG picture", b"GIF8": "a GIF picture",
    b"ARROW1": "an Arrow file", b"ORC": "an ORC file", b"Obj\x01": "an Avro file", b"SQLite format 3\0": "a database",
    b"\x89HDF\r\n": "an HDF5 file", b"\x93NUMPY": "a NumPy array", b"\xd0\xcf\x11\xe0": "an Office document",
    b"{\\rtf": "an RTF document", b"PARE": "an encrypted Parquet file", b"\x80\x04\x95": "a Python pickle",
}  # fmt: skip
_UTF = {"UTF-32LE": codecs.BOM_UTF32_LE, "UTF-32BE": codecs.BOM_UTF32_BE, "UTF-16LE": codecs.BOM_UTF16_LE,
        "UTF-16BE": codecs.BOM_UTF16_BE}  # fmt: skip
TEXTS = ("sentences", "paragraphs", "document", "jsonl", "json")


class Content(NamedTuple):
    """`format`: of the settings; or "json" where values need not stand on lines of their own, "wiki" for text of
    WikiExtractor's. `returns`: lone carriage returns end its lines."""

    format: str
    compressed: bool = False
    returns: bool = False


def look(path: str, settings: CorpusSettings) -> Content:
    """What the file holds. Raises InputError where that is no text, or text in another encoding than UTF-8."""
    raw_head, head = _heads(path)
    compressed = compression.of_head(raw_head) is not None
    if foreign := _foreign(head):
        raise InputError(f"{path}: {foreign}, which is not read: unpack or convert it, or name the other files alone")
    binary = "parquet" if head.startswith(b"PAR1") else "tfrecord" if _is_tfrecord(head) else None
    if compressed and binary == "parquet":
        raise InputError(f"{path}: a compressed Parquet file, which cannot be read in parts: decompress it")
    format_: str = settings.format
    if format_ == "auto":
        format_ = binary or _named(path) or "paragraphs"
    elif binary and format_ in TEXTS:
        raise InputError(f"{path}: format must be {binary} for this file. Received: {format_}")
    if format_ not in TEXTS:
        return Content(format_, compressed)
    if encoding := _other_encoding(head):
        raise InputError(
            f"{path}: text must be UTF-8. Received: {encoding}; convert it: iconv -f {encoding} -t UTF-8 FILE > NEW"
        )
    if format_ == "jsonl" or settings.format == "auto":
        long_line = head[:1] == b"{" and len(head) == _HEAD and b"\n" not in head
        format_ = _json(path, _heads(path, settings.max_line_bytes)[1] if long_line else head, format_, settings)
    if settings.format == "auto" and WIKI_DOCUMENT.match(head):
        format_ = "wiki"
    returns = len(re.findall(rb"\r(?!\r*\n)", head.rstrip(b"\r")))
    return Content(format_, compressed, bool(returns) and returns * 10 >= head.count(b"\n"))


def _heads(path: str, size: int = _HEAD) -> tuple[bytes, bytes]:
    """The first bytes of a file, as they stand and decompressed (nothing, where that fails: its reader says why)."""
    with chunks.open_raw(path) as raw:
        raw_head = raw.read(size)
    if not compression.of_head(raw_head):
        return raw_head, raw_head
    try:
        with chunks.open_file(path) as handle:
            return raw_head, handle.read(size)
    except (OSError, EOFError, ValueError):
        return raw_head, b""


def _named(path: str) -> str | None:
    """The format that the name states."""
    path = path.lower()
    for ending in _COMPRESSED:
        path = path.removesuffix(ending)
    for name in (path, _SHARD.sub("", path)):
        if found := next((format_ for ending, format_ in _ENDINGS.items() if name.endswith(ending)), None):
            return found
    return None


def _foreign(head: bytes) -> str:
    if head[257:262] == b"ustar":
        return "a tar archive"
    return next((name for beginning, name in _FOREIGN.items() if head.startswith(beginning)), "")


def _is_tfrecord(head: bytes) -> bool:
    return len(head) >= 12 and tfrecord.is_header(head[:12])


def _other_encoding(head: bytes) -> str:
    """UTF-16 or UTF-32, by its mark, or by its zeros: plain text has none."""
    for encoding, mark in _UTF.items():
        if head.startswith(mark):
            return encoding
    if b"\0" not in head:
        return ""
    for encoding in _UTF:
        width = int(encoding[4:6]) // 8
        text = head[: len(head) // width * width].decode(encoding, errors="replace")
        text = text[:-1] if text.endswith("\ufffd") else text  # half a character
        odd = sum(unicodedata.category(character) in ("Cn", "Co", "Cs", "Cc") for character in text.translate(_SPACES))
        if ("\n" in text or " " in text) and not odd and "\ufffd" not in text:
            return encoding
    return ""


_SPACES = dict.fromkeys(map(ord, "\t\r\n\x0b\x0c"), " ")


def _json(path: str, head: bytes, format_: str, settings: CorpusSettings) -> str:
    """`format_`, or how JSON stands in the file: "jsonl" or "json"."""
    text = head.removeprefix(chunks.BOM).decode(errors="ignore").lstrip()
    if text[:1] not in ("{", "["):
        return format_
    line, _, rest = text.partition("\n")
    on_a_line = _value(line) is not None
    first, end = _beginning(text[1:].lstrip() if text[0] == "[" else text)
    if text[0] == "[":
        found = "jsonl" if on_a_line and rest.lstrip()[:1] == "[" else "json"
    elif first is None:  # broken, or longer than the head
        found = "json" if line.strip() == "{" else "jsonl"
    else:
        found = "json" if "\n" in text[:end] or ("\n" not in text and "\r" in text[end:].rstrip(" ")) else "jsonl"
    if format_ == "jsonl":
        return found
    if not isinstance(first, dict) or not first or (found == "jsonl" and not on_a_line):
        return format_
    if settings.text_field in first:
        return found
    raise InputError(
        f"{path}: JSON without a field {settings.text_field!r}. Its fields: {', '.join(map(str, first))}. Name one "
        "with --text-field, or give --format paragraphs to read it as it stands"
    )


def _value(text: str):
    """The JSON value that the text is; None where it is none."""
    value, end = _beginning(text)
    return None if text[end:].strip() else value


def _beginning(text: str):
    """The JSON value that the text begins with, None where there is none, and where it ends."""
    try:
        return json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return None, 0
