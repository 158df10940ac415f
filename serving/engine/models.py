"""Which versions of which models answer: watches the version folders, loads, swaps and unloads.

Runs in the server's event loop; only reading the disk, loading and warming up happen in threads. A version is
announced when it has been loaded and warmed up, in one assignment, and the ones it replaces are dropped when their last
request is answered, so no request ever meets a gap.
"""

import asyncio
import concurrent.futures
import contextlib
import ctypes
import dataclasses
import enum
import gc
import logging
import os
import pathlib
from collections.abc import Callable

from serving.engine import versions
from serving.engine.loaded_model import LoadedModel
from serving.engine.settings import ModelSettings
from serving.protocol.errors import Code, RequestError

log = logging.getLogger(__name__)

Event = Callable[[str], None]


class State(enum.Enum):
    """TensorFlow Serving's ModelVersionStatus.State."""

    START = 10
    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50


@dataclasses.dataclass
class _Version:
    folder: pathlib.Path
    state: State = State.START
    model: LoadedModel | None = None
    error: str = ""
    refused: versions.Fingerprint | None = None  # the files that did not load; tried again when they change


class _Model:
    def __init__(self, settings: ModelSettings):
        self.settings = settings
        self.versions: dict[int, _Version] = {}
        self.loads = 0  # so far

    def available(self) -> dict[int, LoadedModel]:
        return {
            number: version.model
            for number, version in self.versions.items()
            if version.state is State.AVAILABLE and version.model is not None
        }


