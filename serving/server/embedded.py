"""The embedded server: TensorFlow Serving's gRPC and REST API over its version folders, in one process.

One event loop reads requests, batches them and writes answers; TensorFlow runs in a few threads beside it.
"""

import asyncio
import contextlib
import dataclasses
import gc
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence

from preprocessing.errors import InputError
from serving.engine import versions
from serving.engine.settings import ModelSettings, ServerSettings
from serving.protocol.errors import Code, RequestError
from serving.server import config_files, http

log = logging.getLogger(__name__)

Report = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Addresses:
    """Where a running server answers; None for what is switched off."""

    grpc: str | None  # host:port
    rest: str | None  # http://host:port
    grpc_socket: str | None = None  # unix:path


def serve(settings: ServerSettings, *, report: Report = log.info, ready: Callable[[Addresses], None] = print) -> None:
    """Serves until SIGTERM or SIGINT, then answers what is running and returns.

    Args:
        settings: see ServerSettings.
        report: called with a line whenever a version comes, goes or is refused.
        ready: called once, when the first models answer.

    Raises: InputError if a folder is missing, a port is taken, none of the only model's versions loads, or a part of
        the server ends by itself.
    """

    async def main():
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        await run(settings, stop, report=report, ready=ready)

    asyncio.run(main())


async def run(
    settings: ServerSettings, stop: asyncio.Event, *, report: Report, ready: Callable[[Addresses], None]
) -> None:
    """As `serve`, in the running event loop, until `stop` is set."""
    for model in settings.models:
        check_folder(model)
    _tell_passed_over(settings.models, report)
    if settings.tls:
        http.ssl_context(settings.tls)  # says what is wrong with them; gRPC would not
    # Ports first: one that is taken should be known before TensorFlow is imported, which takes seconds.
    rest_socket = http.bind(settings.host, settings.rest_api_port) if settings.rest_api_port >= 0 else None
    with contextlib.closing(rest_socket) if rest_socket else contextlib.nullcontext():
        has_grpc = settings.port >= 0 or settings.grpc_socket_path
        grpc_server, grpc_port = http.grpc_server(settings) if has_grpc else (None, None)
        try:
            await _run(settings, stop, report, ready, rest_socket, grpc_server, grpc_port)
        finally:
            if grpc_server is not None:
                await grpc_server.stop(0)


