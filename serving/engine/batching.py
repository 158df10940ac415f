"""Requests of several clients, answered together.

A batch starts whenever a thread is free and someone waits, with whoever waits by then: nobody waits for company (unless
`batch_timeout_micros` says so), and under load batches grow by themselves. Texts stay strings up to the graph, which
pads, so rows are simply put one under the other.

All of it runs in the event loop but the model itself, so there are no locks.
"""

import asyncio
import concurrent.futures
import dataclasses
import logging
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from serving.engine.loaded_model import LoadedSignature
from serving.engine.settings import BatchingSettings
from serving.protocol.errors import Code, RequestError

log = logging.getLogger(__name__)

Arrays = Mapping[str, np.ndarray]
# Of a text in a full batch, on average.
TYPICAL_BYTES = 128


@dataclasses.dataclass
class _Waiting:
    inputs: Arrays
    rows: int
    length: int  # bytes of the longest text
    answer: asyncio.Future
    since: float  # monotonic seconds


class _Queue:
    def __init__(self, signature: LoadedSignature):
        self.signature = signature
        self.waiting: list[_Waiting] = []
        self.rows = 0

    def forget(self) -> None:
        """Leaves out those whose deadline is over or whose client has gone."""
        self.waiting = [one for one in self.waiting if not one.answer.done()]
        self.rows = sum(one.rows for one in self.waiting)

    def take(self, max_rows: int, share: bool) -> list[_Waiting]:
        """The next batch: who has waited longest, and of the others, in the order of their coming, those that may share
        and fit. A batch of long texts takes fewer rows, and short ones do not join long ones, as attention pads."""
        self.forget()
        waiting = self.waiting
        batch, rows, longest = waiting[:1], 0, 0
        if batch and share and self.signature.sharable:
            rows, longest = batch[0].rows, batch[0].length
            for other in waiting[1:]:
                most = max(longest, other.length)
                if rows + other.rows <= max_rows and (rows + other.rows) * most <= max_rows * TYPICAL_BYTES:
                    batch.append(other)
                    rows, longest = rows + other.rows, most
        taken = set(map(id, batch))
        self.waiting = [one for one in waiting if id(one) not in taken]
        self.rows = sum(one.rows for one in self.waiting)
        return batch


