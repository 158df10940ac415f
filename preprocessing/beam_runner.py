"""Running a Beam pipeline: the runner by default, and errors in workers as one line for a person."""

import logging
import re
from collections.abc import Sequence

import apache_beam as beam
from apache_beam.metrics import MetricsFilter
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
from apache_beam.runners.runner import PipelineResult

from preprocessing.errors import InputError

# Beam's default Direct runner would first try to download another one.
LOCAL_RUNNER = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"

NAMESPACE = "bert"  # of this project's counters

_INPUT_ERROR = re.compile(r"InputError: (?P<message>.+?)(?: \[while running|\\n|\n|$)")
_OS_ERROR = re.compile(
    r"(?:OSError|PermissionError|FileNotFoundError|BeamIOError): (?:\[Errno \d+\] )?(?P<message>[^\n]+)"
)


def make_options(arguments: Sequence[str] = (), workers: int = 1) -> PipelineOptions:
    """Beam's options: those given, with the local runner where none is named and `workers` processes on it."""
    options = PipelineOptions(list(arguments))
    if options.view_as(StandardOptions).runner:
        return options
    local = [f"--runner={LOCAL_RUNNER}"]
    if workers > 1:
        local += ["--direct_running_mode=multi_processing", f"--direct_num_workers={workers}"]
    return PipelineOptions([*local, *arguments])


def run(pipeline: beam.Pipeline) -> PipelineResult:
    """Runs a pipeline to its end. What a worker found wrong with the input comes out as InputError."""
    beam_log = logging.getLogger("apache_beam")
    level = beam_log.level
    beam_log.setLevel(logging.CRITICAL)  # the exception says it all; the log would repeat it as a traceback
    try:
        result = pipeline.run()
        result.wait_until_finish()
    except Exception as error:
        raise_input_error(error)
        raise
    finally:
        beam_log.setLevel(level)
    return result


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
