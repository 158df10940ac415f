"""Running a Beam pipeline: the runner by default, and errors in workers as one line for a person."""

import contextlib
import difflib
import logging
import os
import re
import sys
import threading
from collections.abc import Sequence

import apache_beam as beam
import grpc
from apache_beam.metrics import MetricsFilter
from apache_beam.options import pipeline_options
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability import python_urns
from apache_beam.portability.api import beam_fn_api_pb2
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
from apache_beam.runners.portability.fn_api_runner.worker_handlers import SubprocessSdkWorkerHandler, WorkerHandler
from apache_beam.runners.runner import PipelineResult
from apache_beam.transforms.environments import SubprocessSDKEnvironment

from preprocessing.beam import nursery
from preprocessing.errors import InputError

log = logging.getLogger(__name__)

# Beam's default Direct runner would first try to download another one.
LOCAL_RUNNER = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"

# In this process, or beside it, with no options but Beam's.
_RUN_HERE = ("directrunner", "bundlebaseddirectrunner", "switchingdirectrunner", "fnapirunner", "forkingrunner")

NAMESPACE = "bert"  # of this project's counters

WORKER_LOST = (
    "a worker process ended before its work was done, killed perhaps since memory ran out (the kernel's log tells); "
    "take fewer workers, or more memory, and run again"
)

# What Beam's threads raise, by their names, when a worker is lost.
_LOST = {"beam_control_read": grpc.RpcError, "read_grpc_client_inputs": grpc.RpcError, "run_worker": RuntimeError}

_INPUT_ERROR = re.compile(r"InputError: (?P<message>.+?)(?: \[while running|\\n|\n|$)")
_OS_ERROR = re.compile(
    r"(?:OSError|PermissionError|FileNotFoundError|BeamIOError): (?:\[Errno \d+\] )?"
    r"(?P<message>.+?)(?: \[while running|\\n|\n|$)"
)


class ForkingRunner(FnApiRunner):
    """The local runner with workers from this process's nursery."""

    def __init__(self) -> None:
        super().__init__(SubprocessSDKEnvironment.from_command_string(nursery.command() or ""))


@WorkerHandler.register_environment(python_urns.SUBPROCESS_SDK, bytes)
class WatchedWorker(SubprocessSdkWorkerHandler):
    """A worker process of the local runner. Where it ends with work left (killed, most often for want of memory), the
    run fails; Beam's own would wait for its answers for ever."""

    lost = False  # has any been, since this was last set?

    def start_worker(self) -> None:
        super().start_worker()
        self._push, self._closing = self.control_conn.push, False
        self.control_conn.push = self._push_to_living  # type: ignore[method-assign]
        threading.Thread(target=self._watch, daemon=True).start()

    def close(self) -> None:
        self._closing = True
        super().close()

    def _push_to_living(self, request):
        future = self._push(request)
        if not self.worker_thread.is_alive():
            self._fail_pending()
        return future

    def _watch(self) -> None:
        self.worker_thread.join()
        if not self._closing:
            WatchedWorker.lost = True
            self._fail_pending()

    def _fail_pending(self) -> None:
        for name, future in list(self.control_conn._futures_by_id.items()):
            future.set(beam_fn_api_pb2.InstructionResponse(instruction_id=name, error=WORKER_LOST))


class _KnownOptions(pipeline_options._BeamArgumentParser):
    """All options that Beam's own classes know."""

    def __init__(self) -> None:
        super().__init__(allow_abbrev=False)
        for options in {str(options): options for options in PipelineOptions.__subclasses__()}.values():
            options._add_argparse_args(self)  # type: ignore[attr-defined]

    def error(self, message):
        raise InputError(f"Beam must know its options. Received: {message}")


def named_runner(arguments: Sequence[str]) -> str | None:
    """The runner that Beam's options name, if they do. Raises InputError as `make_options` does."""
    return _parsed(arguments)[0]


def _parsed(arguments):
    """(runner or None, options that only it can know)"""
    known = _KnownOptions()
    options, unknown = known.parse_known_args(list(arguments))
    runner = options.runner
    if runner == "":
        raise InputError("--runner must name a runner. Received: ''")
    if unknown and (not runner or runner.rpartition(".")[2].lower() in _RUN_HERE):
        near = difflib.get_close_matches(unknown[0].partition("=")[0], known._option_string_actions, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise InputError(f"Beam must know its options. Received: {' '.join(unknown)}{hint}")
    return runner, unknown


def make_options(arguments: Sequence[str] = (), workers: int = 1) -> PipelineOptions:
    """Beam's options: those given, with the local runner where none is named and `workers` processes on it.

    Raises: InputError for an option that Beam does not know, a misspelt `--runner` for one: Beam would pass over it and
        run here. A runner elsewhere may have options that only it knows; they are left to it, which is logged.
    """
    runner, unknown = _parsed(arguments)
    if unknown:
        log.warning("Beam does not know %s: left to %s, if that does", " ".join(unknown), runner)
    if runner:
        return PipelineOptions(list(arguments))
    local = [f"--runner={LOCAL_RUNNER}"]
    if workers > 1 and nursery.command():
        local = [f"--runner={__name__}.{ForkingRunner.__name__}", f"--direct_num_workers={workers}"]
    elif workers > 1:
        local += ["--direct_running_mode=multi_processing", f"--direct_num_workers={workers}"]
    return PipelineOptions([*local, *arguments])


def make_pipeline(options: PipelineOptions) -> beam.Pipeline:
    """Raises InputError for options that Beam does not know, a runner for one."""
    try:
        return beam.Pipeline(options=options)
    except (ValueError, ImportError, AttributeError) as error:
        raise InputError(f"Beam must know its options. Received: {str(error).splitlines()[0]}") from error


def run(pipeline: beam.Pipeline) -> PipelineResult:
    """Runs a pipeline to its end. What a worker found wrong with the input comes out as InputError."""
    try:
        WatchedWorker.lost = False
        with _quiet_workers():
            result = pipeline.run()
            result.wait_until_finish()
    except Exception as error:
        raise_input_error(error)
        if WatchedWorker.lost:
            raise InputError(WORKER_LOST) from error
        raise
    return result


@contextlib.contextmanager
def _quiet_workers():
    """Keeps the logs and the standard error of workers away, and what Beam's threads say when they lose one: the
    exception says it all, once."""
    beam_log = logging.getLogger("apache_beam")
    level = beam_log.level
    beam_log.setLevel(logging.CRITICAL)
    stream, kept = sys.stderr, os.dup(2)
    hook = threading.excepthook

    def quiet_hook(failed):
        if not issubclass(failed.exc_type, _LOST.get(getattr(failed.thread, "name", ""), ())):
            hook(failed)

    threading.excepthook = quiet_hook
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        if _is_standard_error(stream):
            # What this process says still reaches the terminal. Closed when nobody uses it any more.
            sys.stderr = os.fdopen(os.dup(kept), "w", buffering=1)
        yield
    finally:
        threading.excepthook = hook
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
