"""Pretraining: examples in, a trained encoder out. One function, `train`, that can be called again after a crash.

The loop is our own and not Keras's `fit`, which with several devices cannot run several steps a call, accumulate
gradients, or weigh the masked tokens of the whole batch alike.
"""

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf

from model import checkpoints, devices
from model.encoder import BertEncoder
from model.evaluation import Evaluation
from model.optimizer import Optimizer
from model.settings import EncoderSettings
from model.training_loop import Loop, Meter
from model.training_records import Records, read_vocabulary
from model.training_settings import Phase, TrainingSettings
from model.training_state import State, claim
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
    lower_case: bool | None = None,
    init: str | None = None,
    transform: batches.Transform | None = None,
    report: Report | None = None,
) -> TrainingResult:
    """Trains on example files, or goes on with the run in `output` that was interrupted.

    A resumed run ends with the same weights, bit for bit on the same CPU machine, as one that was not interrupted.

    Args:
        train_files: with phases, each phase takes those of its length.
        eval_files: held-out examples; without them there are no held-out figures.
        output: folder; gets `model/` (the result), `checkpoints/`, `logs/` (TensorBoard), `history.jsonl`,
            `curves.png`, `run.json`.
        vocab_path, lower_case: stored with the model; the vocabulary makes samples of filled masks readable.
        init: a checkpoint to begin with, in any format that `checkpoints.load` takes.
        transform: see `batches.Transform`; for masking at training time.
        report: called with (step, total steps, figures) as training goes.

    Raises:
        InputError: examples, settings, checkpoint or devices that do not fit together, before training starts; a loss
            that is not finite, naming the step.
    """
    settings = training_settings
    strategy = devices.strategy(settings.gpus)
    phases = settings.phases or (Phase(settings.steps),)
    for phase in phases:
        _check_batch_size(phase.batch_size or settings.batch_size, strategy.num_replicas_in_sync, settings.accumulate)
    tokens = read_vocabulary(vocab_path, encoder_settings.vocab_size) if vocab_path else None
    train_groups, held_out_groups = batches.by_length(train_files), batches.by_length(eval_files)
    phases = _with_lengths(phases, train_groups, encoder_settings, train_files)
    vocab_size = encoder_settings.vocab_size
    examples = {
        length: batches.open_examples(files, vocab_size=vocab_size)
        for length, files in train_groups.items()
        if length in {phase.max_seq_length for phase in phases}
    }
    for opened in examples.values():
        _check_predictions(opened, transform)
    held_out = {
        length: batches.open_examples(files, vocab_size=vocab_size)
        for length, files in held_out_groups.items()
        if length in examples
    }
    if eval_files and phases[-1].max_seq_length not in held_out:
        raise InputError(
            f"{eval_files[0]}: held-out examples must have the length of the last phase "
            f"({phases[-1].max_seq_length}). Received: {', '.join(map(str, held_out_groups))}"
        )
    if devices.is_chief():
        claim(
            output,
            encoder=encoder_settings,
            training=settings,
            init=init,
            train_files=[[os.path.basename(file), tf.io.gfile.stat(file).length] for file in train_files],
        )

    keras.utils.set_random_seed(settings.seed)
    with strategy.scope():
        encoder = BertEncoder(encoder_settings, dtype=settings.dtype_policy)
        optimizer = Optimizer(settings, encoder.trainable_variables, encoder_settings.num_layers)
    if init:
        start_from(encoder, init)
    state = State(os.path.join(output, "checkpoints"), encoder, optimizer, settings.keep_checkpoints)
    step = state.restore()

    evaluations = {
        length: Evaluation(encoder, opened, settings.batch_size, transform) for length, opened in held_out.items()
    }
    loop = Loop(settings, strategy, encoder, optimizer, state.loss_scale)
    evaluate_every = settings.evaluate_every or max(1, settings.steps // 10)
    checkpoint_every = settings.checkpoint_every or max(1, settings.steps // 10)
    with Records(output if devices.is_chief() else None, step) as records:
        meter = Meter(settings, step)
        for phase, first, end in _stretches(phases):
            if step >= end:
                continue
            evaluation = evaluations.get(phase.max_seq_length)
            batch_size = phase.batch_size or settings.batch_size
            source = loop.iterator(examples[phase.max_seq_length], batch_size, step - first, transform)
            while step < end:
                # To the next multiple of whatever comes first.
                every = (settings.steps_per_call, settings.report_every, evaluate_every, checkpoint_every)
                stop = min(end, *(step + n - step % n for n in every))
                done = loop.run(source, step, stop)
                if done.bad_step is not None:
                    state.save(done.bad_step)
                    raise InputError(
                        f"the loss is not finite at step {done.bad_step} (batch {done.bad_step - first}); "
                        f"the weights before it are in {state.newest()}. Try a lower learning rate. Received: loss "
                        f"{done.bad_loss}, gradient norm {done.bad_norm}"
                    )
                step = stop
                meter.add(done)
                last = step == settings.steps
                if step % settings.report_every == 0 or last:
                    figures = meter.figures(step)
                    records.write(step, "training", figures)
                    if report and devices.is_chief():
                        report(step, settings.steps, figures)
                if evaluation and step % evaluate_every == 0 and not last:
                    found = evaluation(settings.evaluation_examples)
                    records.write(step, "held_out", found)
                    state.save_if_best(step, found["masked_lm_loss"])
                    if tokens:
                        records.write_text(step, "filled_masks", evaluation.samples(tokens))
                if step % checkpoint_every == 0 or last:
                    state.save(step)
                meter.pause()
        found = {}
        if eval_files:
            found = evaluations[phases[-1].max_seq_length]()
            records.write(step, "held_out", found)
            state.save_if_best(step, found["masked_lm_loss"])
        if devices.is_chief():
            checkpoints.save(encoder, os.path.join(output, "model"), vocab=vocab_path, lower_case=lower_case)
            records.plot(os.path.join(output, "curves.png"))
    return TrainingResult(encoder, found)


def start_from(encoder: BertEncoder, path: str) -> None:
    """Takes over the weights of a checkpoint. Heads that it lacks keep their fresh weights; positions beyond its own
    begin as copies of its positions, from the first on."""
    weights = {weight.path: weight.numpy() for weight in checkpoints.load(path).weights}
    position = encoder.embeddings.position
    for weight in encoder.weights:
        if weight.path not in weights:
            continue
        found = weights[weight.path]
        if weight is position and len(found) < weight.shape[0]:
            found = np.resize(found, weight.shape)
        if tuple(found.shape) != tuple(weight.shape):
            raise InputError(
                f"{path}: {weight.path} must have the shape {tuple(weight.shape)} of the settings. "
                f"Received: {tuple(found.shape)}"
            )
        weight.assign(found)


def _check_batch_size(batch_size: int, replicas: int, accumulate: int) -> None:
    if batch_size % (replicas * accumulate):
        raise InputError(
            f"batch_size must be a multiple of the devices ({replicas}) times accumulate ({accumulate}). "
            f"Received: {batch_size}"
        )


def _check_predictions(examples: batches.Examples, transform) -> None:
    if transform is None and not examples.predictions:
        raise InputError(
            f"{examples.files[0]}: the examples must have masked tokens to predict. Received: none; they were written "
            "with masking none, which is for masking at training time"
        )


def _with_lengths(phases, groups, encoder_settings, files) -> tuple[Phase, ...]:
    """Phases with their lengths, checked: the only length of the files where a phase leaves it open."""
    if not files:
        raise InputError("training needs at least one file of examples. Received: none")
    known = ", ".join(map(str, sorted(groups)))
    if len(groups) > 1 and not phases[0].max_seq_length:
        raise InputError(f"examples must have one length, or phases say which one when. Received: {known}")
    phases = tuple(
        dataclasses.replace(phase, max_seq_length=phase.max_seq_length or next(iter(groups))) for phase in phases
    )
    for phase in phases:
        if phase.max_seq_length not in groups:
            raise InputError(
                f"a phase's max_seq_length must be that of examples ({known}). Received: {phase.max_seq_length}"
            )
        if phase.max_seq_length > encoder_settings.max_positions:
            raise InputError(
                f"{groups[phase.max_seq_length][0]}: the examples' length must not exceed the model's max_positions "
                f"({encoder_settings.max_positions}). Received: {phase.max_seq_length}"
            )
    return phases


def _stretches(phases: Sequence[Phase]) -> Iterator[tuple[Phase, int, int]]:
    """(phase, its first step, the step after its last)."""
    first = 0
    for phase in phases:
        yield phase, first, first + phase.steps
        first += phase.steps
