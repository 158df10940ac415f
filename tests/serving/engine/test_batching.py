"""Batching: what shares a batch, who waits, who is refused, and that no request spoils another's."""

import asyncio
import concurrent.futures
import threading
import time
import urllib.request

import numpy as np
import pytest

from serving.client import Client
from serving.engine.batching import Batcher
from serving.engine.loaded_model import Spec
from serving.engine.settings import BatchingSettings
from serving.protocol.errors import Code, RequestError
from tests.serving import served


class FakeSignature:
    """Doubles numbers, one batch at a time, each as long as `gate` is closed; refuses negative ones."""

    name = "double"
    model = type("Model", (), {"in_flight": 0})()

    def __init__(self, sharable=True):
        self.sharable = sharable
        self.inputs = self.outputs = {"x": Spec(np.dtype("float32"), (None,))}
        self.gate = threading.Event()
        self.gate.set()
        self.batches = []

    def __call__(self, inputs):
        self.batches.append(inputs["x"].tolist())
        assert self.gate.wait(10)
        if (inputs["x"] < 0).any():
            raise RequestError(Code.INVALID_ARGUMENT, "negative")
        if (inputs["x"] > 100).any():
            raise ZeroDivisionError
        return {"x": inputs["x"] * 2}

    def cut(self, outputs, rows):
        return {key: array[rows] for key, array in outputs.items()}

    def joined(self, answers):
        return {key: np.concatenate([answer[key] for answer in answers]) for key in self.outputs}


def numbers(*values):
    return {"x": np.array(values, np.float32)}


def run(body, **settings):
    """Runs `body(batcher)` in an event loop."""

    async def main():
        batcher = Batcher(BatchingSettings(**{"num_batch_threads": 1, "max_batch_size": 4, **settings}))
        try:
            return await body(batcher)
        finally:
            batcher.close()

    return asyncio.run(main())


async def while_busy(batcher, signature, *requests):
    """Puts requests into the queue while the only thread is busy with `[0]`, then lets go."""
    signature.gate.clear()
    asked = [numbers(0), *requests]
    tasks = [asyncio.create_task(batcher.run(signature, inputs, len(inputs["x"]))) for inputs in asked]
    await asyncio.sleep(0.02)
    return tasks[1:]


def test_those_who_wait_share_a_batch():
    signature = FakeSignature()

    async def body(batcher):
        tasks = await while_busy(batcher, signature, numbers(1), numbers(2, 3), numbers(4, 5), numbers(6))
        assert batcher.waiting_rows == 6
        signature.gate.set()
        answers = await asyncio.gather(*tasks)
        assert [answer["x"].tolist() for answer in answers] == [[2], [4, 6], [8, 10], [12]]
        assert batcher.waiting_rows == 0

    run(body)
    assert signature.batches == [[0], [1, 2, 3, 6], [4, 5]]


def test_nobody_waits_for_company_while_a_thread_is_free():
    signature = FakeSignature()

    async def body(batcher):
        start = time.monotonic()
        await batcher.run(signature, numbers(1), 1)
        assert time.monotonic() - start < 0.5

    run(body)


def test_batch_timeout_waits_for_company():
    signature = FakeSignature()

    async def body(batcher):
        start = time.monotonic()
        await asyncio.gather(*(batcher.run(signature, numbers(i), 1) for i in range(3)))
        assert 0.1 <= time.monotonic() - start < 2
        await asyncio.gather(*(batcher.run(signature, numbers(i), 1) for i in range(4)))  # full: no wait

    run(body, batch_timeout_micros=100_000)
    assert [len(batch) for batch in signature.batches] == [3, 4]


def test_what_may_not_share_runs_alone():
    signature = FakeSignature(sharable=False)

    async def body(batcher):
        tasks = await while_busy(batcher, signature, numbers(1), numbers(2), numbers(*range(9)))
        signature.gate.set()
        await asyncio.gather(*tasks)

    run(body)
    assert [len(batch) for batch in signature.batches] == [1, 1, 1, 9]


