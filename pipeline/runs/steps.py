"""Tells a person which step runs; the log goes to a file."""

import contextlib
import logging
import pathlib
import sys
from collections.abc import Iterator

import click
from absl import logging as absl_logging

from pipeline import terminal

TITLES = {
    "CorpusGen": "reading documents",
    "CorpusStatistics": "statistics of the documents",
    "CorpusSchema": "schema of the documents",
    "CorpusValidator": "validating the documents",
    "CorpusGate": "no anomaly may pass, and no span unlike the one before",
    "VocabularyGen": "learning the vocabulary",
    "MaskedExamplesGen": "making masked sentence pairs",
    "ExampleStatistics": "statistics of the examples",
    "ExampleValidator": "validating the examples",
    "ExampleGate": "no anomaly may pass, and no example that breaks its rules",
    "TaskExamplesGen": "reading rows",
    "TaskStatistics": "statistics of the rows",
    "TaskSchema": "schema of the rows, as train has it",
    "TaskValidator": "validating the rows",
    "TaskGate": "no anomaly may pass",
    "DriftGate": "eval must be like train",
    "Trainer": "training",
    "Baseline": "looking for the model pushed before",
    "Evaluator": "evaluating on what was held out",
    "ServingCheck": "the exported model answers in a fresh process",
    "Pusher": "pushing",
}


def show_begin(number: int, total: int, node: str) -> None:
    """`[ 3/15] Trainer: training`"""
    click.echo(f"[{number:2}/{total}] {node}: {TITLES.get(node, '')}", err=True)


def show_end(state: str, seconds: float) -> None:
    """`done in 4:10` or `cached`, below it."""
    click.echo(f"        {'cached' if state == 'cached' else f'done in {terminal.clock(seconds)}'}", err=True)


class _LogFile(logging.FileHandler):
    """Where it cannot be written, on a full disk, that is told once: the run is worth more than its log."""

    _told = False

    def handleError(self, record: logging.LogRecord) -> None:
        if not self._told:
            self._told = True
            click.echo(f"{self.baseFilename}: the log cannot be written: {sys.exc_info()[1]}", err=True)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            super().close()


@contextlib.contextmanager
def log_to(log: pathlib.Path) -> Iterator[None]:
    """Sends all log lines to a file and none to the terminal."""
    log.parent.mkdir(parents=True, exist_ok=True)
    to_file = _LogFile(log)
    to_file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    names = (None, "absl", "tensorflow", *terminal.PACKAGES)
    others = [(logger, list(logger.handlers)) for logger in map(logging.getLogger, names)]
    for logger, handlers in others:
        for handler in handlers:
            logger.removeHandler(handler)
        logger.setLevel(logging.INFO)
    absl_logging.set_verbosity(absl_logging.INFO)  # saving a SavedModel goes back to what was set so
    root.addHandler(to_file)
    try:
        yield
    finally:
        root.removeHandler(to_file)
        to_file.close()
        for logger, handlers in others:
            for handler in handlers:
                logger.addHandler(handler)
