"""The whole pipeline on its smallest settings, each node in a process of its own as an orchestrator would start it."""

import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
import tensorflow as tf

from pipeline import local_runner, settings
from pipeline.runs import compiled
from tests.data import ROOT

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Settings with a training that is long enough to be killed."""
    made = settings.smoke()
    training = dataclasses.replace(made.training, steps=400, checkpoint_every=20)
    path = tmp_path_factory.mktemp("settings") / "run.json"
    path.write_text(made.replace(training=training).to_json())
    return str(path)


# A network of the process's own, in which there is nobody but itself.
OFFLINE = ["unshare", "--map-root-user", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]


@pytest.fixture(scope="module")
def offline() -> list[str]:
    """Begins a command that is to run without a network; [] where this machine cannot do that."""
    try:
        return OFFLINE if subprocess.run([*OFFLINE, "true"], capture_output=True).returncode == 0 else []
    except FileNotFoundError:
        return []


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, run, offline):
    """Home of a run of the local runner."""
    home = tmp_path_factory.mktemp("undisturbed")
    finish(home, run, local_runner.__file__, before=offline)
    return home


def start(home, run, *arguments, before=()):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "BERT_HOME": str(home), "BERT_SETTINGS": run}
    command = [*before, sys.executable, *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(*given, **more) -> str:
    started = start(*given, **more)
    output, _ = started.communicate()
    assert started.returncode == 0, output
    return output


def weights(home) -> dict:
    (version,) = (home / "serving" / "bert").glob("[0-9]*")
    path = str(version / "variables" / "variables")
    return {name: tf.train.load_variable(path, name) for name, shape in tf.train.list_variables(path) if shape}


def test_node_by_node_with_a_killed_trainer_it_ends_as_the_local_runner_does(tmp_path, run, undisturbed):
    home = tmp_path / "home"
    step = ("-m", "pipeline.runs.node", "--run-id", "one", "--node")
    finish(home, run, "-m", "pipeline.runs.compile", "--run-id", "one")
    names = compiled.names(compiled.read(home, "one"))
    for name in names[: names.index("Trainer")]:
        assert f"{name}: " in finish(home, run, *step, name)
    killed = start(home, run, *step, "Trainer")
    while not list(home.glob("training/*/checkpoints/*.index")):
        assert killed.poll() is None, killed.communicate()[0]
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    resumed = finish(home, run, *step, "Trainer")
    assert "of a try that did not end" in resumed
    for name in names[names.index("Trainer") + 1 :]:
        finish(home, run, *step, name)
    output = finish(home, run, "-m", "pipeline.runs.report", "--run-id", "one")
    assert "The gate is passed. Pushed to" in output
    report = json.loads((home / "reports" / "report.json").read_text())
    assert report["state"] == "done"
    assert pathlib.Path(report["pushed_to"], "saved_model.pb").is_file()
    assert not list((home / "training").iterdir())

    expected, found = weights(undisturbed), weights(home)
    assert expected
    assert expected.keys() == found.keys()
    assert all((found[name] == value).all() for name, value in expected.items())

    # What was done node by node, the local runner takes from the cache.
    assert finish(home, run, local_runner.__file__).count("        cached") == 15


def test_nothing_that_a_run_does_needs_the_network(undisturbed, offline):
    if not offline:
        pytest.skip("needs unshare and ip, and the right to make a network namespace")
    told = subprocess.run([*offline, "cat", "/proc/net/dev"], capture_output=True, text=True, check=True).stdout
    assert [line.split(":")[0].strip() for line in told.splitlines()[2:]] == ["lo"]
    assert json.loads((undisturbed / "reports" / "report.json").read_text())["state"] == "done"
