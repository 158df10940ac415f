"""Many steps in one call, on whatever devices there are, and what they come to."""

import collections
import dataclasses
import time

import tensorflow as tf

from model.settings import TrainingSettings
from model.tasks.task import Task
from model.training.optimizer import learning_rate
from model.training.step import LossScale, TrainingStep
from preprocessing import batches


@dataclasses.dataclass(frozen=True)
class Done:
    """Steps that were run: their sums by name (the task's and `training_step.EXTRA`; skipped steps left out), seconds
    spent waiting for input, and the step whose loss was not finite, where that ended them."""

    sums: dict[str, float]
    steps: int
    waited: float
    bad_step: int | None = None
    bad_loss: float = 0.0
    bad_norm: float = 0.0


class Loop:
    """Runs steps of one task, encoder and optimizer under a strategy."""

    def __init__(self, settings: TrainingSettings, task: Task, strategy, encoder, optimizer, loss_scale: LossScale):
        self._settings, self._task, self._strategy, self._loss_scale = settings, task, strategy, loss_scale
        compiled = settings.compiled(bool(tf.config.list_logical_devices("GPU")))
        self._step = TrainingStep(settings, task, encoder, optimizer, strategy.num_replicas_in_sync, compiled)
        self._run = tf.function(self._steps, autograph=False)

    def iterator(self, examples: batches.Examples, batch_size: int, start: int, transform=None):
        """Over batches from number `start` on, spread over workers and devices."""
        settings, strategy = self._settings, self._strategy

        def of_worker(context):
            # Each worker takes its part of every global batch, and its devices take theirs in turn.
            workers = context.num_input_pipelines
            dataset = examples.batches(
                batch_size,
                seed=settings.seed,
                start=start,
                buckets=settings.buckets,
                transform=transform,
                shards=workers,
                shard=context.input_pipeline_id,
            )
            if context.num_replicas_in_sync == workers:
                return dataset
            return dataset.unbatch().batch(batch_size // context.num_replicas_in_sync, drop_remainder=True)

        if strategy is tf.distribute.get_strategy():  # the default one: nothing to distribute
            return iter(of_worker(tf.distribute.InputContext()))
        return iter(strategy.distribute_datasets_from_function(of_worker))

    def run(self, iterator, step: int, stop: int) -> Done:
        """Runs the steps from `step` to before `stop`. A step whose loss is not finite changes no weight and ends them;
        float16 goes on while its loss scale can be lowered."""
        reached, sums, last, waited, ended = self._run(
            iterator, tf.constant(step, tf.int64), tf.constant(stop, tf.int64)
        )
        sums, last = (dict(zip(self._step.names, vector.numpy().tolist(), strict=True)) for vector in (sums, last))
        reached = int(reached)
        done = Done(sums, reached - step, float(waited))
        if not ended:
            return done
        loss = loss_of(self._task, last)
        return dataclasses.replace(done, bad_step=reached - 1, bad_loss=loss, bad_norm=last["gradient_norm"])

    def _steps(self, iterator, step, stop):
        one_device = self._strategy.num_replicas_in_sync == 1
        width = len(self._step.names)

        def one(step, sums, last, waited, ended):
            before = tf.timestamp()
            with tf.control_dependencies([before]):
                batch = iterator.get_next()
            with tf.control_dependencies(tf.nest.flatten(batch, expand_composites=True)):
                waited += tf.timestamp() - before
            scale = self._loss_scale.value()
            if one_device:
                result = self._step(batch, step, scale)
            else:
                results = self._strategy.run(self._step, args=(batch, step, scale))
                result = self._strategy.experimental_local_results(results)[0]
            result = tf.ensure_shape(result, [width])
            good = result[-1] > 0
            ended = tf.logical_not(good) & (scale <= 1)
            if self._loss_scale.enabled:
                self._loss_scale.update(good)
            return step + 1, sums + tf.where(good, result, 0.0), result, waited, ended

        return tf.while_loop(
            lambda step, sums, last, waited, ended: (step < stop) & ~ended,
            one,
            (step, tf.zeros([width]), tf.ones([width]), tf.constant(0.0, tf.float64), tf.constant(False)),
        )


def loss_of(task: Task, sums: dict[str, float]) -> float:
    """The task's loss of whole batches, from their sums."""
    tensors = {name: tf.constant(value, tf.float64) for name, value in sums.items()}
    return float(task.loss(tensors, tensors))


class Meter:
    """Figures since the last report: means of losses, rates a second of pure training time."""

    def __init__(self, settings: TrainingSettings, task: Task):
        self._settings, self._task = settings, task
        self._reset()

    def _reset(self):
        self._seconds = self._waited = 0.0
        self._steps = 0
        self._sums: dict[str, float] = collections.defaultdict(float)
        self.pause()

    def add(self, done: Done) -> None:
        for name, value in done.sums.items():
            self._sums[name] += value
        self._steps += done.steps
        self._waited += done.waited
        self._seconds += time.monotonic() - self._started

    def pause(self) -> None:
        """The time since the last `add` is not training's."""
        self._started = time.monotonic()

    def figures(self, step: int) -> dict[str, float]:
        """To be told at `step`, and begins anew."""
        sums = dict(self._sums)
        good = max(sums["good"], 1.0)
        figures = {
            "loss": loss_of(self._task, sums),
            **self._task.figures(sums),
            "learning_rate": float(learning_rate(self._settings, tf.constant(step - 1))),
            "gradient_norm": sums["gradient_norm"] / good,
            "examples_per_second": sums["examples"] / self._seconds,
            "tokens_per_second": sums["tokens"] / self._seconds,
            "input_wait_share": self._waited / self._seconds,
        }
        if self._steps > sums["good"]:
            figures["skipped_steps"] = self._steps - sums["good"]
        self._reset()
        return figures
