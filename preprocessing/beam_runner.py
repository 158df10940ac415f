"""Running a Beam pipeline: the runner by default, and errors in workers as one line for a person."""

import contextlib
import logging
import os
import re
import sys
from collections.abc import Sequence

import apache_beam as beam
from apache_beam.metrics import MetricsFilter
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
from apache_beam.runners.runner import PipelineResult
from apache_beam.transforms.environments import SubprocessSDKEnvironment

from preprocessing import worker_nursery
from preprocessing.errors import InputError

# Beam's default Direct runner would first try to download another one.
LOCAL_RUNNER = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"

NAMESPACE = "bert"  # of this project's counters

_INPUT_ERROR = re.compile(r"InputError: (?P<message>.+?)(?: \[while running|\\n|\n|$)")
_OS_ERROR = re.compile(
    r"(?:OSError|PermissionError|FileNotFoundError|BeamIOError): (?:\[Errno \d+\] )?"
    r"(?P<message>.+?)(?: \[while running|\\n|\n|$)"
)


class ForkingRunner(FnApiRunner):
    """The local runner with workers from this process's nursery."""

    def __init__(self) -> None:
        super().__init__(SubprocessSDKEnvironment.from_command_string(worker_nursery.command() or ""))


def make_options(arguments: Sequence[str] = (), workers: int = 1) -> PipelineOptions:
    """Beam's options: those given, with the local runner where none is named and `workers` processes on it."""
    options = PipelineOptions(list(arguments))
    if options.view_as(StandardOptions).runner:
        return options
    local = [f"--runner={LOCAL_RUNNER}"]
    if workers > 1 and worker_nursery.command():
        local = [f"--runner={__name__}.{ForkingRunner.__name__}", f"--direct_num_workers={workers}"]
    elif workers > 1:
        local += ["--direct_running_mode=multi_processing", f"--direct_num_workers={workers}"]
    return PipelineOptions([*local, *arguments])


def run(pipeline: beam.Pipeline) -> PipelineResult:
    """Runs a pipeline to its end. What a worker found wrong with the input comes out as InputError."""
    try:
        with _quiet_workers():
            result = pipeline.run()
            result.wait_until_finish()
    except Exception as error:
        raise_input_error(error)
        raise
    return result


@contextlib.contextmanager
def _quiet_workers():
    """Keeps the logs and the standard error of workers away: the exception says it all, once."""
    beam_log = logging.getLogger("apache_beam")
    level = beam_log.level
    beam_log.setLevel(logging.CRITICAL)
    stream, kept = sys.stderr, os.dup(2)
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        if _is_standard_error(stream):
            # What this process says still reaches the terminal. Closed when nobody uses it any more.
            sys.stderr = os.fdopen(os.dup(kept), "w", buffering=1)
        yield
    finally:
        sys.stderr = stream
        os.dup2(kept, 2)
        os.close(kept)
        beam_log.setLevel(level)


def _is_standard_error(stream) -> bool:
    try:
        return stream.fileno() == 2
    except (AttributeError, OSError, ValueError):
        return False


def counters(result: PipelineResult) -> dict[str, int]:
    """This project's counters after a run."""
    found: dict[str, int] = {}
    for counter in result.metrics().query(MetricsFilter().with_namespace(NAMESPACE))["counters"]:
        value = counter.committed if counter.committed is not None else counter.attempted
        found[counter.key.metric.name] = found.get(counter.key.metric.name, 0) + (value or 0)
    return found


def raise_input_error(error: BaseException) -> None:
    """Raises InputError with the message of an InputError, or of a file error, that happened in a worker and comes
    wrapped in a runner's own exception; else returns."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, InputError):
            raise InputError(str(cause).split(" [while running")[0]) from error
        cause = cause.__cause__ or cause.__context__
    for pattern in (_INPUT_ERROR, _OS_ERROR):
        if match := pattern.search(str(error)):
            raise InputError(match["message"].strip()) from error