def test_without_batching_a_request_is_a_batch_of_its_own():
    """All of its rows, however many, and nobody else's: what a model says of one may depend on the others."""
    signature = FakeSignature()

    async def body(batcher):
        tasks = await while_busy(batcher, signature, numbers(*range(7)), numbers(1), numbers(2, 3))
        signature.gate.set()
        return await asyncio.gather(*tasks)

    answers = run(body, enabled=False, batch_timeout_micros=10_000_000)
    assert signature.batches[1:] == [[0, 1, 2, 3, 4, 5, 6], [1], [2, 3]]
    assert [answer["x"].tolist() for answer in answers][-1] == [4, 6]


def test_large_requests_are_split_and_joined():
    signature = FakeSignature()

    async def body(batcher):
        answer = await batcher.run(signature, numbers(*range(10)), 10)
        assert answer["x"].tolist() == [2.0 * i for i in range(10)]

    run(body)
    assert [len(batch) for batch in signature.batches] == [4, 4, 2]


def test_a_refused_part_ends_the_others():
    signature = FakeSignature()

    async def body(batcher):
        with pytest.raises(RequestError, match="negative"):
            await batcher.run(signature, numbers(*range(-1, 39)), 40)
        assert signature.model.in_flight == 0
        await batcher.run(signature, numbers(1), 1)

    run(body)
    # The second was on its way when the first had failed.
    assert len(signature.batches) <= 3
    assert signature.batches[-1] == [1]


class Texts(FakeSignature):
    """Gives texts back, and notes their lengths."""

    def __init__(self):
        super().__init__()
        self.inputs = self.outputs = {"text": Spec(np.dtype(object), (None,))}

    def __call__(self, inputs):
        self.batches.append(sorted(len(text) for text in inputs["text"]))
        assert self.gate.wait(10)
        return dict(inputs)


def test_a_batch_is_bounded_in_rows_and_in_padded_bytes():
    signature = Texts()

    def texts(*lengths):
        return {"text": np.array([b"x" * length for length in lengths], object)}

    async def body(batcher):
        signature.gate.clear()
        asked = [texts(length) for length in (0, 9, 200, 1, 2, 300, 3, 4, 5)]
        tasks = [asyncio.create_task(batcher.run(signature, inputs, 1)) for inputs in asked]
        await asyncio.sleep(0.02)
        signature.gate.set()
        answers = await asyncio.gather(*tasks)
        assert [answer["text"].tolist() for answer in answers] == [one["text"].tolist() for one in asked]
        large = texts(5, 1, 9, 2, 8, 3)
        answer = await batcher.run(signature, large, 6)
        assert answer["text"].tolist() == large["text"].tolist()

    run(body)
    # Four rows of 128 bytes, in the order of their coming as far as they fit. Parts of one large request: by length.
    assert signature.batches == [[0], [9, 200], [1, 2, 3, 4], [300], [5], [1, 2, 3, 5], [8, 9]]


def test_over_the_bound_is_refused_at_once():
    signature = FakeSignature()

    async def body(batcher):
        tasks = await while_busy(batcher, signature, *(numbers(i) for i in range(8)))
        with pytest.raises(RequestError) as error:
            await batcher.run(signature, numbers(9), 1)
        assert error.value.code is Code.RESOURCE_EXHAUSTED
        other = asyncio.create_task(batcher.run(FakeSignature(), numbers(1), 1))  # has a queue of its own
        await asyncio.sleep(0)
        signature.gate.set()
        await asyncio.gather(other, *tasks)
        await batcher.run(signature, numbers(9), 1)

    run(body, max_enqueued_batches=2)
    assert len(signature.batches) == 4


def test_who_has_gone_leaves_the_bound():
    signature = FakeSignature()

    async def body(batcher):
        tasks = await while_busy(batcher, signature, *(numbers(i) for i in range(8)))
        for task in tasks:
            task.cancel()
        await asyncio.sleep(0)
        other = asyncio.create_task(batcher.run(signature, numbers(9), 1))
        await asyncio.sleep(0)
        signature.gate.set()
        assert (await other)["x"].tolist() == [18]

    run(body, max_enqueued_batches=2)
    assert signature.batches == [[0], [9]]


def test_who_waits_for_company_does_not_hold_up_others():
    patient, alone = FakeSignature(), FakeSignature(sharable=False)

    async def body(batcher):
        start = time.monotonic()
        waiting = asyncio.create_task(batcher.run(patient, numbers(1), 1))
        await asyncio.sleep(0)
        await batcher.run(alone, numbers(2), 1)
        assert time.monotonic() - start < 1
        assert not waiting.done()
        await waiting

    run(body, batch_timeout_micros=1_500_000)


