"""Tells a person which step runs, from what TFX's runner logs; the log itself goes to a file."""

import contextlib
import logging
import pathlib
import re
import time
from collections.abc import Iterator

import click
from absl import logging as absl_logging

from pipeline import terminal

TITLES = {
    "CorpusGen": "reading documents",
    "CorpusStatistics": "statistics of the documents",
    "CorpusSchema": "schema of the documents",
    "CorpusValidator": "validating the documents",
    "CorpusGate": "no anomaly may pass",
    "VocabularyGen": "learning the vocabulary",
    "MaskedExamplesGen": "making masked sentence pairs",
    "ExampleStatistics": "statistics of the examples",
    "ExampleValidator": "validating the examples",
    "ExampleGate": "no anomaly may pass",
    "Trainer": "training",
    "Baseline": "looking for the model pushed before",
    "Evaluator": "evaluating on held-out documents",
    "ServingCheck": "the exported model answers in a fresh process",
    "Pusher": "pushing",
}

_RUNNING = re.compile(r"Component (\S+) is running")
_FINISHED = re.compile(r"Component (\S+) is finished")
_CACHED = re.compile(r"cached execution \d+ is used")


class StepLines(logging.Handler):
    """One line as a step begins and one as it ends: `[ 3/15] Trainer  training … 4:10` or `… cached`."""

    def __init__(self, number_of_steps: int):
        super().__init__(logging.INFO)
        self._total = number_of_steps
        self.done = 0
        self._started = 0.0
        self._cached = False
        self.running: str | None = None

    def emit(self, record):
        message = record.getMessage()
        if match := _RUNNING.match(message):
            self.running, self._started, self._cached = match[1], time.monotonic(), False
            self.done += 1
            click.echo(f"[{self.done:2}/{self._total}] {self.running}: {TITLES.get(self.running, '')}", err=True)
        elif _CACHED.search(message):
            self._cached = True
        elif _FINISHED.match(message):
            end = "cached" if self._cached else f"done in {terminal.clock(time.monotonic() - self._started)}"
            click.echo(f"        {end}", err=True)
            self.running = None


@contextlib.contextmanager
def watch(log: pathlib.Path, number_of_steps: int) -> Iterator[StepLines]:
    """Sends all log lines to a file and none to the terminal; gives the handler that prints the steps instead."""
    log.parent.mkdir(parents=True, exist_ok=True)
    to_file = logging.FileHandler(log)
    to_file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    lines = StepLines(number_of_steps)
    root = logging.getLogger()
    others = [(logger, list(logger.handlers)) for logger in map(logging.getLogger, (None, "absl", "tensorflow"))]
    for logger, handlers in others:
        for handler in handlers:
            logger.removeHandler(handler)
        logger.setLevel(logging.INFO)
    absl_logging.set_verbosity(absl_logging.INFO)  # saving a SavedModel goes back to what was set so
    root.addHandler(to_file)
    root.addHandler(lines)
    try:
        yield lines
    finally:
        root.removeHandler(lines)
        root.removeHandler(to_file)
        to_file.close()
        for logger, handlers in others:
            for handler in handlers:
                logger.addHandler(handler)
