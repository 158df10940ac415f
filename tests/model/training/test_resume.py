"""Killed at any moment and run again, a run ends with the weights of one that was not interrupted, bit for bit."""

import dataclasses
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf

from model import checkpoints, training
from model.settings import TrainingSettings
from model.tasks.pretraining import Pretraining
from preprocessing.errors import InputError
from tests.data import ROOT
from tests.model import small_examples

# Dropout stays on: its random numbers must resume, too.
SETTINGS = TrainingSettings(
    steps=60, batch_size=8, learning_rate=1e-2, steps_per_call=4, report_every=10, evaluate_every=20, checkpoint_every=6
)

RUN = """
import sys, time
from model import training
from model.tasks.pretraining import Pretraining
from tests.model import small_examples
from tests.model.training import test_resume
def report(step, total, figures):
    print(step, flush=True)
    time.sleep(float(sys.argv[3]))
training.train(small_examples.encoder_settings(), test_resume.SETTINGS, task=Pretraining(),
               train_files=[sys.argv[1]], eval_files=[sys.argv[1]], output=sys.argv[2], report=report)
"""


def start(examples, output, pause):
    """The run as a process of its own that tells each tenth step."""
    return subprocess.Popen(
        [sys.executable, "-c", RUN, examples, str(output), str(pause)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def train(examples, output, settings=SETTINGS, **options):
    return training.train(
        small_examples.encoder_settings(),
        settings,
        task=Pretraining(),
        train_files=[examples],
        eval_files=[examples],
        output=str(output),
        **options,
    )


def weights(result):
    return [weight.numpy() for weight in result.encoder.weights]


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    path = tmp_path_factory.mktemp("examples") / "a.tfrecord"
    return small_examples.write(path, small_examples.examples(100))


@pytest.fixture(scope="module")
def uninterrupted(examples, tmp_path_factory):
    output = tmp_path_factory.mktemp("whole")
    return output, train(examples, output)


def assert_same(first, second):
    for one, other in zip(weights(first), weights(second), strict=True):
        np.testing.assert_array_equal(one, other)


def test_killed_and_run_again(examples, uninterrupted, tmp_path):
    """The first run in a process that is killed after 20 steps; the second here."""
    process = start(examples, tmp_path, pause=1.0)
    for line in process.stdout:
        if int(line) >= 20:
            break
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()
    steps = []
    result = train(examples, tmp_path, report=lambda step, *_: steps.append(step))
    assert steps[0] > 10, "it began anew"
    assert_same(result, uninterrupted[1])
    assert result.metrics == uninterrupted[1].metrics
    assert (tmp_path / "history.jsonl").read_text().count('"held_out"') == 3


@pytest.mark.long
@pytest.mark.parametrize("seed", [0, 1])
def test_killed_at_random_moments(seed, examples, uninterrupted, tmp_path):
    """Each kill falls into the middle: some time after a step was told, before two pauses more are over. In that time
    two steps more are told at most, so the third kill comes after the 50th of 60 at the latest."""
    random, pause = np.random.default_rng(seed), 0.4
    for least in (10, 20, 30):
        process = start(examples, tmp_path, pause)
        assert next(step for step in map(int, process.stdout) if step >= least) <= 50
        time.sleep(random.uniform(0, 1.9 * pause))
        process.kill()
        assert process.wait() == -signal.SIGKILL, "it had ended before"
        process.stdout.close()
    assert_same(train(examples, tmp_path), uninterrupted[1])


def copy_without_last_steps(source, target):
    """A run's folder as if killed before it ended: without its result."""
    (target / "checkpoints").mkdir()
    for path in [source / "run.json", source / "history.jsonl", *(source / "checkpoints").glob("c*")]:
        (target / path.relative_to(source)).write_bytes(path.read_bytes())


@pytest.mark.long
def test_it_goes_on_without_what_it_began_with(examples, uninterrupted, tmp_path):
    shutil.copytree(uninterrupted[0] / "model", tmp_path / "init")
    whole = train(examples, tmp_path / "whole", init=str(tmp_path / "init"))
    (tmp_path / "run").mkdir()
    copy_without_last_steps(tmp_path / "whole", tmp_path / "run")
    for path in (tmp_path / "run" / "checkpoints").glob("ckpt-60*"):
        path.unlink()
    (tmp_path / "run" / "checkpoints" / "checkpoint").unlink()
    shutil.rmtree(tmp_path / "init")
    assert_same(train(examples, tmp_path / "run", init=str(tmp_path / "init")), whole)


@pytest.mark.long
def test_adapters_go_on(examples, uninterrupted, tmp_path):
    """They stand in the run's checkpoints as they are, in its models as part of the kernels."""
    options = {"init": str(uninterrupted[0] / "model"), "settings": dataclasses.replace(SETTINGS, tune="lora")}
    whole = train(examples, tmp_path / "whole", **options)
    (tmp_path / "run").mkdir()
    copy_without_last_steps(tmp_path / "whole", tmp_path / "run")
    for path in (tmp_path / "run" / "checkpoints").glob("ckpt-60*"):
        path.unlink()
    (tmp_path / "run" / "checkpoints" / "checkpoint").unlink()
    steps = []
    again = train(examples, tmp_path / "run", report=lambda step, *_: steps.append(step), **options)
    assert steps == [60]
    assert_same(again, whole)
    for one, other in zip(checkpoints.load(tmp_path / "run" / "model").weights, weights(whole), strict=True):
        np.testing.assert_array_equal(one.numpy(), other, err_msg=one.path)


def test_what_a_killed_run_left_half_written_is_removed(examples, uninterrupted, tmp_path):
    copy_without_last_steps(uninterrupted[0], tmp_path)
    torn = tmp_path / "checkpoints" / "ckpt-66_temp"
    torn.mkdir()
    (torn / "part-00000-of-00001.data-00000-of-00001").write_bytes(b"half")
    train(examples, tmp_path)
    assert not torn.exists()
    assert not (tmp_path / ".lock").exists()


@pytest.mark.long
def test_two_equal_runs_in_one_folder(examples, tmp_path):
    first = start(examples, tmp_path, pause=1.0)
    assert first.stdout.readline()
    written = (tmp_path / "history.jsonl").stat().st_mtime_ns
    with pytest.raises(InputError, match=f"{tmp_path}: one run at a time may write there"):
        train(examples, tmp_path)
    first.kill()
    first.communicate()
    assert (tmp_path / "history.jsonl").stat().st_mtime_ns >= written
    train(examples, tmp_path)


@pytest.mark.parametrize("ending", [pytest.param("index", marks=pytest.mark.long), "data-00000-of-00001"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(examples, uninterrupted, tmp_path, ending):
    copy_without_last_steps(uninterrupted[0], tmp_path)
    damaged = tmp_path / "checkpoints" / f"ckpt-60.{ending}"
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 64] = bytes(64)
    damaged.write_bytes(bytes(content[: len(content) * 3 // 4]))
    with pytest.warns(UserWarning, match=r"ckpt-60 cannot be read, going back to the one before"):
        result = train(examples, tmp_path)
    assert_same(result, uninterrupted[1])
    assert (tmp_path / "checkpoints" / damaged.name).read_bytes() != bytes(content[: len(content) * 3 // 4])
    train(examples, tmp_path)  # without a warning: it was written anew


@pytest.mark.parametrize("content", [None, b""])
def test_a_list_of_checkpoints_that_is_damaged_is_made_anew(examples, uninterrupted, tmp_path, content):
    copy_without_last_steps(uninterrupted[0], tmp_path)
    path = tmp_path / "checkpoints" / "checkpoint"
    path.unlink() if content is None else path.write_bytes(content)
    steps = []
    train(examples, tmp_path, report=lambda step, *_: steps.append(step))
    assert not steps, "it trained anew"
    assert tf.train.latest_checkpoint(str(path.parent)) == str(path.parent / "ckpt-60")


def test_no_readable_checkpoint(examples, uninterrupted, tmp_path):
    copy_without_last_steps(uninterrupted[0], tmp_path)
    for path in (tmp_path / "checkpoints").glob("*.index"):
        path.write_bytes(b"")
    with (
        pytest.warns(UserWarning, match="cannot be read"),
        pytest.raises(InputError, match="none of the 2 checkpoints can be read; remove the folder"),
    ):
        train(examples, tmp_path)
