"""Version folders on disk: which are there, and which are whole."""

import os
import pathlib
import re
import time

SETTLE_SECONDS = 1.0
MAX_VERSION = 2**63 - 1

Fingerprint = tuple[tuple[str, int, int, int], ...]


def on_disk(base_path: str | os.PathLike[str]) -> dict[int, pathlib.Path]:
    """Version folders by number; none if the base path cannot be read. Names are decimal numbers, as for TensorFlow
    Serving; anything else is left alone."""
    found: dict[int, pathlib.Path] = {}
    try:
        entries = sorted(os.scandir(os.fspath(base_path)), key=lambda entry: entry.name)
    except OSError:
        return {}
    for entry in entries:
        if entry.name.isascii() and entry.name.isdecimal() and entry.is_dir() and int(entry.name) <= MAX_VERSION:
            found.setdefault(int(entry.name), pathlib.Path(entry.path))
    return found


def fingerprint(folder: pathlib.Path) -> Fingerprint:
    """(file, bytes, time of last change in ns, inode) of every file; changes whenever a file does.

    The time is `st_ctime`: copying tools can set `st_mtime` back to that of the original."""
    found = []
    for parent, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(parent, name)
            try:
                status = os.stat(path)
            except OSError:  # gone meanwhile
                continue
            found.append((os.path.relpath(path, folder), status.st_size, status.st_ctime_ns, status.st_ino))
    return tuple(sorted(found))


def is_whole(files: Fingerprint) -> bool:
    """Whether the files that make a SavedModel are all there. An empty one is not there yet."""
    sizes = {name: size for name, size, _, _ in files}
    if not sizes.get("saved_model.pb"):
        return False
    if not any(name.startswith("variables" + os.sep) for name in sizes):
        return (
            True  # a model without variables may lack the folder; one whose variables are still to come fails to load
        )
    if not sizes.get(os.path.join("variables", "variables.index")):
        return False
    shards = [name for name in sizes if re.search(r"variables\.data-\d{5}-of-\d{5}$", name)]
    return bool(shards) and len(shards) == int(shards[0][-5:]) and all(sizes[name] for name in shards)


class Settled:
    """Tells whether a folder has stopped changing: nothing in it was written for a second."""

    def __init__(self, settle_seconds: float = SETTLE_SECONDS):
        self._settle_seconds = settle_seconds
        self._seen: dict[pathlib.Path, tuple[Fingerprint, float]] = {}

    def __call__(self, folder: pathlib.Path, files: Fingerprint) -> bool:
        newest = max((changed for _, _, changed, _ in files), default=0) / 1e9
        if 0 <= newest <= time.time() - self._settle_seconds:
            return True
        # The file system's clock may be ahead of ours: then it must look the same twice.
        known, since = self._seen.get(folder, (None, 0.0))
        if known != files:
            self._seen[folder] = (files, time.monotonic())
            return False
        return time.monotonic() - since >= self._settle_seconds