class Batcher:
    """Runs signatures in a few threads.

    Args:
        settings: sizes and bounds.
        observe: called with (signature, rows) of every batch that is run.
    """

    def __init__(
        self, settings: BatchingSettings, observe: Callable[[LoadedSignature, int], None] = lambda signature, rows: None
    ):
        self._settings = settings
        self._observe = observe
        self._threads = concurrent.futures.ThreadPoolExecutor(settings.num_batch_threads, "batch")
        self._idle = settings.num_batch_threads
        self._queues: dict[LoadedSignature, _Queue] = {}  # those in which someone waits
        self._timer: asyncio.TimerHandle | None = None

    @property
    def waiting_rows(self) -> int:
        return sum(queue.rows for queue in self._queues.values())

    async def run(self, signature: LoadedSignature, inputs: Arrays, rows: int) -> dict[str, np.ndarray]:
        """The outputs for checked inputs. Raises RequestError, at once where the queue is full."""
        size = self._settings.max_batch_size
        bound = self._settings.max_enqueued_batches * size
        queue = self._queues.get(signature)
        if queue is not None and queue.rows >= bound:
            queue.forget()
            if queue.rows >= bound:
                raise RequestError(
                    Code.RESOURCE_EXHAUSTED,
                    f"the server is overloaded: {queue.rows} rows wait for {signature.name} already; try again later",
                )
        signature.model.in_flight += 1
        try:
            if rows <= size or not (signature.sharable and self._settings.enabled):
                return await self._enqueue(signature, inputs, rows)
            # Texts of similar length together, so that little is padded.
            order = np.argsort(_lengths(inputs, rows), kind="stable")
            chosen = [order[start : start + size] for start in range(0, rows, size)]
            asked = [({key: array[part] for key, array in inputs.items()}, len(part)) for part in chosen]
            parts = [self._enqueue(signature, part, count) for part, count in asked]
            try:
                answers = signature.joined(await asyncio.gather(*parts))
            finally:
                for part in parts:
                    part.cancel()  # what is left to do when one failed
            back = np.argsort(order)
            return {key: array[back] for key, array in answers.items()}
        finally:
            signature.model.in_flight -= 1

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _enqueue(self, signature: LoadedSignature, inputs: Arrays, rows: int) -> asyncio.Future:
        answer = asyncio.get_running_loop().create_future()
        queue = self._queues.setdefault(signature, _Queue(signature))
        rows = max(rows, 1)  # an empty request is one too
        longest = int(_lengths(inputs, rows).max(initial=0)) if signature.sharable else 0
        queue.waiting.append(_Waiting(inputs, rows, longest, answer, time.monotonic()))
        queue.rows += rows
        self._dispatch()
        return answer

    def _dispatch(self) -> None:
        """Starts batches while threads are free, of the queue that is due longest first."""
        loop = asyncio.get_running_loop()
        while self._idle and self._queues:
            queue = min(self._queues.values(), key=self._due)
            left = self._due(queue) - time.monotonic()
            if left > 0:
                if self._timer is None:
                    self._timer = loop.call_later(left, self._timed_out)
                return
            batch = queue.take(self._settings.max_batch_size, self._settings.enabled)
            if not queue.waiting:
                del self._queues[queue.signature]
            if batch:
                self._idle -= 1
                self._start(loop, queue.signature, batch)

    def _due(self, queue) -> float:
        """When its next batch may start, in monotonic seconds: at once if it is full or for one request alone."""
        settings = self._settings
        waits = settings.enabled and queue.signature.sharable and queue.rows < settings.max_batch_size
        return queue.waiting[0].since + waits * self._settings.batch_timeout_micros / 1e6

    def _timed_out(self):
        self._timer = None
        self._dispatch()

    def _start(self, loop, signature, batch):
        self._observe(signature, sum(waiting.rows for waiting in batch))
        running = loop.run_in_executor(self._threads, _answers, signature, [waiting.inputs for waiting in batch])

        def done(finished):
            if finished.cancelled():  # the server ends
                return
            self._idle += 1
            for waiting, answer in zip(batch, finished.result(), strict=True):
                if waiting.answer.done():
                    continue
                if isinstance(answer, Exception):
                    waiting.answer.set_exception(answer)
                else:
                    waiting.answer.set_result(answer)
            self._dispatch()

        running.add_done_callback(done)


def _lengths(inputs: Arrays, rows: int) -> np.ndarray:
    """Bytes of the texts in each row; 0 where there are none."""
    texts = [array for array in inputs.values() if array.dtype == object and array.ndim == 1]
    return np.array([sum(map(len, row)) for row in zip(*texts, strict=True)] or [0] * rows)


def _answers(signature: LoadedSignature, requests: Sequence[Arrays]) -> list[dict[str, np.ndarray] | Exception]:
    """One answer or error per request. When a batch fails, its requests are run one by one: one that the model refuses
    must not spoil the others."""
    try:
        if len(requests) == 1:
            return [signature(requests[0])]
        together = {key: np.concatenate([inputs[key] for inputs in requests]) for key in signature.inputs}
        outputs = signature(together)
        answers: list[dict[str, np.ndarray] | Exception] = []
        start = 0
        for inputs in requests:
            stop = start + len(next(iter(inputs.values())))
            answers.append(signature.cut(outputs, slice(start, stop)))
            start = stop
        return answers
    except Exception as error:
        if len(requests) > 1:
            return [answer for inputs in requests for answer in _answers(signature, [inputs])]
        if isinstance(error, RequestError):
            return [error]
        log.exception("signature %s failed", signature.name)
        return [RequestError(Code.INTERNAL, f"the model failed: {type(error).__name__}")]
