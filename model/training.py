"""Pretraining: examples in, a trained encoder out. One function, `train`, that can be called again after a crash.

The loop is our own and not Keras's `fit`, which with several devices cannot run several steps a call, accumulate
gradients, or weigh the masked tokens of the whole batch alike.
"""

import dataclasses
import os
import time
from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf

from model import checkpoints, metrics
from model.encoder import BertEncoder
from model.evaluation import Evaluation
from model.optimizer import Optimizer, learning_rate
from model.settings import EncoderSettings
from model.training_records import Records, read_vocabulary
from model.training_settings import TrainingSettings
from model.training_state import State, claim
from model.training_step import EXTRA, TrainingStep
from preprocessing import batches
from preprocessing.errors import InputError

Report = Callable[[int, int, dict[str, float]], None]


@dataclasses.dataclass(frozen=True)
class TrainingResult:
    """The trained encoder; `metrics` on the held-out examples, with the baselines."""

    encoder: BertEncoder
    metrics: dict[str, float]


def train(
    encoder_settings: EncoderSettings,
    training_settings: TrainingSettings,
    *,
    train_files: Sequence[str],
    eval_files: Sequence[str] = (),
    output: str,
    vocab_path: str | None = None,
    init: str | None = None,
    report: Report | None = None,
) -> TrainingResult:
    """Trains on example files, or goes on with the run in `output` that was interrupted.

    A resumed run ends with the same weights, bit for bit on the same CPU machine, as one that was not interrupted.

    Args:
        eval_files: held-out examples; without them there are no held-out figures.
        output: folder; gets `model/` (the result), `checkpoints/`, `logs/` (TensorBoard), `history.jsonl`,
            `curves.png`, `run.json`.
        vocab_path: stored with the model; makes filled-mask samples readable.
        init: a checkpoint to begin with, in any format that `checkpoints.load` takes.
        report: called with (step, total steps, figures) as training goes.

    Raises:
        InputError: examples, settings, checkpoint or devices that do not fit together, before training starts; a loss
            that is not finite, naming step and batch.
    """
    settings = training_settings
    strategy = make_strategy(settings)
    if settings.batch_size % (strategy.num_replicas_in_sync * settings.accumulate):
        raise InputError(
            f"batch_size must be a multiple of devices ({strategy.num_replicas_in_sync}) times accumulate "
            f"({settings.accumulate}). Received: {settings.batch_size}"
        )
    tokens = read_vocabulary(vocab_path, encoder_settings.vocab_size) if vocab_path else None
    examples = batches.open_examples(train_files, vocab_size=encoder_settings.vocab_size)
    held_out = None
    if eval_files:
        held_out = batches.open_examples(
            eval_files,
            vocab_size=encoder_settings.vocab_size,
            max_seq_length=examples.max_seq_length,
            max_predictions=examples.max_predictions,
        )
    if examples.max_seq_length > encoder_settings.max_positions:
        raise InputError(
            f"{train_files[0]}: the examples' length must not exceed the model's max_positions "
            f"({encoder_settings.max_positions}). Received: {examples.max_seq_length}"
        )
    claim(
        output,
        encoder=encoder_settings,
        training=settings,
        init=init,
        train_files=[[os.path.basename(file), os.path.getsize(file)] for file in train_files],
    )

    keras.utils.set_random_seed(settings.seed)
    with strategy.scope():
        encoder = BertEncoder(encoder_settings, dtype=settings.dtype_policy)
        optimizer = Optimizer(settings, encoder.trainable_variables, encoder_settings.num_layers)
    if init:
        start_from(encoder, init)
    state = State(os.path.join(output, "checkpoints"), encoder, optimizer, settings.keep_checkpoints)
    step = state.restore()

    run_steps = _compiled_steps(settings, strategy, encoder, optimizer)
    iterator = iter(
        strategy.distribute_datasets_from_function(lambda context: _replica_batches(examples, settings, step, context))
    )
    evaluate_every = settings.evaluate_every or max(1, settings.steps // 10)
    checkpoint_every = settings.checkpoint_every or max(1, settings.steps // 10)
    evaluation = Evaluation(encoder, held_out, settings.batch_size) if held_out else None
    with Records(output, step) as records:
        meter = _Meter(settings, step)
        while step < settings.steps:
            # To the next multiple of whatever comes first.
            bounds = (settings.steps_per_call, settings.report_every, evaluate_every, checkpoint_every)
            stop = min(settings.steps, *(step + every - step % every for every in bounds))
            sums, waited = run_steps(iterator, tf.constant(step, tf.int64), tf.constant(stop, tf.int64))
            sums = sums.numpy()
            step, bad = stop, stop - step - int(sums[-1])
            if bad:
                raise InputError(f"the loss is not finite near step {step}")
            meter.add(sums, float(waited))
            last = step == settings.steps
            if step % settings.report_every == 0 or last:
                figures = meter.figures(step, encoder_settings)
                records.write(step, "training", figures)
                if report:
                    report(step, settings.steps, figures)
            if evaluation and step % evaluate_every == 0 and not last:
                found = evaluation(settings.evaluation_examples)
                records.write(step, "held_out", found)
                state.save_if_best(step, found["masked_lm_loss"])
                if tokens:
                    records.write_text(step, "filled_masks", evaluation.samples(tokens))
                meter.pause()
            if step % checkpoint_every == 0 or last:
                state.save(step)
                meter.pause()
        found = {}
        if evaluation:
            found = evaluation()
            records.write(step, "held_out", found)
            state.save_if_best(step, found["masked_lm_loss"])
        checkpoints.save(encoder, os.path.join(output, "model"), vocab=vocab_path)
        records.plot(os.path.join(output, "curves.png"))
    return TrainingResult(encoder, found)


def make_strategy(settings: TrainingSettings) -> tf.distribute.Strategy:
    """All GPUs of this machine (or as many as asked for) as mirrors of each other; else the one device there is."""
    found = tf.config.list_logical_devices("GPU")
    if settings.gpus is not None and settings.gpus > len(found):
        raise InputError(f"gpus must not exceed those of this machine ({len(found)}). Received: {settings.gpus}")
    devices = [device.name for device in found[: settings.gpus]]
    if len(devices) > 1:
        return tf.distribute.MirroredStrategy(devices)
    return tf.distribute.OneDeviceStrategy(devices[0] if devices else "/cpu:0")


def start_from(encoder: BertEncoder, path: str) -> None:
    """Takes over the weights of a checkpoint; heads that it lacks keep their fresh ones."""
    source = checkpoints.load(path)
    weights = {weight.path: weight for weight in source.weights}
    for weight in encoder.weights:
        if weight.path in weights:
            found = weights[weight.path]
            if tuple(found.shape) != tuple(weight.shape):
                raise InputError(
                    f"{path}: {weight.path} must have shape {tuple(weight.shape)}, as the settings say. "
                    f"Received: {tuple(found.shape)}"
                )
            weight.assign(found.numpy())


def _replica_batches(examples, settings, step, context) -> tf.data.Dataset:
    """This worker's part of every global batch, one batch a replica: its devices take them in turn."""
    workers = context.num_input_pipelines
    dataset = examples.batches(
        settings.batch_size, seed=settings.seed, start=step, shards=workers, shard=context.input_pipeline_id
    )
    replicas = context.num_replicas_in_sync // workers
    if replicas > 1:
        size = settings.batch_size // context.num_replicas_in_sync
        dataset = dataset.unbatch().batch(size, drop_remainder=True)
    return dataset


def _compiled_steps(settings, strategy, encoder, optimizer):
    """`(iterator, first step, step after the last) -> (summed results of the steps, seconds spent waiting for input)`:
    several steps in one call, so that Python and the transfer of results cost nothing."""
    replicas = strategy.num_replicas_in_sync
    one_step = TrainingStep(settings, encoder, optimizer, replicas)
    if settings.xla:
        one_step = tf.function(one_step, jit_compile=True)

    @tf.function
    def run_steps(iterator, first, stop):
        sums, waited = tf.zeros([len(metrics.SUMS) + len(EXTRA)]), tf.constant(0.0, tf.float64)
        for step in tf.range(first, stop):
            before = tf.timestamp()
            with tf.control_dependencies([before]):
                batch = next(iterator)
            with tf.control_dependencies(tf.nest.flatten(batch) if replicas == 1 else []):
                waited += tf.timestamp() - before
            if replicas == 1:
                sums += one_step(batch, step)
            else:
                results = strategy.run(one_step, args=(batch, step))
                sums += strategy.experimental_local_results(results)[0]
        return sums, waited

    return run_steps


class _Meter:
    """Figures since the last report: means of losses, rates a second of pure training time."""

    def __init__(self, settings: TrainingSettings, step: int):
        self._settings = settings
        self._reset(step)

    def _reset(self, step):
        self._step, self._seconds, self._waited = step, 0.0, 0.0
        self._sums = np.zeros(len(metrics.SUMS) + len(EXTRA))
        self._started = time.monotonic()

    def add(self, sums, waited):
        self._sums += sums
        self._waited += waited
        now = time.monotonic()
        self._seconds += now - self._started
        self._started = now

    def pause(self):
        """Leaves out the time since the last `add`."""
        self._started = time.monotonic()

    def figures(self, step: int, encoder_settings) -> dict[str, float]:
        settings, steps = self._settings, step - self._step
        sums = dict(zip((*metrics.SUMS, *EXTRA), self._sums.tolist(), strict=True))
        told = metrics.figures(self._sums[: len(metrics.SUMS)], settings.next_sentence)
        loss = told["masked_lm_loss"] + told.get("next_sentence_loss", 0.0)
        result = {
            "loss": loss,
            **told,
            "learning_rate": float(learning_rate(settings, tf.constant(step - 1))),
            "gradient_norm": sums["gradient_norm"] / steps,
            "examples_per_second": sums["examples"] / self._seconds,
            "tokens_per_second": sums["tokens"] / self._seconds,
            "input_wait_share": self._waited / self._seconds,
        }
        self._reset(step)
        return result
