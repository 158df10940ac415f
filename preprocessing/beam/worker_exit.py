"""How a worker process of Beam ends: at once, and with a status that tells whether all of its work succeeded.

Taking TensorFlow apart at the end of a process takes seconds, and sometimes aborts it; Beam waits for one worker after
the other. So a worker ends by `os._exit`, which knows nothing of what went wrong before: this module does.
"""

import atexit
import contextlib
import functools
import logging
import os
import sys

_BUNDLES = "apache_beam.runners.worker.sdk_worker"  # its errors are the bundles that failed
_failures: list[str] = []


class _Failures(logging.Handler):
    """Remembers that a bundle failed. Beam itself only tells the runner so."""

    def emit(self, record: logging.LogRecord) -> None:
        _failures.append(record.levelname)


@functools.cache
def watch() -> None:
    """From now on this process remembers its failed bundles and what ends it: to be called in workers only."""
    logger = logging.getLogger(_BUNDLES)
    logger.addHandler(_Failures(logging.ERROR))
    if logger.getEffectiveLevel() > logging.ERROR:
        logger.setLevel(logging.ERROR)
    hook = sys.excepthook

    def unhandled(kind, value, traceback):
        _failures.append(kind.__name__)
        hook(kind, value, traceback)

    sys.excepthook = unhandled


@functools.cache
def end_at_once() -> None:
    """Where this is a worker of Beam's, it will end without taking TensorFlow apart."""
    if "CONTROL_API_SERVICE_DESCRIPTOR" in os.environ:
        watch()
        atexit.register(_end)


def status() -> int:
    """What this process should exit with: 1 after a failed bundle or an exception that nothing caught, else 0."""
    return int(bool(_failures))


def _end() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(status())
