"""All that a run needs to go on exactly where it stopped, stored as TensorFlow checkpoints.

The random state and the position in the data are functions of (seed, step), so the step stands for them.
"""

import dataclasses
import functools
import glob
import json
import os
import pathlib
import re
import warnings
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import tensorflow as tf

from model.encoder import BertEncoder
from model.training import devices
from model.training.optimizer import Optimizer
from model.training.step import LossScale
from preprocessing import storage
from preprocessing.errors import InputError, require

_UNWRITABLE = "{}: the output folder must be writable. Received: {}"


class State:
    """Weights, moments and step, in `folder`: the newest `keep`.

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
        _mend_list(folder)
        self._holder, plain = storage.without_glob(folder)
        self._newest = tf.train.CheckpointManager(self._checkpoint, plain, max_to_keep=keep)
        self._folder = folder
        self._stored: int | None = None  # the step of the newest checkpoint that is whole

    def restore(self) -> int:
        """Goes back to the newest checkpoint that can be read and returns its step, 0 when there is none.

        Warns of each one that cannot be read; InputError when none of several can.
        """
        paths = list(reversed(self._newest.checkpoints))
        for path in paths:
            try:
                self._checkpoint.restore(path).assert_consumed()
                self._stored = int(self.step.numpy())
                return self._stored
            except (tf.errors.OpError, AssertionError, ValueError, LookupError, RuntimeError) as error:
                reason = str(error).strip().splitlines()[0]
                path = os.path.join(self._folder, os.path.basename(path))
                warnings.warn(f"checkpoint {path} cannot be read, going back to the one before: {reason}", stacklevel=2)
        if paths:
            raise InputError(
                f"{self._folder}: none of the {len(paths)} checkpoints can be read; remove the folder to train anew"
            )
        return 0

    def save(self, step: int) -> None:
        self.step.assign(step)
        if devices.is_chief() and step != self._stored:
            self._newest.save(checkpoint_number=step)
            self._stored = step

    def is_best(self, figure: float, lower_is_better: bool) -> bool:
        """Whether the held-out figure is the best so far, which it then becomes; nan never is."""
        loss = figure if lower_is_better else -figure
        best = loss < float(self.best_loss.numpy())
        if best:
            self.best_loss.assign(loss)
        return best


def _mend_list(folder: str) -> None:
    """Writes the list of checkpoints anew from the files where it is missing or damaged."""
    path = pathlib.Path(folder, "checkpoint")
    try:
        if tf.train.get_checkpoint_state(folder):
            return
    except ValueError:  # an empty list; one that is no text
        path.unlink(missing_ok=True)
    matches = [re.fullmatch(r"ckpt-(\d+)\.index", file.name) for file in path.parent.glob("ckpt-*.index")]
    names = [f"ckpt-{step}" for step in sorted(int(match[1]) for match in matches if match)]
    if names:
        # The manager leaves out what has no time above 0.
        lines = [f'all_model_checkpoint_paths: "{name}" all_model_checkpoint_timestamps: 1\n' for name in names]
        temporary = path.with_name(f"checkpoint.{os.getpid()}.tmp")
        temporary.write_text(f'model_checkpoint_path: "{names[-1]}"\n{"".join(lines)}')
        temporary.replace(path)


P = ParamSpec("P")
Result = TypeVar("Result")


def one_at_a_time(run: Callable[P, Result]) -> Callable[P, Result]:
    """Lets a run, a function with the keyword `output`, have that folder for itself while it lasts. Raises InputError
    where another process is at work there, and where the folder cannot be written to."""

    @functools.wraps(run)
    def alone(*args: P.args, **kwargs: P.kwargs) -> Result:
        output = str(kwargs["output"])
        if not devices.is_chief():
            return run(*args, **kwargs)
        try:
            os.makedirs(output, exist_ok=True)
        except OSError as error:
            raise InputError(_UNWRITABLE.format(output, error)) from error
        torn = os.path.join(glob.escape(output), "checkpoints", "*_temp")  # of a process killed as it wrote one
        with storage.alone(os.path.join(output, ".lock"), output, torn):
            return run(*args, **kwargs)

    return alone


def claim(output: str, **parts: Any) -> None:
    """Makes `output` the folder of the run that these settings describe, or goes on with it.

    Args:
        parts: settings (dataclasses) and other JSON values that decide the run's result. Those that the description of
            an older run lacks, at any depth, are not compared, and stand in it from now on.

    Raises:
        InputError: the folder holds a run with others; or it cannot be written to.
    """
    described = json.loads(
        json.dumps(
            {name: dataclasses.asdict(v) if hasattr(v, "__dataclass_fields__") else v for name, v in parts.items()}
        )
    )
    path = os.path.join(output, "run.json")
    found = None
    try:
        for name in ("checkpoints", "logs"):
            os.makedirs(os.path.join(output, name), exist_ok=True)
        if os.path.exists(path):
            found = json.loads(pathlib.Path(path).read_text())
            require(isinstance(found, dict), "it must be a JSON object", found)
    except OSError as error:
        raise InputError(_UNWRITABLE.format(output, error)) from error
    except ValueError as error:
        raise InputError(f"{path}: not a description of a run ({error}); choose another output folder") from error
    changes = _changes(found or {}, described)
    if changes:
        raise InputError(
            f"{output}: holds a run with other settings; go on with the same ones, or choose another output folder. "
            f"Received: {'; '.join(changes)}"
        )
    if found != described:
        try:
            with open(path + ".tmp", "w") as stream:
                json.dump(described, stream, indent=1)
            os.replace(path + ".tmp", path)
        except OSError as error:
            raise InputError(_UNWRITABLE.format(output, error)) from error


def _changes(old, new, name: str = "") -> list[str]:
    """What of an older description is otherwise now; it does not speak of what has been added since."""
    if isinstance(old, dict) and isinstance(new, dict):
        gone = [
            f"{name}.{key} was {old[key]!r}, which no run has any more".lstrip(".")
            for key in sorted(old.keys() - new.keys())
        ]
        both = sorted(old.keys() & new.keys())
        return gone + [change for key in both for change in _changes(old[key], new[key], f"{name}.{key}".lstrip("."))]
    phases = isinstance(old, list) and any(isinstance(part, dict) for part in old)
    if phases and isinstance(new, list) and len(old) == len(new):
        pairs = enumerate(zip(old, new, strict=True))
        return [change for place, pair in pairs for change in _changes(*pair, f"{name}[{place}]")]
    return [] if old == new else [f"{name} was {old!r}, now {new!r}"]
