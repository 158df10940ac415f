"""How far workers in other processes are: small files that each rewrites and the launching process adds up.

Only for runs on one machine; without a folder nothing is written.
"""

import json
import os
import pathlib
import time
import uuid
from collections import Counter

_INTERVAL = 0.5  # seconds


class WorkerProgress:
    """What one worker has done. Pickles without its counts: each copy writes a file of its own."""

    def __init__(self, folder: str | None):
        self._folder = folder
        self._done: Counter[str] = Counter()
        self._path = ""
        self._written_at = 0.0

    def __reduce__(self):
        return WorkerProgress, (self._folder,)

    def add(self, **counts: int) -> None:
        if not self._folder:
            return
        self._done.update(counts)
        now = time.monotonic()
        if now - self._written_at < _INTERVAL:
            return
        self._written_at = now
        self._path = self._path or os.path.join(self._folder, f"{os.getpid()}-{uuid.uuid4().hex}.json")
        scratch = self._path + ".tmp"
        pathlib.Path(scratch).write_text(json.dumps(self._done))
        os.replace(scratch, self._path)


def total(folder: str) -> Counter[str]:
    """Sums over all workers, as of their latest writing."""
    done: Counter[str] = Counter()
    for path in pathlib.Path(folder).glob("*.json"):
        done.update(json.loads(path.read_text()))
    return done
