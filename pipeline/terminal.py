"""What a person sees: progress on a terminal, plain lines elsewhere, and no third-party noise."""

import contextlib
import importlib.util
import logging
import os
import re
import shutil
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import click

from preprocessing.errors import InputError

if TYPE_CHECKING:  # it imports TensorFlow
    from model.tasks.task import Curve


PACKAGES = ("preprocessing", "model", "serving", "pipeline")


def quiet() -> None:
    """Keeps third-party warnings (unsupported Python, missing CUDA, oneDNN notes) off the terminal.

    To be called before TensorFlow is imported. Warnings of this project's own modules still show,
    and so does what they log as one.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    os.environ.setdefault("GLOG_minloglevel", "2")
    os.environ.setdefault("PYTHONWARNINGS", "ignore")  # for worker processes
    warnings.simplefilter("ignore")
    for module in PACKAGES:
        warnings.filterwarnings("default", module=rf"{module}(\.|$)")
    warnings.filterwarnings("ignore", "label.. is deprecated")  # protobuf's, of TFX, laid at its caller's door
    for name in ("tensorflow", "absl", "apache_beam", "root"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for name in PACKAGES:  # "root" above is the root logger: whoever has no level of his own takes its
        logging.getLogger(name).setLevel(logging.WARNING)
    if "tensorflow" not in sys.modules and not any(isinstance(finder, _TensorFlowFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _TensorFlowFinder())


class _TensorFlowFinder:
    """Has TensorFlow imported without the remarks that its native code makes then from 2.21 on, whatever log level is
    set: that oneDNN is on, that there is no CUDA. Whatever else it writes is shown once it is imported."""

    _REMARK = re.compile(rb"[IW]\d{4} |WARNING: All log messages before absl::InitializeLog\(\)")

    def find_spec(self, name, path=None, target=None):
        if name != "tensorflow":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def load_quietly(module):
                with self._without_remarks():
                    load(module)

            spec.loader.exec_module = load_quietly  # type: ignore[method-assign]
        return spec

    @contextlib.contextmanager
    def _without_remarks(self):
        terminal = os.dup(2)
        with tempfile.TemporaryFile() as file:
            os.dup2(file.fileno(), 2)
            try:
                yield
            finally:
                os.dup2(terminal, 2)
                os.close(terminal)
                file.seek(0)
                os.write(2, b"".join(line for line in file if not self._REMARK.match(line)))


def run_command(function: Callable[[], object]) -> None:
    """Calls it; bad input, and a file or folder that cannot be read or written, become one line on standard error and
    exit status 1, or that which the error has. `BERT_DEBUG=1` shows tracebacks."""
    try:
        function()
    except (InputError, OSError) as error:
        if os.environ.get("BERT_DEBUG"):
            raise
        said = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else error
        click.echo(f"bert: error: {said}", err=True)
        sys.exit(getattr(error, "status", 1))


@contextlib.contextmanager
def native_log(path: str | os.PathLike) -> Iterator[None]:
    """Sends what native code (XLA, for one, which no environment variable silences) and child processes write to
    standard error to a file; what Python writes there still reaches the terminal."""
    python_stderr, terminal = sys.stderr, os.dup(2)
    with open(path, "ab") as file:
        os.dup2(file.fileno(), 2)
    sys.stderr = os.fdopen(os.dup(terminal), "w", buffering=1)
    try:
        yield
    finally:
        sys.stderr.close()
        sys.stderr = python_stderr
        os.dup2(terminal, 2)
        os.close(terminal)


class Progress:
    """One line of progress: rewritten in place on a terminal, at most every `interval` seconds a new line elsewhere.

        with Progress("Training", total=1000, unit="step") as progress:
            progress.update(10, loss=5.2, tokens_per_second=81_000)

    `update` takes the amount done so far and any figures to show after it; keyword names are shown with blanks for
    underscores.
    """

    def __init__(self, title: str, total: int | None = None, unit: str = "", interval: float = 10.0, stream=None):
        self._title, self._total, self._unit = title, total, unit
        self._given = stream
        self._live = self._stream.isatty()
        self._interval = 0.2 if self._live else interval
        self._start = time.monotonic()
        self._shown_at = 0.0
        self._first: tuple[float, float] | None = None  # what was done at the first update, and when that was
        self._line = ""
        self._pending = False

    @property
    def _stream(self):
        return self._given or sys.stderr  # looked up anew: a run may exchange it for a while

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if self._pending:
            self._show()
        if self._live and self._line:
            self._stream.write("\n")
            self._stream.flush()

    def update(self, done: float, **figures: float | str) -> None:
        now = time.monotonic()
        self._first = self._first or (done, now)
        self._line = self._format(done, figures, now, *self._first)
        if now - self._shown_at >= self._interval:
            self._show()
            self._shown_at = now
        else:
            self._pending = True

    def _show(self):
        self._pending = False
        self._stream.write(f"\r\x1b[2K{self._line}" if self._live else f"{self._line}\n")
        self._stream.flush()

    def _format(self, done, figures, now, first, first_at):
        parts = [self._title]
        if self._total:
            share = min(done / self._total, 1.0)
            filled = int(24 * share)
            if self._live:
                parts.append("█" * filled + "░" * (24 - filled))
            parts.append(f"{share:4.0%}  {number(done)}/{number(self._total)} {self._unit}".rstrip())
        else:
            parts.append(f"{number(done)} {self._unit}".rstrip())
        parts += [f"{name.replace('_', ' ')} {number(value)}" for name, value in figures.items()]
        parts.append(clock(now - self._start))
        if self._total and first < done < self._total:  # what a resumed run found done took no time here
            parts.append(f"{clock((now - first_at) * (self._total - done) / (done - first))} left")
        return "  ".join(parts)


@contextlib.contextmanager
def watch_workers(title: str, unit: str) -> Iterator[str]:
    """Gives a folder for `preprocessing.beam.progress.WorkerProgress` and shows what stands there until the block ends:
    the counts of `unit`, of documents and of tokens, and their rates."""
    from preprocessing.beam import progress

    folder = tempfile.mkdtemp(prefix="bert-progress-")
    finished = threading.Event()

    def show():
        start = time.monotonic()
        with Progress(title, unit=unit) as line:
            while not finished.wait(0.5):
                done = progress.total(folder)
                rates = {
                    f"{name}/s": done[name] / (time.monotonic() - start) for name in ("documents", unit) if done[name]
                }
                if done:
                    line.update(done[unit], documents=done["documents"], tokens=done["tokens"], **rates)

    thread = threading.Thread(target=show, daemon=True)
    thread.start()
    try:
        yield folder
    finally:
        finished.set()
        thread.join()
        shutil.rmtree(folder, ignore_errors=True)


def training_figures(figures: Mapping[str, float], curves: Iterable["Curve"]) -> dict[str, float]:
    """What of the training figures fits on a line: those that the task's curves say, between what every task has."""
    names = {
        "loss": "loss",
        **{curve.figure: curve.shown for curve in curves if curve.shown},
        "learning_rate": "learning rate",
        "tokens_per_second": "tokens/s",
    }
    return {shown: figures[name] for name, shown in names.items() if name in figures}


def number(value: float | str) -> str:
    """`12,345`, `0.0001`, `3.142`, or the text itself."""
    if isinstance(value, str):
        return value
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def size(count: float) -> str:
    """`512 B`, `3.4 MB`, by thousands."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def clock(seconds: float) -> str:
    """`3:07` or `1:02:03`."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
