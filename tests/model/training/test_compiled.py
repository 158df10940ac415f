"""Training compiled by XLA, as it is on GPUs: the same numbers as without, and the same on several devices."""

import subprocess
import sys

import numpy as np
import pytest

from model import checkpoints
from model.settings import TrainingSettings
from model.tasks.pretraining import Pretraining
from model.training import train
from preprocessing.errors import InputError
from tests.data import ROOT
from tests.model import small_examples

TWO_DEVICES = """
import sys
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from tests.model.training import test_compiled
test_compiled.leave_weights(*sys.argv[1:], xla=True)
"""


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    return small_examples.write(tmp_path_factory.mktemp("examples") / "a.tfrecord", small_examples.examples(100))


def weights(examples, folder, encoder=None, **values):
    settings = {"steps": 12, "batch_size": 16, "learning_rate": 3e-3, "warmup_steps": 0, "gpus": 0}
    result = train(
        small_examples.encoder_settings(**(encoder or {})),
        TrainingSettings(**(settings | values)),
        task=Pretraining(),
        train_files=[examples],
        output=str(folder),
    )
    return [weight.numpy() for weight in result.encoder.weights]


def leave_weights(examples, folder, **values):
    """Of a run without dropout, whose elements differ on several devices."""
    exact = {"dropout": 0.0, "attention_dropout": 0.0}
    values |= {"optimizer": "sgd", "learning_rate": 0.1, "initial_weights": "informed"}
    np.savez(f"{folder}.npz", *weights(examples, folder, exact, **values))


@pytest.mark.long
def test_compiled_or_not_the_weights_are_the_same(examples, tmp_path):
    """With dropout, too: the same elements are dropped."""
    plain, compiled = (weights(examples, tmp_path / str(xla), xla=xla) for xla in (False, True))
    for one, other in zip(plain, compiled, strict=True):
        np.testing.assert_allclose(other, one, atol=1e-5, rtol=0)


@pytest.mark.long
def test_two_devices_compiled_give_the_weights_of_one(examples, tmp_path):
    command = [sys.executable, "-c", TWO_DEVICES, examples, str(tmp_path / "two")]
    two = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE)
    leave_weights(examples, tmp_path / "one")
    _, errors = two.communicate()
    assert two.returncode == 0, errors.decode()[-2000:]
    one, both = (np.load(tmp_path / f"{name}.npz") for name in ("one", "two"))
    for array in one.files:
        np.testing.assert_allclose(both[array], one[array], atol=1e-6, rtol=0, err_msg=array)


def test_a_compiled_loss_that_is_not_finite_ends_the_run(examples, tmp_path):
    with pytest.raises(InputError, match=r"not finite at step \d+"):
        weights(examples, tmp_path, optimizer="sgd", learning_rate=1e30, clip_norm=0.0, xla=True)
    for weight in checkpoints.load(tmp_path / "before_failure").weights:
        assert np.isfinite(weight.numpy()).all(), weight.path
