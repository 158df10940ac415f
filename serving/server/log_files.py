"""Files of a request log: TFRecords that are begun anew when they are full, and of which the oldest go."""

import datetime
import glob
import os
import pathlib
import re

from preprocessing import tfrecord

# What follows the prefix of a file: when it was begun, by which process, and a number.
_NAME = "-{began:%Y%m%dT%H%M%SZ}-{process}-{number:06}.tfrecord"
_PATTERN = re.compile(r"-\d{8}T\d{6}Z-\d+-\d{6}\.tfrecord")


def found(prefix: str) -> list[str]:
    """The files of a prefix, of any process, the oldest first."""
    paths = glob.glob(f"{glob.escape(prefix)}-*.tfrecord")
    return sorted(path for path in paths if _PATTERN.fullmatch(path[len(prefix) :]))


class LogFiles:
    """Writes records to files of one prefix, which together have no more than `total_bytes`, at most the newest few.
    Only their owner may read them. Raises OSError where they cannot be written; the next record begins a new file."""

    def __init__(self, prefix: str, total_bytes: int, files: int):
        self._prefix = prefix
        self._total = total_bytes
        self._files = files
        self._number = 0
        self._size = 0
        self._handle: int | None = None

    def write(self, record: bytes) -> None:
        framed = tfrecord.frame([record])
        if self._handle is not None and self._size + len(framed) > self._total // self._files:
            self.close()
        try:
            if self._handle is None:
                self._handle = self._begin(len(framed))
            if os.write(self._handle, framed) != len(framed):  # one call: a reader never finds half of a record
                os.ftruncate(self._handle, self._size)
                raise OSError(f"{self._prefix}: no space left on the device")
        except OSError:
            self.close()
            raise
        self._size += len(framed)

    def close(self) -> None:
        """Ends the present file."""
        handle, self._handle, self._size = self._handle, None, 0
        if handle is not None:
            os.close(handle)

    def _begin(self, size: int) -> int:
        pathlib.Path(self._prefix).parent.mkdir(parents=True, exist_ok=True)
        sizes = {path: os.path.getsize(path) for path in found(self._prefix)}
        room = self._total - max(size, self._total // self._files)
        while sizes and sum(sizes.values()) > room:
            oldest = min(sizes)
            pathlib.Path(oldest).unlink(missing_ok=True)
            del sizes[oldest]
        now = datetime.datetime.now(datetime.timezone.utc)
        self._number += 1
        name = self._prefix + _NAME.format(began=now, process=os.getpid(), number=self._number)
        return os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
