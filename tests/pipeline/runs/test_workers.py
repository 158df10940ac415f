"""Two processes that train together in a run of the pipeline, as two machines over one home would."""

import dataclasses
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from pipeline import settings
from pipeline.runs import compile as compiling
from pipeline.runs import compiled, node
from pipeline.runs import report as reporting
from tests.data import ROOT
from tests.faults.databases import free_port
from tests.pipeline.runs.test_processes import weights


@pytest.mark.runners
@pytest.mark.timeout(1800)
def test_two_workers_push_what_one_does(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", sys.argv[:1])  # which Beam takes for options of its own
    run = settings.smoke()
    encoder = dataclasses.replace(run.encoder, dropout=0.0, attention_dropout=0.0)
    run = run.replace(encoder=encoder)
    homes = {"one": tmp_path / "one", "two": tmp_path / "two"}
    for name, home in homes.items():
        compiling.compile_run(run, home, name)
        names = compiled.names(compiled.read(home, name))
        for step in names[: names.index("Trainer")]:
            node.launch(home, name, step)
    workers = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    started = []
    for index in range(2):
        task = {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}
        command = ["-m", "pipeline.runs.node", "--run-id", "two", "--node", "Trainer", "--home", str(homes["two"])]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CONFIG": json.dumps(task)}
        with open(tmp_path / f"worker{index}.log", "wb") as log:
            started.append(subprocess.Popen([sys.executable, *command], env=environment, stderr=log))
    try:
        statuses = [process.wait(900) for process in started]
    finally:
        for process in started:
            process.kill()
    assert statuses == [0, 0], [(tmp_path / f"worker{index}.log").read_text()[-3000:] for index in range(2)]
    node.launch(homes["one"], "one", "Trainer")
    for name, home in homes.items():
        for step in names[names.index("Trainer") + 1 :]:
            node.launch(home, name, step)
        reporting.report(home, name)
        assert not list((home / "training").iterdir())
    one, two = (weights(home) for home in homes.values())
    assert one.keys() == two.keys()
    for name, expected in one.items():
        if expected.dtype.kind == "f":
            np.testing.assert_allclose(two[name], expected, atol=1e-4)


def test_a_worker_has_nothing_to_do_in_other_steps(tmp_path, monkeypatch):
    task = {"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 1}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(task))
    assert node.launch(tmp_path, "one", "Pusher") == "ran"
