"""What a GPU must give: the CPU's curve, the same run after a kill, one device's weights on two.

Skipped where there is none. Every run is a process of its own, all at once. Differences are printed: `pytest -s`.
"""

import json
import os
import signal
import subprocess
import sys
from concurrent import futures

import numpy as np
import pytest
import tensorflow as tf

from tests.data import ROOT
from tests.model import small_examples

pytestmark = pytest.mark.skipif(not tf.config.list_physical_devices("GPU"), reason="there is no GPU")

RUN = """
import json, sys, time
import numpy as np
import tensorflow as tf
from model import settings
from model.tasks.pretraining import Pretraining
from model.training import train
from tests.model import small_examples

examples, output, options, pause = sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), float(sys.argv[4])
tf.config.experimental.enable_tensor_float_32_execution(options.pop("tf32", False))
if options.pop("two_devices", False):
    parts = [tf.config.LogicalDeviceConfiguration(memory_limit=2048)] * 2
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("GPU")[0], parts)
rate = options.pop("dropout", 0.0)
encoder = settings.tiny(vocab_size=small_examples.VOCAB, max_positions=16, dropout=rate, attention_dropout=rate)
losses = []
def report(step, _, figures):
    losses.append(figures["loss"])
    print(step, flush=True)
    time.sleep(pause if step > 60 else 0.0)
values = {"steps": 200, "batch_size": 32, "learning_rate": 3e-4, "bias_correction": True, "checkpoint_every": 40}
result = train(encoder, settings.TrainingSettings(**(values | options)), task=Pretraining(), train_files=[examples],
               output=output, report=report)
device = result.encoder.weights[0].value.device
np.savez(f"{output}/weights.npz", *[weight.numpy() for weight in result.encoder.weights])
with open(f"{output}/curve.json", "w") as stream:
    json.dump({"losses": losses, "device": device, "devices": len(tf.config.list_logical_devices("GPU"))}, stream)
"""
SGD = {"optimizer": "sgd", "learning_rate": 0.05, "steps": 20}
RUNS = {
    "cpu": {"gpus": 0},
    "cpu, dropout": {"gpus": 0, "dropout": 0.1},
    "gpu": {},
    "gpu again": {},
    "gpu, killed": {},
    "gpu, dropout": {"dropout": 0.1},
    "gpu, plain": {"xla": False},
    "gpu, plain, killed": {"xla": False},
    "gpu, TF32": {"tf32": True},
    "gpu, bfloat16": {"precision": "bfloat16"},
    "one device": SGD,
    "two devices": SGD | {"two_devices": True},
    "two devices, plain": SGD | {"two_devices": True, "xla": False},
}


class Run:
    def __init__(self, name, examples, folder, options):
        self.name, self._log = name, folder / f"{name}.log"
        self.output = folder / name
        self._command = [sys.executable, "-c", RUN, str(examples), str(self.output), json.dumps(options)]
        self.start(pause=1.0 if name.endswith("killed") else 0.0)

    def start(self, pause=0.0):
        environment = os.environ | {"TF_FORCE_GPU_ALLOW_GROWTH": "true"}
        with open(self._log, "ab") as log:
            self._process = subprocess.Popen(
                [*self._command, str(pause)],
                cwd=ROOT,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def kill_after(self, step):
        for line in self._process.stdout:
            if int(line) >= step:
                break
        self._process.send_signal(signal.SIGKILL)
        self._process.communicate()
        return self

    def finish(self):
        self._process.communicate()
        if self._process.returncode:
            return RuntimeError(f"{self.name}: {self._log.read_text()[-3000:]}")
        weights = np.load(self.output / "weights.npz")
        return json.loads((self.output / "curve.json").read_text()), [weights[name] for name in weights.files]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """(curve, weights) by name, or what went wrong."""
    folder = tmp_path_factory.mktemp("runs")
    examples = small_examples.write(folder / "a.tfrecord", small_examples.examples(400))
    running = {name: Run(name, examples, folder, options) for name, options in RUNS.items()}
    killed = [run for name, run in running.items() if name.endswith("killed")]
    with futures.ThreadPoolExecutor(len(killed)) as pool:  # none may come to its end while another is waited for
        for run in pool.map(Run.kill_after, killed, [80] * len(killed)):
            run.start()
    return {name: run.finish() for name, run in running.items()}


def found(runs, *names):
    for name in names:
        if isinstance(runs[name], RuntimeError):
            raise runs[name]
    return [runs[name] for name in names]


def distance(one, other):
    """The largest difference of any weight."""
    return max(np.abs(a - b).max() for a, b in zip(one, other, strict=True))


def farthest(one, other):
    """The largest relative difference of any loss."""
    return max(abs(a - b) / a for a, b in zip(one["losses"], other["losses"], strict=True))


@pytest.mark.parametrize(
    ("reference", "name", "tolerance"),
    [
        ("cpu", "gpu", 1e-5),
        ("cpu", "gpu, plain", 1e-5),
        ("cpu, dropout", "gpu, dropout", 1e-5),  # the same elements are dropped
        ("cpu", "gpu, TF32", 5e-3),
        ("cpu", "gpu, bfloat16", 5e-3),
    ],
)
def test_the_curve_is_the_cpus(runs, reference, name, tolerance):
    (cpu, cpu_weights), (gpu, gpu_weights) = found(runs, reference, name)
    print(f"{name}: losses {farthest(cpu, gpu):.2g}, weights {distance(cpu_weights, gpu_weights):.2g}")
    print(f"  {cpu['losses'][::3]}\n  {gpu['losses'][::3]}")
    assert "GPU" in gpu["device"]
    assert "GPU" not in cpu["device"]
    assert farthest(cpu, gpu) < tolerance


@pytest.mark.parametrize("name", ["gpu", "gpu, plain"])
def test_killed_and_run_again(runs, name):
    """Additions to one row of the word embedding come in another order each time, so runs are not equal bit for bit."""
    (whole, weights), (again, again_weights) = found(runs, name, f"{name}, killed")
    print(f"{name}: losses {whole['losses'][-1]} {again['losses'][-1]}, weights {distance(weights, again_weights):.2g}")
    assert len(again["losses"]) < len(whole["losses"])
    assert abs(whole["losses"][-1] - again["losses"][-1]) < 1e-5 * whole["losses"][-1]


def test_the_same_run_again(runs):
    (one, weights), (other, other_weights) = found(runs, "gpu", "gpu again")
    print(f"again: losses {farthest(one, other):.2g}, weights {distance(weights, other_weights):.2g}")
    assert farthest(one, other) < 1e-5


@pytest.mark.parametrize("name", ["two devices", "two devices, plain"])
def test_two_devices_give_the_weights_of_one(runs, name):
    (_, weights), (two, two_weights) = found(runs, "one device", name)
    print(f"{name}: {distance(weights, two_weights):.2g}")
    assert two["devices"] == 2
    assert distance(weights, two_weights) < 1e-5
