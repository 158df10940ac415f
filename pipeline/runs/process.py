"""One step of a run as a process of its own: its exit status says whether another try may help."""

import logging
import os
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn

import click

from pipeline.history.homes import StoreError
from pipeline.leftovers import remove_autograph_files
from pipeline.runs.locks import Busy
from preprocessing.errors import InputError

# 2 is click's, for an option that it does not know. Another try as things are helps none of 1, 2 and 3.
BAD_INPUT, REFUSED, FAILED, BUSY = 1, 3, 70, 75


class Refused(InputError):
    """The run came to its end, and its model is not pushed: it did not pass the gate, or was rolled back."""

    status = REFUSED


class Failed(RuntimeError):
    """A step went wrong, which it need not the next time; its message is one line."""


def end(function: Callable[[], object]) -> NoReturn:
    """Calls it and ends the process. Bad input and failures are one line on standard error; `BERT_DEBUG=1` shows
    tracebacks."""
    status = 0
    try:
        function()
    except Exception as error:
        status = next((number for kind, number in _STATUSES if isinstance(error, kind)), FAILED)
        if os.environ.get("BERT_DEBUG") or not isinstance(error, (InputError, Failed, StoreError)):
            traceback.print_exc()
        click.echo(f"bert: error: {error}", err=True)
    leave(status)


def leave(status: int) -> NoReturn:
    """Ends the process, at once: TensorFlow's threads abort now and then when Python takes its leave of them, after all
    is done."""
    remove_autograph_files()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


_STATUSES = ((Busy, BUSY), (StoreError, BUSY), (Refused, REFUSED), (InputError, BAD_INPUT))
