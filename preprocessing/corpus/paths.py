"""Which files an input stands for, as a shell means it; and what was passed over, with the reason."""

import dataclasses
import glob
import os
import re
import urllib.parse
from collections.abc import Iterable, Iterator

from apache_beam.io.filesystem import FileMetadata
from apache_beam.io.filesystems import FileSystems

from preprocessing.errors import InputError
from preprocessing.storage import as_glob, is_remote, reading

_BACKUP = re.compile(r".*(~|\.(bak|swp|swo|swx|tmp|temp|crdownload))|#.*#|thumbs\.db|desktop\.ini", re.IGNORECASE)
_SHOWN = 3  # names in an error


@dataclasses.dataclass(frozen=True)
class Found:
    """`files`: each once, sorted by path. `passed_over`: (file or folder, reason)."""

    files: list[FileMetadata]
    passed_over: list[tuple[str, str]]


def find(inputs: Iterable[str]) -> Found:
    """The files of file names, folders (with the folders inside) and globs, here or on a filesystem of Beam's.

    As for a shell, `~` and `{a,b}` work and a glob takes folders like files; so do `file://` and lists with commas. A
    path that exists is no glob. Hidden files and folders, those whose names begin with `_` (Hadoop's) and backups are
    passed over unless named. Raises InputError where an input stands for no file, or cannot be listed.
    """
    files: dict[str, FileMetadata] = {}
    passed_over: dict[str, str] = {}
    for text in inputs:
        with reading(text):
            passed: dict[str, str] = {}
            found = _files_of(_plain(text), passed)
            if not found:
                raise InputError(f"no file matches {text!r}: {_why_none(passed)}")
            files |= {file.path: file for file in found}
            passed_over |= passed
    passed_over = {path: reason for path, reason in passed_over.items() if path not in files}
    return Found([files[path] for path in sorted(files)], sorted(passed_over.items()))


def _plain(text: str) -> str:
    """An input without `file://` and with the home folder for `~`."""
    if text.startswith("file:/"):
        text = urllib.parse.unquote(urllib.parse.urlsplit(text).path)
    return text if os.path.lexists(text) else os.path.expanduser(text)


def _why_none(passed: dict[str, str]) -> str:
    if not passed:
        return "check the path, and quote a glob"
    names = ", ".join(f"{path} ({reason})" for path, reason in list(passed.items())[:_SHOWN])
    return f"what is there is passed over unless named: {names}"


def _files_of(pattern: str, passed: dict[str, str]) -> list[FileMetadata]:
    """The files of one input; where it stands for none as it is written, of each alternative that it lists."""
    found = _remote(pattern, passed) if is_remote(pattern) else _local(pattern, passed)
    if found or passed:
        return found
    alternatives = [path for part in _parts(pattern) for path in _braces(part)]
    if alternatives == [pattern]:
        return []
    for path in alternatives:
        more = _files_of(os.path.expanduser(path), passed)
        if not more and not passed:
            raise InputError(f"no file matches {path!r}, of {pattern!r}: check the path, and quote a glob")
        found += more
    return found


def _local(pattern: str, passed: dict[str, str]) -> list[FileMetadata]:
    if os.path.exists(pattern):
        if os.path.isdir(pattern):
            return list(_walk(pattern, passed, set()))
        if not os.path.isfile(pattern):
            raise InputError(f"{pattern}: not a regular file, and input is read twice: write it to a file first")
        return [_metadata(pattern)]
    found: list[FileMetadata] = []
    for path in sorted(glob.glob(as_glob(pattern), recursive=True)):
        if reason := _unmeant(path, pattern):
            passed[path] = reason
        elif os.path.isdir(path):
            found += _walk(path, passed, set())
        else:
            found += _regular(path, passed)
    return found


def _walk(folder: str, passed: dict[str, str], above: set[str]) -> Iterator[FileMetadata]:
    """The files in a folder and in the folders inside."""
    own = os.path.realpath(folder)
    if own in above:
        passed[folder] = "a link to a folder that it is in"
        return
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name)
        if reason := _reason(name):
            passed[path] = reason
        elif os.path.isdir(path):
            yield from _walk(path, passed, above | {own})
        else:
            yield from _regular(path, passed)


def _regular(path: str, passed: dict[str, str]) -> list[FileMetadata]:
    if os.path.isfile(path):
        return [_metadata(path)]
    passed[path] = "not a regular file" if os.path.exists(path) else "a link to nothing"
    return []


def _metadata(path: str) -> FileMetadata:
    return FileMetadata(path, os.path.getsize(path), os.path.getmtime(path))


def _remote(pattern: str, passed: dict[str, str]) -> list[FileMetadata]:
    matches = FileSystems.match([pattern, FileSystems.join(pattern, "**")])
    found = {file.path: file for match in matches for file in match.metadata_list if not file.path.endswith("/")}
    passed |= {path: reason for path in found if (reason := _unmeant(path, pattern))}
    return [found[path] for path in sorted(found) if path not in passed]


def _unmeant(path: str, pattern: str) -> str:
    """The reason why a path that matches the pattern is passed over; "" where it is meant: where a part of its name
    would be passed over, so would the pattern's."""
    wanted = pattern.split("/")
    if "**" in wanted:
        wanted = wanted[: wanted.index("**")]
    for at, name in enumerate(path.split("/")):
        reason = _reason(name)
        if reason and not (at < len(wanted) and _reason(wanted[at])):
            return reason
    return ""


def _reason(name: str) -> str:
    """The reason why a file or folder of that name is passed over unless named, or ""."""
    if name.startswith(".") and name not in (".", ".."):
        return "hidden"
    if name == "__MACOSX":
        return "macOS's, beside what was packed"
    if name.startswith("_"):
        return "its name begins with _, as Hadoop's that hold no data"
    return "a backup, or an editor's or a system's own" if _BACKUP.fullmatch(name) else ""


def _parts(text: str) -> list[str]:
    """The parts of a list with commas, those in braces aside."""
    parts, depth = [""], 0
    for character in text:
        depth += (character == "{") - (character == "}")
        if character == "," and depth <= 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts if part.strip()] if len(parts) > 1 else [text]


def _braces(text: str) -> list[str]:
    """What `{a,b}` stands for, as in a shell."""
    match = re.search(r"\{([^{}]*,[^{}]*)\}", text)
    if not match:
        return [text]
    before, after = text[: match.start()], text[match.end() :]
    return [path for choice in match[1].split(",") for path in _braces(before + choice + after)]