async def _run(settings, stop, report, ready, rest_socket, grpc_server, grpc_port):
    import tensorflow as tf

    from serving.engine.batching import Batcher
    from serving.engine.inference import Inference
    from serving.engine.models import Models
    from serving.server import grpc_api
    from serving.server.metrics import Metrics
    from serving.server.request_log import RequestLog
    from serving.server.rest_api import RestApi

    with contextlib.suppress(RuntimeError):  # already running, as in tests
        tf.config.threading.set_intra_op_parallelism_threads(_intra_op_threads(settings))
        tf.config.threading.set_inter_op_parallelism_threads(settings.inter_op_parallelism)

    # A float32 model answers on a GPU as it did when it was exported; bfloat16 is there for speed.
    tf.config.experimental.enable_tensor_float_32_execution(False)

    # What has been imported stays: collecting the garbage of an unloaded model need not look at it, and takes
    # milliseconds instead of tenths of a second in which no request is read.
    gc.freeze()
    metrics = Metrics()
    models = Models(
        settings.models,
        warm_ups=settings.enable_model_warmup * max(1, settings.num_request_iterations_for_warmup),
        load_retries=settings.max_num_load_retries,
        early_labels=settings.allow_version_labels_for_unavailable_models,
        report=report,
    )
    batcher = Batcher(settings.batching, metrics.batch)
    request_log = RequestLog(settings.log, settings.models, count=metrics.logged, report=report)
    inference = Inference(models, batcher, settings.limits, request_log.offer)
    known_paths = {model.base_path for model in settings.models}

    async def reload(config) -> None:
        try:
            asked = config_files.models_of(config)
        except InputError as error:
            raise RequestError(Code.INVALID_ARGUMENT, str(error)) from None
        for model in asked:
            if model.log:  # no request has the server write files
                report(f"{model.name}: logging_config is passed over: what is logged stays as the operator said")
        _tell_passed_over(asked, report)
        await models.reload(tuple(_of_the_operator(model, known_paths) for model in asked))

    tasks = []
    health = None
    if grpc_server is not None:
        as_content = settings.enable_serialization_as_tensor_content
        health = grpc_api.add_services(grpc_server, inference, metrics, reload, as_content)
    rest_server = None
    try:
        if not await _unless(stop, _first_look(models)):
            return
        gc.enable()
        _check_loaded(settings, models)
        if grpc_server is not None:
            await grpc_server.start()
        if rest_socket is not None:
            app = RestApi(
                inference,
                metrics,
                timeout=settings.rest_api_timeout_in_ms / 1000,
                prometheus_path=settings.prometheus_path,
                cors=settings.rest_api_enable_cors_support,
                waiting_rows=lambda: batcher.waiting_rows,
            )
            rest_server = http.RestServer(http.rest_config(app, settings))
            try:
                rest_socket.listen(2048)
            except OSError as error:  # another server was started at the same time
                raise InputError(
                    http.taken(settings.host, settings.rest_api_port, error.strerror, error.errno)
                ) from None
            rest = asyncio.create_task(rest_server.serve(sockets=[rest_socket]), name="the REST API")
            tasks.append(rest)
            while not rest_server.started and not rest.done():
                await asyncio.sleep(0.001)
            if rest.done():
                raise InputError(_ended(rest))
        if settings.file_system_poll_wait_seconds:
            watch = models.watch(settings.file_system_poll_wait_seconds)
            tasks.append(asyncio.create_task(watch, name="the watch over new versions"))
        if health is not None:
            tasks.append(asyncio.create_task(_follow_health(models, health), name="the health service"))
        if settings.model_config_file and settings.model_config_file_poll_wait_seconds > 0:
            follow = _follow_config(settings, models, request_log, known_paths, report)
            tasks.append(asyncio.create_task(follow, name="the watch over the model configuration"))
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        scheme = "https" if settings.tls else "http"
        ready(
            Addresses(
                grpc=f"{host}:{grpc_port}" if grpc_port is not None else None,
                grpc_socket=f"unix:{settings.grpc_socket_path}" if settings.grpc_socket_path else None,
                rest=f"{scheme}://{host}:{rest_socket.getsockname()[1]}" if rest_socket else None,
            )
        )
        ended = await _first_to_end(stop, tasks)
        if health is not None:
            await grpc_api.set_health(health, False)
        drained = [grpc_server.stop(settings.drain_seconds)] if grpc_server is not None else []
        if rest_server is not None and not rest.done():
            rest_server.should_exit = True
            drained.append(rest)
        await asyncio.gather(*drained)
        if ended is not None:
            raise InputError(_ended(ended))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await models.close()
        batcher.close()
        request_log.close()


async def _first_look(models):
    await models.refresh()
    settled = asyncio.get_running_loop().time() + 3 * versions.SETTLE_SECONDS
    while models.unsettled and asyncio.get_running_loop().time() < settled:
        await asyncio.sleep(0.1)  # a version that has only just been written
        await models.refresh()


async def _unless(stop: asyncio.Event, coroutine) -> bool:
    """Whether it came to its end before `stop` was set."""
    task = asyncio.create_task(coroutine)
    if await _first_to_end(stop, [task]) is None:
        task.cancel()
        return False
    task.result()
    return True


