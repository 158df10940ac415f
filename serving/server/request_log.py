"""A sample of the answered requests, as TensorFlow Serving logs them: `PredictionLog` messages in TFRecord files, which
are warm-up requests too.

An entry has the request as it was understood, with the version that answered, and of the response only that: answers
can be large, and what was asked can be asked again. Texts stand as outlines (`preprocessing.character_kinds`) unless
they are asked for.

No answer waits for the log: the event loop draws the sample and puts it into a bounded queue, and one thread writes.
What it has no room or no time for is dropped and counted.
"""

import logging
import queue
import random
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping

import numpy as np
from tensorflow_serving.apis import prediction_log_pb2

from preprocessing import character_kinds
from serving.engine.loaded_model import LoadedSignature
from serving.engine.settings import LogSettings, ModelSettings, Sample
from serving.protocol import tensors
from serving.server.log_files import LogFiles

log = logging.getLogger(__name__)

WRITTEN, TOO_MANY, TOO_LARGE, BEHIND, FAILED = "written", "over_rate", "too_large", "behind", "failed"
ENTRY_BYTES = 1 << 20  # of the inputs of an entry; TOO_LARGE beyond
_WAITING = 64  # entries in the queue; BEHIND beyond
_CLOSE_SECONDS = 5


class RequestLog:
    """Args:
    settings: bounds, and the sample of models that have none of their own.
    models: the models that are served.
    count: called with (model, outcome) of each sampled request.
    report: called with a line for people when writing fails, once for each cause.
    """

    def __init__(
        self,
        settings: LogSettings,
        models: Iterable[ModelSettings],
        *,
        count: Callable[[str, str], None] = lambda model, outcome: None,
        report: Callable[[str], None] = log.info,
    ):
        self._settings = settings
        self._count = count
        self._report = report
        self._told = ""
        self._files: dict[str, LogFiles] = {}
        self._most = max(1.0, settings.per_second)  # entries at once
        self._allowed, self._since = self._most, time.monotonic()
        self._queue: queue.Queue = queue.Queue(_WAITING)
        self._thread: threading.Thread | None = None
        self.use(models)

    def use(self, models: Iterable[ModelSettings]) -> None:
        """The models that are served from now on."""
        samples = {model.name: model.log or self._settings.sample for model in models}
        self._samples = {name: sample for name, sample in samples.items() if sample and sample.sampling_rate}

    def offer(self, signature: LoadedSignature, inputs: Mapping[str, np.ndarray], wanted: Collection[str]) -> None:
        """Logs an answered request, if it is drawn. Never waits, and never raises."""
        sample = self._samples.get(signature.model.name)
        if sample is None or random.random() >= sample.sampling_rate:
            return
        outcome = None
        if not self._is_in_time():
            outcome = TOO_MANY
        elif sum(map(_bytes, inputs.values())) > ENTRY_BYTES:
            outcome = TOO_LARGE
        else:
            if self._thread is None:
                # A daemon, so that a disk that hangs keeps no server from ending.
                self._thread = threading.Thread(target=self._write_all, name="request log", daemon=True)
                self._thread.start()
            try:
                self._queue.put_nowait((sample, signature, inputs, tuple(wanted), int(time.time())))
            except queue.Full:
                outcome = BEHIND
        if outcome:
            self._count(signature.model.name, outcome)

    def close(self) -> None:
        """Writes what waits, for some seconds at most."""
        if self._thread is not None:
            thread, self._thread = self._thread, None
            self._samples = {}
            threading.Thread(target=self._queue.put, args=(None,), daemon=True).start()
            thread.join(_CLOSE_SECONDS)

    def _is_in_time(self) -> bool:
        now = time.monotonic()
        self._allowed = min(self._most, self._allowed + (now - self._since) * self._settings.per_second)
        self._since = now
        if self._allowed < 1:
            return False
        self._allowed -= 1
        return True

    def _write_all(self) -> None:
        while (item := self._queue.get()) is not None:
            sample, signature, *rest = item
            outcome = WRITTEN
            try:
                record = entry(sample, self._settings.texts, signature, *rest).SerializeToString()
                self._files_of(sample).write(record)
            except Exception as error:  # a full disk, for one; the server goes on
                outcome = FAILED
                if str(error) != self._told:
                    self._told = str(error)
                    self._report(f"the request log is not written: {error}")
            self._count(signature.model.name, outcome)
        for files in self._files.values():
            files.close()

    def _files_of(self, sample: Sample) -> LogFiles:
        prefix = sample.filename_prefix
        if prefix not in self._files:
            self._files[prefix] = LogFiles(prefix, self._settings.total_bytes, self._settings.files)
        return self._files[prefix]


def entry(
    sample: Sample,
    texts: bool,
    signature: LoadedSignature,
    inputs: Mapping[str, np.ndarray],
    wanted: Collection[str],
    seconds: int,
) -> prediction_log_pb2.PredictionLog:
    """One entry of the log; `seconds` since 1970."""
    message = prediction_log_pb2.PredictionLog()
    metadata, predict = message.log_metadata, message.predict_log
    for spec in (metadata.model_spec, predict.request.model_spec, predict.response.model_spec):
        spec.name, spec.signature_name = signature.model.name, signature.name
        spec.version.value = signature.model.version
    metadata.sampling_config.sampling_rate = sample.sampling_rate
    metadata.saved_model_tags.append("serve")
    metadata.timestamp_secs = seconds
    for name, array in inputs.items():
        shown = array if texts or array.dtype != object else _outlines(array)
        tensors.to_proto(shown, predict.request.inputs[name])
    predict.request.output_filter.extend(wanted)
    return message


def _outlines(array: np.ndarray) -> np.ndarray:
    flat = [character_kinds.outline(text.decode("utf-8", "replace")).encode() for text in array.flat]
    outlined = np.empty(len(flat), object)
    outlined[:] = flat
    return outlined.reshape(array.shape)


def _bytes(array: np.ndarray) -> int:
    return sum(map(len, array.flat)) if array.dtype == object else array.nbytes
