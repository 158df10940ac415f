"""What was made on one stack is used on the other: exports, trainings that were killed, homes of the pipeline.

`here` is the stack of this interpreter, `there` the one in the root that `.ci/other-stack` makes. Files stand at the
same path on both, since a home's path is in its metadata store.
"""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np
import pytest

from tests import data

pytestmark = [pytest.mark.stacks, pytest.mark.timeout(3600)]
OTHER = data.ROOT / ".ci" / "other-stack"
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
THERE_AND_BACK = [("here", "there"), ("there", "here")]


class Stack:
    """A stack: what goes before its `python`, and the folder `work`, where it and the other one see the same path.

    `root` is the folder that is its `/`.
    """

    def __init__(self, enter: list, python: str, root: pathlib.Path, work: pathlib.Path):
        self.enter, self.python, self.work, self.on_disk = enter, python, work, root / work.relative_to("/")
        self.on_disk.mkdir(parents=True)

    def start(self, *arguments, **environment) -> subprocess.Popen:
        variables = [f"{name}={value}" for name, value in environment.items()]
        command = [*self.enter, "env", *variables, self.python, *map(str, arguments)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(command, cwd=data.ROOT, text=True, start_new_session=True, **pipes)

    def run(self, *arguments, **environment) -> str:
        process = self.start(*arguments, **environment)
        output, errors = process.communicate()
        assert process.returncode == 0, errors[-3000:]
        return output + errors

    def hand_over(self, other: "Stack") -> None:
        shutil.rmtree(other.on_disk)
        shutil.copytree(self.on_disk, other.on_disk, symlinks=True)


@pytest.fixture
def stacks():
    done = subprocess.run([OTHER, "make", "setup"], cwd=data.ROOT, text=True, capture_output=True)
    if done.returncode == 3:
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stderr
    root = next((CACHE / "bert-other-stack").glob("*/root")).parent
    work = pathlib.Path(tempfile.mkdtemp())
    work.rmdir()
    made = {
        "here": Stack([], sys.executable, pathlib.Path("/"), work),
        "there": Stack([OTHER], ".venv/bin/python", root, work),
    }
    yield made
    for stack in made.values():
        shutil.rmtree(stack.on_disk)


@pytest.mark.parametrize(("maker", "user"), THERE_AND_BACK)
def test_an_export_answers_alike_on_the_other_stack(stacks, maker, user):
    maker, user = stacks[maker], stacks[user]
    model = maker.work / "checkpoint"
    shutil.copytree(data.minilm(), maker.on_disk / "checkpoint")
    maker.run("-m", "pipeline.cli", "export", "--model", model, "--output", maker.work / "models")
    ask = ("-m", "pipeline.cli", "predict", "--model", maker.work / "models" / "bert", "--json", "Paris, wörld!", "")
    expected = json.loads(maker.run(*ask).splitlines()[0])
    maker.hand_over(user)
    got = json.loads(user.run(*ask).splitlines()[0])
    np.testing.assert_allclose(got["embedding"], expected["embedding"], atol=2e-6)


@pytest.mark.parametrize(("maker", "user"), THERE_AND_BACK)
def test_a_training_that_was_killed_goes_on_on_the_other_stack(stacks, maker, user):
    maker, user = stacks[maker], stacks[user]
    (maker.on_disk / "text.txt").write_text(
        "\n\n".join(f"Word {n} of it.\nAnd so on, {n}.\nThe end." for n in range(400))
    )
    maker.run("-m", "pipeline.cli", "vocab", "--input", maker.work / "text.txt", "--size", 300,
              "--output", maker.work / "vocab.txt")  # fmt: skip
    maker.run("-m", "pipeline.cli", "examples", "--input", maker.work / "text.txt", "--vocab", maker.work / "vocab.txt",
              "--output", maker.work / "examples")  # fmt: skip
    train = ("-m", "pipeline.cli", "train", "--examples", maker.work / "examples", "--vocab", maker.work / "vocab.txt",
             "--config", "tiny", "--steps", 400, "--batch-size", 8, "--checkpoint-every", 10,
             "--output", maker.work / "run")  # fmt: skip
    process = maker.start(*train)
    deadline = time.monotonic() + 600
    while not list(maker.on_disk.glob("run/checkpoints/*.index")) and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (maker.on_disk / "run" / "model").exists()
    maker.hand_over(user)
    user.run(*train)
    steps = [json.loads(line)["step"] for line in (user.on_disk / "run" / "history.jsonl").read_text().splitlines()]
    assert steps == sorted(set(steps))
    assert steps[-1] == 400
    assert (user.on_disk / "run" / "model").exists()


@pytest.mark.parametrize(("maker", "user"), THERE_AND_BACK)
def test_a_home_goes_on_on_the_other_stack(stacks, maker, user):
    maker, user = stacks[maker], stacks[user]
    home = {"BERT_HOME": str(maker.work / "home"), "BERT_SETTINGS": "smoke"}
    maker.run("pipeline/local_runner.py", **home)
    maker.hand_over(user)
    user.run("pipeline/local_runner.py", **home)
    for stack, pushed in ((maker, 1), (user, 2)):
        assert len(list(stack.on_disk.glob("home/serving/bert/[0-9]*"))) == pushed
        record = json.loads((stack.on_disk / "home" / "reports" / "run.json").read_text())
        assert record["state"] == "done"