class Models:
    """The models of a server.

    Args:
        settings: which, and where.
        load: makes a LoadedModel of (name, version, folder).
        report: called with a line for people whenever a version comes, goes or is refused.
        warm_ups: how often the recorded requests of a version are answered before it is.
        load_retries: how often loading is tried again at once.
        early_labels: whether a reload may bring labels of versions that are not loaded yet.
    """

    def __init__(
        self,
        settings: tuple[ModelSettings, ...],
        *,
        warm_ups: int = 1,
        load_retries: int = 0,
        early_labels: bool = False,
        report: Event = log.info,
        load: Callable[[str, int, pathlib.Path], LoadedModel] = LoadedModel,
        settle_seconds: float = versions.SETTLE_SECONDS,
    ):
        self._models = {model.name: _Model(model) for model in settings}
        self._warm_ups = warm_ups
        self._load_retries = load_retries
        self._early_labels = early_labels
        self._report = report
        self._load = load
        self._settled = versions.Settled(settle_seconds)
        # Two, which load a model's versions in turn: what a thread allocates comes from regions of its own, so that a
        # version leaves them empty when it goes. With one, the next settles between its pieces, and keeps the pages.
        self._threads = [concurrent.futures.ThreadPoolExecutor(1, "load") for _ in range(2)]
        self._lock = asyncio.Lock()
        self._tasks: set[asyncio.Task] = set()
        self._closed = False
        self.unsettled = False  # whether the last look found a version that was still being written

    # ------------------------------------------------------------------------------------------------------ look-ups

    @property
    def names(self) -> list[str]:
        return sorted(self._models)

    def find(self, name: str, version: int | None = None, label: str | None = None) -> LoadedModel:
        """The model that a request means: of that version or label, else the newest. Raises RequestError."""
        model = self._named(name)
        available = model.available()
        if label is not None:
            if version is not None:
                raise RequestError(Code.INVALID_ARGUMENT, "a request names a version or a label, not both")
            known = dict(model.settings.labels)
            version = known.get(label)
            if version is None:
                raise RequestError(
                    Code.INVALID_ARGUMENT, f"Unrecognized servable version label: {label}; model {name} has {known}"
                )
        if version is not None:
            if version not in available:
                raise RequestError(Code.NOT_FOUND, f"Servable not found for request: Specific({name}, {version})")
            return available[version]
        if not available:
            raise RequestError(Code.UNAVAILABLE, f"no version of model {name} is loaded yet")
        return available[max(available)]

    def status(self, name: str, version: int | None = None, label: str | None = None) -> list[tuple[int, State, str]]:
        """(version, state, error) of the versions, newest first. Raises RequestError."""
        model = self._named(name)
        if label is not None:
            version = self.find(name, label=label).version
        if version is not None and version not in model.versions:
            raise RequestError(Code.NOT_FOUND, f"Could not find version {version} of model {name}")
        return [
            (number, known.state, known.error)
            for number, known in sorted(model.versions.items(), reverse=True)
            if version in (None, number)
        ]

    def all_answer(self) -> bool:
        """Whether every model that has a version answers. One that is still to get its first is not waited for."""
        return self.some_answer() and all(model.available() or not model.versions for model in self._models.values())

    def some_answer(self) -> bool:
        """Whether at least one model answers."""
        return any(model.available() for model in self._models.values())

    def _named(self, name: str) -> _Model:
        if name not in self._models:
            raise RequestError(Code.NOT_FOUND, f"Could not find any versions of model {name}")
        return self._models[name]

    # ------------------------------------------------------------------------------------------------------- changes

    async def watch(self, seconds: float) -> None:
        """Looks at the folders every so many seconds until it is cancelled."""
        while True:
            await asyncio.sleep(seconds)
            try:
                await self.refresh()
            except Exception:  # a full disk or the like must not end the watch
                log.exception("looking for new versions failed")

    async def reload(self, settings: tuple[ModelSettings, ...]) -> None:
        """Serves these models instead. Those that stay keep their loaded versions, also while they load others from
        another folder; returns when all have loaded what they could. Raises RequestError, with nothing changed, for
        labels of versions that are not served, and for a folder to move to of which nothing loads; and after all, for
        models of which nothing has loaded."""
        async with self._lock:
            replaced = {asked.name: self._models.get(asked.name) or _Model(asked) for asked in settings}
            try:
                for asked in settings:
                    here = self._models.get(asked.name)
                    if here and not _same_folder(here.settings.base_path, asked.base_path):
                        replaced[asked.name] = moved = _Model(asked)
                        await self._refresh(moved)
                        _check_loaded([moved])
                    if here:
                        known = {label for label, _ in here.settings.labels} if self._early_labels else None
                        _check_labels(asked, replaced[asked.name], known)
            except RequestError:
                self._retire_all(model for model in replaced.values() if model not in self._models.values())
                raise
            for asked in settings:
                replaced[asked.name].settings = asked
            self._models, before = replaced, self._models
            self._retire_all(model for model in before.values() if model not in replaced.values())
        await self.refresh()
        _check_loaded(self._models.values())

    async def refresh(self) -> None:
        """Brings memory in line with the folders, once."""
        async with self._lock:
            self.unsettled = False
            for model in list(self._models.values()):
                await self._refresh(model)

    async def close(self) -> None:
        self._closed = True
        for thread in self._threads:
            thread.shutdown(wait=False, cancel_futures=True)
        for task in self._tasks:
            task.cancel()
        for model in self._models.values():
            for loaded in model.available().values():
                loaded.close()

    async def _refresh(self, model: _Model) -> None:
        found = await self._in_thread(self._scan, model)
        whole = {number: files for number, (_, files) in found.items() if files is not None}
        self.unsettled |= len(whole) < len(found)
        for number, known in list(model.versions.items()):
            if known.state is State.END and known.refused is not None and number not in found:
                del model.versions[number]
        # A version that does not load is no candidate any more, and an older one takes its place.
        while missing := set(model.settings.aspired(self._candidates(model, whole))) - model.available().keys():
            number = max(missing)
            await self._bring_up(model, number, found[number][0], whole[number])
        available = model.available()
        wanted = set(model.settings.aspired(self._candidates(model, whole) or list(available)))
        if wanted & available.keys():  # never the last that answers
            for number in available.keys() - wanted:
                self._retire(model, number)

    def _scan(self, model):
        """{version: (folder, its files, or None if it is not whole yet)}"""
        found = {}
        for number, folder in versions.on_disk(model.settings.base_path).items():
            known = model.versions.get(number)
            files = versions.fingerprint(folder)
            loaded = known is not None and known.state is State.AVAILABLE
            ready = loaded or (versions.is_whole(files) and self._settled(folder, files))
            found[number] = (folder, files if ready else None)
        return found

    @staticmethod
    def _candidates(model, whole):
        """Versions that are loaded or worth loading: whole, and not refused as they are now."""
        refused = {number for number, known in model.versions.items() if known.refused == whole.get(number)}
        return [number for number in whole if number not in refused]

    async def _bring_up(self, model, number, folder, files):
        name = model.settings.name
        gap = not model.available()
        known = model.versions[number] = _Version(folder, State.LOADING)
        thread = model.loads % 2
        model.loads += 1
        for attempt in range(self._load_retries + 1):
            try:
                loaded = await self._in_thread(self._load, name, number, folder, thread=thread)
                if not gap:
                    await self._in_thread(self._warmed, loaded, folder, thread=thread)
            except Exception as error:
                lines = str(error).strip().splitlines() or [type(error).__name__]
                known.state, known.error, known.refused = State.END, lines[0][:500], files
                log.debug("%s version %s", name, number, exc_info=True)
                if attempt == self._load_retries:
                    self._report(f"{name}: version {number} refused: {known.error}")
            else:
                known.state, known.model, known.error, known.refused = State.AVAILABLE, loaded, "", None
                self._report(f"{name}: version {number} loaded in {loaded.load_seconds:.1f} s")
                if gap:
                    # Nothing answers yet, and a slow first answer is better than none: it warms up while it serves.
                    self._spawn(self._warm_late(loaded, folder, thread))
                return

    async def _warm_late(self, loaded, folder, thread):
        try:
            await self._in_thread(self._warmed, loaded, folder, thread=thread)
        except Exception as error:
            self._report(f"{loaded.name}: version {loaded.version}: a warm-up request failed: {error}")

    def _warmed(self, loaded, folder):
        for _ in range(self._warm_ups):
            loaded.warm_up(folder, lambda: not self._closed)

    def _retire_all(self, models):
        for model in models:
            for number in list(model.versions):
                self._retire(model, number)

    def _retire(self, model, number):
        known = model.versions[number]
        loaded, known.model, known.state = known.model, None, State.UNLOADING
        self._spawn(self._drop(model, number, known, loaded))

    def _spawn(self, coroutine):
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)  # the loop itself keeps no reference
        task.add_done_callback(self._tasks.discard)

    async def _drop(self, model, number, known, loaded):
        while loaded is not None and loaded.in_flight:
            await asyncio.sleep(0.05)
        known.state = State.END
        if model.versions.get(number) is known:
            del model.versions[number]
        if loaded is not None:
            self._report(f"{model.settings.name}: version {number} unloaded")
        del loaded
        await self._in_thread(_give_memory_back)

    async def _in_thread(self, function, *args, thread=0):
        return await asyncio.get_running_loop().run_in_executor(self._threads[thread], function, *args)


def _give_memory_back() -> None:
    """Frees what refers to itself in circles, as functions and variables do, and returns the pages to the system, which
    glibc would keep: else a server that swaps models every day grows by their fragments."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)


def _check_loaded(models):
    for model in models:
        if not model.available():
            settings = model.settings
            raise RequestError(
                Code.FAILED_PRECONDITION, f"no version of {settings.name} in {settings.base_path} could be loaded yet"
            )


def _same_folder(one, other):
    return one == other or os.path.realpath(one) == os.path.realpath(other)


def _check_labels(settings, model, known):
    """With the labels that are `known`, those that are not may come before their version."""
    for label, number in settings.labels:
        if number not in model.available() and (known is None or label in known):
            raise RequestError(
                Code.FAILED_PRECONDITION, f"label {label!r} needs version {number} of {settings.name} to be loaded"
            )
