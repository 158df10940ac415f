"""Who is at work in a home: one whole run alone, or steps of runs, each in a process, beside each other."""

import contextlib
import pathlib
import time
from collections.abc import Iterator

from pipeline.history.homes import Home
from preprocessing import storage
from preprocessing.errors import InputError

_POLL_SECONDS = 0.5
_A_MOMENT = 1.0  # seconds: who asks whether anyone is at work (`bert runs`) holds what he asks about for less


class Busy(InputError):
    """Another process is at work there, and will not be for ever."""

    status = 75


@contextlib.contextmanager
def held(home: pathlib.Path, step: str | None = None, wait: float = 0.0) -> Iterator[None]:
    """Holds a home, which is made where it is absent, while the block runs, or until the process ends however it does.

    Args:
      home: its folder.
      step: None: a whole run, beside which nothing is at work there. A node's name: that step of any run; the same
        step twice at once would leave one execution with two results, which no later run could use.
      wait: seconds to wait for others to end: a step whose caller was killed may live on, and its work is not lost.

    Raises Busy where others hold it still, InputError where the home cannot be written.
    """
    until = time.monotonic() + max(wait, _A_MOMENT)
    with contextlib.ExitStack() as stack:
        try:
            home.mkdir(parents=True, exist_ok=True)
            stack.enter_context(_hold(Home(home).lock(), step is not None, until))
            if step is not None:
                stack.enter_context(_hold(Home(home).lock(step), False, until))
        except BlockingIOError:
            what = f"another run, or {step} itself," if step else "another run"
            raise Busy(f"{home}: {what} is at work there. Wait for its end, or set BERT_HOME") from None
        except OSError as error:
            raise InputError(f"{home}: cannot be written: {error.strerror}. Set BERT_HOME to another folder") from error
        yield


def _hold(path: pathlib.Path, shared: bool, until: float) -> contextlib.AbstractContextManager:
    while True:
        try:
            return storage.hold(str(path), shared)[0]
        except BlockingIOError:
            if time.monotonic() >= until:
                raise
            time.sleep(_POLL_SECONDS)
