"""All that a run needs to go on exactly where it stopped, stored as TensorFlow checkpoints.

The random state and the position in the data are functions of (seed, step), so the step stands for them.
"""

import dataclasses
import json
import os
import warnings
from typing import Any

import tensorflow as tf

from model import devices
from model.encoder import BertEncoder
from model.optimizer import Optimizer
from model.training_step import LossScale
from preprocessing.errors import InputError


class State:
    """Weights, moments and step, in `folder`: the newest `keep`, and in `folder/best` the best on held-out examples.

    Checkpoints are whole or absent: TensorFlow writes to a temporary name, and the list of checkpoints last.
    """

    def __init__(self, folder: str, encoder: BertEncoder, optimizer: Optimizer, keep: int):
        self.loss_scale = LossScale(optimizer.settings.precision)
        self.step = tf.Variable(0, dtype=tf.int64, trainable=False, name="step")
        self.best_loss = tf.Variable(float("inf"), dtype=tf.float32, trainable=False, name="best_loss")
        self._checkpoint = tf.train.Checkpoint(
            step=self.step,
            best_loss=self.best_loss,
            weights=[variable.value for variable in encoder.weights],
            slots=optimizer.slots,
            loss_scale=[self.loss_scale.factor, self.loss_scale.good_steps],
        )
        self._newest = tf.train.CheckpointManager(self._checkpoint, folder, max_to_keep=keep)
        self._best = tf.train.CheckpointManager(
            self._checkpoint, os.path.join(folder, "best"), max_to_keep=1, checkpoint_name="best"
        )

    def restore(self) -> int:
        """Goes back to the newest checkpoint that can be read and returns its step, 0 when there is none.

        Warns of each one that cannot be read; InputError when none of several can.
        """
        paths = list(reversed(self._newest.checkpoints))
        for path in paths:
            try:
                self._checkpoint.restore(path).assert_consumed()
                return int(self.step.numpy())
            except (tf.errors.OpError, AssertionError, ValueError, LookupError, RuntimeError) as error:
                reason = str(error).strip().splitlines()[0]
                warnings.warn(f"checkpoint {path} cannot be read, going back to the one before: {reason}", stacklevel=2)
        if paths:
            raise InputError(
                f"{os.path.dirname(paths[0])}: none of the {len(paths)} checkpoints can be read; "
                "remove the folder to train anew"
            )
        return 0

    def newest(self) -> str | None:
        """Path of the newest checkpoint."""
        return self._newest.latest_checkpoint

    def save(self, step: int) -> None:
        self.step.assign(step)
        if not devices.is_chief():
            return
        if not self._newest.latest_checkpoint or not self._newest.latest_checkpoint.endswith(f"-{step}"):
            self._newest.save(checkpoint_number=step)

    def save_if_best(self, step: int, loss: float) -> None:
        """Keeps these weights, too, when the held-out loss is the lowest so far."""
        if loss < float(self.best_loss.numpy()) and devices.is_chief():
            self.step.assign(step)
            self.best_loss.assign(loss)
            self._best.save(checkpoint_number=step)


def claim(output: str, **parts: Any) -> None:
    """Makes `output` the folder of the run that these settings describe, or goes on with it.

    Args:
        parts: settings (dataclasses) and other JSON values that decide the run's result.

    Raises:
        InputError: the folder holds a run with others; or it cannot be written to.
    """
    described = json.loads(
        json.dumps(
            {name: dataclasses.asdict(v) if hasattr(v, "__dataclass_fields__") else v for name, v in parts.items()}
        )
    )
    path = os.path.join(output, "run.json")
    try:
        os.makedirs(output, exist_ok=True)
        if os.path.exists(path):
            with open(path) as stream:
                found = json.load(stream)
        else:
            found = described
            with open(path + ".tmp", "w") as stream:
                json.dump(described, stream, indent=1)
            os.replace(path + ".tmp", path)
    except OSError as error:
        raise InputError(f"{output}: the output folder must be writable. Received: {error}") from error
    except ValueError as error:
        raise InputError(f"{path}: not a description of a run ({error}); choose another output folder") from error
    changes = _changes(found, described)
    if changes:
        raise InputError(
            f"{output}: holds a run with other settings; go on with the same ones, or choose another output folder. "
            f"Received: {'; '.join(changes)}"
        )


def _changes(old, new, name: str = "") -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            change
            for key in sorted(old.keys() | new.keys())
            for change in _changes(old.get(key), new.get(key), f"{name}.{key}".lstrip("."))
        ]
    return [] if old == new else [f"{name} was {old!r}, now {new!r}"]
