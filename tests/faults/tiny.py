"""A pipeline as small as can be, and what tells one of its runs from another."""

import contextlib
import dataclasses
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from pipeline import settings
from tests.data import ROOT


def tiny() -> settings.PipelineSettings:
    """Twenty steps, with a checkpoint every four: a training can be met anywhere."""
    run = settings.smoke()
    training = dataclasses.replace(run.training, checkpoint_every=4, steps_per_call=2)
    return run.replace(training=training)


def weights(home: pathlib.Path, name: str = "bert") -> dict[str, np.ndarray]:
    """Of the one version that a home has pushed."""
    (version,) = (home / "serving" / name).glob("[0-9]*")
    path = str(version / "variables" / "variables")
    return {name: tf.train.load_variable(path, name) for name, shape in tf.train.list_variables(path) if shape}


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    """Bit for bit."""
    return bool(one) and one.keys() == other.keys() and all((one[name] == other[name]).all() for name in one)


def nodes(home: pathlib.Path) -> list[dict]:
    """What the newest run of a home did so far."""
    try:
        return json.loads((home / "reports" / "run.json").read_text())["nodes"]
    except (OSError, ValueError):
        return []


class Runs:
    """`start` begins a run on the tiny settings and gives its process, `wait` its exit status."""

    def __init__(self, process: subprocess.Popen, folder: pathlib.Path):
        self._process, self._settings = process, folder / "tiny.json"
        self._settings.write_text(tiny().to_json())
        assert self._read() == "ready"

    def start(
        self, home: pathlib.Path, run: settings.PipelineSettings | None = None, environment: dict | None = None
    ) -> int:
        given = self._settings if run is None else home.with_suffix(".json")
        if run is not None:
            given.write_text(run.to_json())
        asked: dict = {"home": str(home), "settings": str(given), "log": str(home.with_suffix(".log"))}
        asked["environment"] = environment or {}
        assert self._process.stdin
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        return int(self._read())

    def wait(self) -> int:
        return int(self._read())

    def finish(
        self,
        home: pathlib.Path,
        run: settings.PipelineSettings | None = None,
        status: int = 0,
        environment: dict | None = None,
    ) -> str:
        """What a run said that ends with a status."""
        log = home.with_suffix(".log")
        before = log.stat().st_size if log.exists() else 0
        self.start(home, run, environment)
        found = self.wait()
        said = log.read_bytes()[before:].decode()
        assert found == status, said
        return said

    def _read(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline().strip()


@contextlib.contextmanager
def runs(folder: pathlib.Path) -> Iterator[Runs]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.faults.zygote"],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=None,
        text=True,
    )
    try:
        yield Runs(process, folder)
    finally:
        process.kill()
        process.wait()