def test_who_has_gone_is_not_answered():
    signature = FakeSignature()

    async def body(batcher):
        tasks = await while_busy(batcher, signature, numbers(1), numbers(2), numbers(3))
        tasks[1].cancel()
        await asyncio.sleep(0)
        signature.gate.set()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(answers[1], asyncio.CancelledError)
        assert batcher.waiting_rows == 0

    run(body)
    assert signature.batches == [[0], [1, 3]]
    assert signature.model.in_flight == 0


def test_one_refused_request_does_not_spoil_the_batch():
    signature = FakeSignature()

    async def body(batcher):
        tasks = await while_busy(batcher, signature, numbers(1), numbers(-1), numbers(101), numbers(3))
        signature.gate.set()
        good, negative, failed, last = await asyncio.gather(*tasks, return_exceptions=True)
        assert [good["x"].tolist(), last["x"].tolist()] == [[2], [6]]
        assert negative.code is Code.INVALID_ARGUMENT
        assert failed.code is Code.INTERNAL
        assert failed.message == "the model failed: ZeroDivisionError"

    run(body)


def test_an_empty_request():
    signature = FakeSignature()

    async def body(batcher):
        assert (await batcher.run(signature, numbers(), 0))["x"].tolist() == []

    run(body)


# ------------------------------------------------------------------------------------------------- in a real server


def together(server, signature, *texts):
    """Answers to requests that are sent at once while the server's only thread is busy."""
    with Client(server.grpc, model="toy") as client, concurrent.futures.ThreadPoolExecutor(len(texts) + 1) as threads:
        threads.submit(client.predict, "slow", text=["400"])
        time.sleep(0.1)
        asked = [threads.submit(client.predict, signature, text=[text]) for text in texts]
        return [one.exception() or one.result() for one in asked]


@pytest.fixture(scope="module")
def server(toy_folder):
    settings = BatchingSettings(num_batch_threads=1, max_batch_size=8)
    with served.running(served.settings(toy_folder, batching=settings)) as server:
        yield server


def test_clients_share_a_batch(server):
    answers = together(server, "serving_default", "a", "bb", "ccc", "dddd")
    assert [answer["length"].tolist() for answer in answers] == [[1], [2], [3], [4]]
    assert max(int(answer["batch"][0]) for answer in answers) > 1


def test_the_answer_is_the_same_alone_and_in_company(server):
    texts = ["x", "a much longer one", ""]
    with Client(server.grpc, model="toy") as client:
        for signature in ("fill_mask", "free"):
            alone = [client.predict(signature, text=[text]) for text in texts]
            for one, other in zip(alone, together(server, signature, *texts), strict=True):
                assert {name: array.tolist() for name, array in one.items()} == {
                    name: array.tolist() for name, array in other.items()
                }
                assert {name: array.shape for name, array in one.items()} == {
                    name: array.shape for name, array in other.items()
                }


def test_a_large_request_of_padded_answers_is_split(server):
    texts = [["x", "yy", ""][i % 3] * (i + 1) for i in range(20)]
    with Client(server.grpc, model="toy") as client:
        answer = client.predict("fill_mask", text=texts)
    assert answer["mask_count"].tolist() == list(map(len, texts))
    assert answer["tokens"].shape == (20, 40, 1)
    for text, row in zip(texts, answer["tokens"][:, :, 0].tolist(), strict=True):
        assert row == [letter.encode() for letter in text] + [b""] * (40 - len(text))
    with urllib.request.urlopen(f"{server.rest}/monitoring/prometheus/metrics") as response:
        figures = response.read().decode()
    eight = 'processed_batch_size_bucket{le="8.0",model_name="toy",signature="fill_mask"} '
    all_of_them = 'processed_batch_size_count{model_name="toy",signature="fill_mask"} '
    assert figures.split(eight)[1].split()[0] == figures.split(all_of_them)[1].split()[0]


def test_a_refused_text_among_good_ones(server):
    good, bad, other = together(server, "picky", "a", "bad", "ccc")
    assert good["length"].tolist() == [1]
    assert other["length"].tolist() == [3]
    assert bad.code is Code.INVALID_ARGUMENT
    assert "bad is refused" in bad.message
