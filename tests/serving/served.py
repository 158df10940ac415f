"""Small SavedModels with string signatures, and the embedded server in a thread of the test process."""

import asyncio
import contextlib
import dataclasses
import functools
import pathlib
import shutil
import tempfile
import threading

import tensorflow as tf

from serving.engine.settings import ModelSettings, ServerSettings
from serving.server import embedded

TEXT = tf.TensorSpec([None], tf.string, name="text")


class Toy(tf.Module):
    """What the server's tests need, without a neural network. `version` is told in every answer."""

    def __init__(self, version: int):
        super().__init__()
        self.version = tf.Variable(version, dtype=tf.int32)

    @tf.function(input_signature=[TEXT])
    def serving_default(self, text):
        rows = tf.shape(text)[0]
        return {
            "length": tf.cast(tf.strings.length(text), tf.float32),
            "version": tf.fill([rows], self.version),
            "upper": tf.strings.upper(text),
            "batch": tf.fill([rows], rows),  # how many rows were run together
        }

    @tf.function(input_signature=[TEXT])
    def single(self, text):
        return {"length": tf.strings.length(text)}

    @tf.function(input_signature=[TEXT, tf.TensorSpec([None, 2], tf.float32, name="numbers")])
    def pair(self, text, numbers):
        return {"copy_bytes": text, "sum": tf.reduce_sum(numbers, 1), "root": tf.sqrt(numbers)}

    @tf.function(input_signature=[TEXT])
    def picky(self, text):
        with tf.control_dependencies([tf.debugging.assert_none_equal(text, "bad", message="bad is refused")]):
            return {"length": tf.strings.length(text), "batch": tf.fill(tf.shape(text), tf.shape(text)[0])}

    @tf.function(input_signature=[TEXT])
    def slow(self, text):
        """Takes as many thousandths of a second or so as the text's number says."""
        rounds = tf.reduce_max(tf.strings.to_number(text, tf.int32))

        def body(i, matrix):
            return i + 1, matrix @ matrix / 200.0

        _, matrix = tf.while_loop(lambda i, _: i < rounds, body, (0, tf.ones([200, 200])))
        return {"sum": tf.fill(tf.shape(text), tf.reduce_sum(matrix)), "batch": tf.fill(tf.shape(text), tf.size(text))}

    @tf.function(input_signature=[TEXT])
    def fill_mask(self, text):
        """`tokens` [B, M, 1]: the letters of each text; M as many as the longest has."""
        letters = tf.strings.unicode_split(text, "UTF-8")
        dense = letters.to_tensor()
        return {
            "tokens": tf.ensure_shape(dense[:, :, None], [None, None, 1]),
            "mask_count": tf.cast(letters.row_lengths(), tf.int32),
        }

    @tf.function(input_signature=[TEXT])
    def free(self, text):
        """Padded to the batch's longest, and nothing says how far a row goes."""
        return {"letters": tf.strings.unicode_split(text, "UTF-8").to_tensor()}


SIGNATURES = ("serving_default", "single", "pair", "picky", "slow", "fill_mask", "free")


@functools.cache
def _saved(version: int) -> tempfile.TemporaryDirectory:
    folder, toy = tempfile.TemporaryDirectory(), Toy(version)
    tf.saved_model.save(toy, folder.name, signatures={name: getattr(toy, name) for name in SIGNATURES})
    return folder


def save(base: pathlib.Path, version: int) -> pathlib.Path:
    """Writes `base/version`, appearing at once and whole."""
    partial = shutil.copytree(_saved(version).name, base / f".{version}", copy_function=shutil.copy)
    return partial.rename(base / str(version))


@dataclasses.dataclass
class Running:
    """A server: its addresses and the lines that it reported."""

    grpc: str
    rest: str
    lines: list[str]


@contextlib.contextmanager
def running(settings: ServerSettings):
    """A server in a thread, on free ports; it drains when the block ends."""
    settings = dataclasses.replace(settings, port=0, rest_api_port=0)
    up = threading.Event()
    state: dict = {"error": None}
    lines: list[str] = []

    def ready(addresses):
        state["addresses"] = addresses
        up.set()

    async def main():
        state["loop"], state["stop"] = asyncio.get_running_loop(), asyncio.Event()
        await embedded.run(settings, state["stop"], report=lines.append, ready=ready)

    def thread():
        try:
            asyncio.run(main())
        except BaseException as error:
            state["error"] = error
        finally:
            up.set()

    runner = threading.Thread(target=thread)
    runner.start()
    try:
        up.wait(60)
        if state["error"]:
            raise state["error"]
        yield Running(state["addresses"].grpc, state["addresses"].rest, lines)
    finally:
        if not state["error"]:
            state["loop"].call_soon_threadsafe(state["stop"].set)
        runner.join(30)
    if state["error"]:
        raise state["error"]


def settings(base: pathlib.Path, **changes) -> ServerSettings:
    """Of the one model `toy` in a folder."""
    model = ModelSettings("toy", str(base), **changes.pop("model", {}))
    defaults = {"models": (model,), "file_system_poll_wait_seconds": 0.1}
    return ServerSettings(**{**defaults, **changes})