async def _first_to_end(stop: asyncio.Event, tasks: Sequence[asyncio.Task]) -> asyncio.Task | None:
    """A task that has ended before `stop` was set, or None."""
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait({stopped, *tasks}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    return next((task for task in tasks if task.done()), None)


def _ended(task: asyncio.Task) -> str:
    """None of the server's parts ends before the server does, so that one is missing is never passed over."""
    error = task.exception()
    why = f" ({type(error).__name__}: {error})" if error else ""
    return f"{task.get_name()} has ended by itself{why}, and the server with it: start it again"


def check_folder(model: ModelSettings) -> None:
    """Raises InputError if a model's base path is no folder, or plainly the wrong one."""
    if not os.path.isdir(model.base_path):
        raise InputError(f"the base path of model {model.name} must be a folder. Received: {model.base_path!r}")
    if versions.on_disk(model.base_path):
        return
    if os.path.exists(os.path.join(model.base_path, "saved_model.pb")):
        raise InputError(f"{model.base_path} is a version itself; name the folder that holds it")
    inside = [entry.path for entry in os.scandir(model.base_path) if entry.is_dir() and versions.on_disk(entry.path)]
    if inside:
        raise InputError(f"{model.base_path} has no version folder (1, 2, ...), but {inside[0]} has: name that one")


def _check_loaded(settings, models):
    for model in settings.models:
        refused = [(number, error) for number, state, error in models.status(model.name) if state.name == "END"]
        if refused and not models.all_answer() and len(settings.models) == 1:
            number, error = refused[0]
            raise InputError(f"{model.base_path}/{number}: no version of {model.name} could be loaded: {error}")
    if not settings.file_system_poll_wait_seconds and not models.some_answer():
        paths = [model.base_path for model in settings.models]
        raise InputError(
            "file_system_poll_wait_seconds=0 looks once, so a version must be there from the start. "
            f"Received: none in {', '.join(paths)}"
        )


def _tell_passed_over(models, report):
    for model in models:
        for name in model.passed_over:
            report(f"{model.name}: {name} is passed over: this server does nothing with it")


def _of_the_operator(model, known_paths):
    """The same with its folder as the operator spelled it. Raises RequestError for one that the operator did not name:
    no request makes the server read others."""
    if model.base_path in known_paths:
        return model
    folder = os.path.realpath(model.base_path)
    for known in known_paths:
        if os.path.realpath(known) == folder:
            return dataclasses.replace(model, base_path=known)
    raise RequestError(
        Code.PERMISSION_DENIED,
        f"base_path must be one that the server was started with: {sorted(known_paths)}. Received: {model.base_path!r}",
    )


async def _follow_health(models, health):
    """SERVING once every model answers that has a version, and from then on as long as any does: a model that is added
    takes nothing from the others."""
    from serving.server import grpc_api

    shown = None
    while True:
        serving = models.some_answer() if shown else models.all_answer()
        if serving != shown:
            await grpc_api.set_health(health, serving)
            shown = serving
        await asyncio.sleep(0.2)


async def _follow_config(settings, models, request_log, known_paths, report):
    """Reads the model configuration again when it changes. The operator's own file may name new folders."""
    taken, told = settings.models, ""
    while True:
        await asyncio.sleep(settings.model_config_file_poll_wait_seconds)
        try:
            found = config_files.read_models(settings.model_config_file)
            if found != taken:
                known_paths.update(model.base_path for model in found)
                await models.reload(found)
                request_log.use(found)
                _tell_passed_over(found, report)
                taken = found
            told = ""
        except Exception as error:  # tried again at the next look: a version may still be on its way
            if str(error) != told:
                told = str(error)
                report(f"{settings.model_config_file} was not taken over: {error}")


def _intra_op_threads(settings) -> int:
    """Batches that run at once share the cores; more threads than cores would wait for each other."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return settings.intra_op_parallelism or max(1, cores // settings.batching.num_batch_threads)


def print_ready(addresses: Addresses, stream=None) -> None:
    """The one line on standard output that says where the server answers."""
    where = [f"gRPC {address}" for address in (addresses.grpc, addresses.grpc_socket) if address]
    where += [f"REST {addresses.rest}"] if addresses.rest else []
    print("Ready: " + ", ".join(where), file=stream or sys.stdout, flush=True)
