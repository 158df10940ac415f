"""Training: examples in, an encoder trained for a task out. One function, `train`, to be called again after a crash.

The loop is our own and not Keras's `fit`, which with several devices cannot run several steps a call, accumulate
gradients, or divide by what the whole batch holds.
"""

import dataclasses
import functools
import hashlib
import itertools
import os
from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf

from model import checkpoints
from model.checkpoints.names import arrays_of, assign
from model.encoder import BertEncoder
from model.settings import EncoderSettings, Phase, TrainingSettings
from model.tasks.task import Task
from model.training import devices
from model.training.evaluation import Evaluation
from model.training.fresh import inform
from model.training.loop import Loop, Meter
from model.training.optimizer import Optimizer, choose
from model.training.patience import Patience
from model.training.records import Records, read_history, read_vocabulary
from model.training.state import State, claim, one_at_a_time
from preprocessing import batches
from preprocessing.errors import InputError

Report = Callable[[int, int, dict[str, float]], None]


@dataclasses.dataclass(frozen=True)
class TrainingResult:
    """The trained encoder, as it was saved; `metrics` on the held-out examples, with the baselines; `steps` that were
    run, fewer than were asked for where the run's patience ended."""

    encoder: BertEncoder
    metrics: dict[str, float]
    steps: int


@one_at_a_time
def train(
    encoder_settings: EncoderSettings,
    training_settings: TrainingSettings,
    *,
    task: Task,
    train_files: Sequence[str],
    eval_files: Sequence[str] = (),
    output: str,
    vocab_path: str | None = None,
    lower_case: bool | None = None,
    init: str | None = None,
    fresh: Sequence[str] = (),
    transform: batches.Transform | None = None,
    masking: str | None = None,
    report: Report | None = None,
) -> TrainingResult:
    """Trains on example files, or goes on with the run in `output` that was interrupted.

    It ends before its last step where the held-out figure that the task watches has not become better for so many
    evaluations as the settings' `patience` says; warm-up and decay are those of all steps.

    A resumed run ends with the same weights, bit for bit on the same CPU machine, as one that was not interrupted.

    Args:
        task: what the encoder is trained for.
        train_files: with phases, each phase takes those of its length.
        eval_files: held-out examples; without them there are no held-out figures.
        output: folder; gets `model/` (the result), `best/` (the best model by the held-out figure that the task
            watches), `checkpoints/`, `logs/` (TensorBoard), `history.jsonl`, `curves.png`, `run.json`;
            `before_failure/` where a loss was not finite.
        vocab_path, lower_case: stored with the model; the vocabulary makes the task's samples readable, and is compared
            with that of `init`.
        init: a checkpoint to begin with, in any format that `checkpoints.load` takes.
        fresh: names of heads, of layers (`layer_0`) and `pooler`, that begin anew though `init` has them.
        transform: see `batches.Transform`; for masking at training time.
        masking: what `transform` does, in a word; a resumed run must do the same.
        report: called with (step, total steps, figures) as training goes.

    Raises:
        InputError: examples, settings, checkpoint or devices that do not fit together, or another run at work in
            `output`, before training starts; a loss that is not finite, naming the step.
    """
    settings = training_settings
    strategy = devices.strategy(settings.gpus)
    tokens = read_vocabulary(vocab_path, encoder_settings.vocab_size) if vocab_path else None
    train_groups, held_out_groups = (batches.by_length(files, task.spec) for files in (train_files, eval_files))
    longest = encoder_settings.max_positions * task.spec.in_turn
    stretches = _stretches(settings, train_groups, longest, strategy.num_replicas_in_sync)
    last_length = stretches[-1].length
    vocab_size = encoder_settings.vocab_size
    examples = {
        length: batches.open_examples(files, task.spec, vocab_size=vocab_size)
        for length, files in train_groups.items()
        if length in {stretch.length for stretch in stretches}
    }
    held_out = {
        length: batches.open_examples(files, task.spec, vocab_size=vocab_size)
        for length, files in held_out_groups.items()
        if length in examples
    }
    for opened in (*examples.values(), *held_out.values()):
        task.check(settings, opened, transform)
    if eval_files and last_length not in held_out:
        raise InputError(
            f"{eval_files[0]}: held-out examples must have the length of the last training examples ({last_length}). "
            f"Received: {', '.join(map(str, held_out_groups))}"
        )
    if devices.is_chief():
        claim(
            output,
            encoder=encoder_settings,
            training=settings,
            task=dict(task.description),
            init=init,
            fresh=list(fresh),
            train_files=_names_and_sizes(train_files),
            eval_files=_names_and_sizes(eval_files),
            vocabulary=hashlib.sha256("\n".join(tokens).encode()).hexdigest() if tokens else None,
            lower_case=lower_case,
            masking=masking,
        )

    keras.utils.set_random_seed(settings.seed)
    with strategy.scope():
        encoder = BertEncoder(encoder_settings, heads=task.heads, dtype=settings.dtype_policy)
        choose(encoder, settings)
        optimizer = Optimizer(settings, encoder.trainable_variables, encoder_settings.num_layers)
    state = State(os.path.join(output, "checkpoints"), encoder, optimizer, settings.keep_checkpoints)
    step = state.restore()
    if not step:  # a run that goes on has its own weights, wherever they once came from
        if init:
            start_from(encoder, init, tokens, fresh)
        elif settings.initial_weights == "informed":
            inform(encoder, examples[stretches[0].length], transform)

    evaluations = {
        length: Evaluation(task, encoder, opened, settings.batch_size, transform, settings.buckets)
        for length, opened in held_out.items()
    }
    keep = functools.partial(_keep, encoder, output, vocab_path, lower_case)
    loop = Loop(settings, task, strategy, encoder, optimizer, state.loss_scale)
    evaluate_every = settings.evaluate_every or max(1, settings.steps // 10)
    checkpoint_every = settings.checkpoint_every or max(1, settings.steps // 10)
    patience = Patience(settings.patience, task, (row for row in read_history(output) if row["step"] <= step))
    with Records(output if devices.is_chief() else None, step) as records:
        meter = Meter(settings, task)
        for stretch in stretches:
            if step >= stretch.end or patience.over:
                continue
            evaluation = evaluations.get(stretch.length)
            source = loop.iterator(examples[stretch.length], stretch.batch_size, step - stretch.first, transform)
            while step < stretch.end and not patience.over:
                # To the next multiple of whatever comes first.
                every = (settings.steps_per_call, settings.report_every, evaluate_every, checkpoint_every)
                stop = min(stretch.end, *(step + n - step % n for n in every))
                done = loop.run(source, step, stop)
                if done.bad_step is not None:
                    raise InputError(
                        f"the loss is not finite at step {done.bad_step} (batch {done.bad_step - stretch.first}); the "
                        f"weights before it are in {keep('before_failure')}, with which another run can begin. Try a "
                        f"lower learning rate. Received: loss {done.bad_loss}, gradient norm {done.bad_norm}"
                    )
                step = stop
                meter.add(done)
                last = step == settings.steps
                # A run that may end at any evaluation has told of its updates by then.
                may_end = settings.patience is not None and step % evaluate_every == 0
                if step % settings.report_every == 0 or last or may_end:
                    figures = meter.figures(step)
                    records.write(step, "training", figures)
                    if report and devices.is_chief():
                        report(step, settings.steps, figures)
                if evaluation and step % evaluate_every == 0 and not last:
                    found = evaluation(settings.evaluation_examples)
                    records.write(step, "held_out", found)
                    patience.add(found)
                    if state.is_best(found[task.watched], task.lower_is_better):
                        keep("best")
                    if tokens:
                        for title, text in evaluation.samples(tokens).items():
                            records.write_text(step, title, text)
                if step % checkpoint_every == 0 or last or patience.over:
                    state.save(step)
                meter.pause()
        found = {}
        if eval_files:
            found = evaluations[last_length]()
            records.write(step, "held_out", found)
            if state.is_best(found[task.watched], task.lower_is_better):
                keep("best")
        keep("model")
        if devices.is_chief():
            records.plot(os.path.join(output, "curves.png"), task.curves)
    return TrainingResult(_merged(encoder) if settings.tune == "lora" else encoder, found, step)


def _merged(encoder: BertEncoder) -> BertEncoder:
    """The same without adapters: they are in its kernels."""
    plain = BertEncoder(encoder.settings, encoder.described_heads, dtype=encoder.dtype_policy)
    assign(plain, arrays_of(encoder))
    return plain


def _keep(encoder, output, vocab_path, lower_case, name) -> str:
    """Writes the encoder as it is now into a folder of `output`, and returns its path."""
    path = os.path.join(output, name)
    if devices.is_chief():
        checkpoints.save(encoder, path, vocab=vocab_path, lower_case=lower_case)
    return path


def _names_and_sizes(files):
    return [[os.path.basename(file), tf.io.gfile.stat(file).length] for file in files]


def start_from(encoder: BertEncoder, path: str, tokens: Sequence[str] | None = None, fresh: Sequence[str] = ()) -> None:
    """Takes over the weights of a checkpoint. Heads that it lacks, and what is `fresh`, keep their fresh weights;
    positions beyond its own begin as copies of its positions, from the first on. InputError where weights would mean
    something else here, or ids, by the run's `tokens` and the checkpoint's."""
    check_words(path, tokens)
    source = checkpoints.load(path)
    names = ("num_layers", "num_heads", "activation", "layer_norm_epsilon")
    wanted, received = ({name: getattr(s, name) for name in names} for s in (encoder.settings, source.settings))
    differing = [name for name in names if wanted[name] != received[name]]
    if differing:
        raise InputError(
            f"{path}: the checkpoint must have the run's {', '.join(f'{n} {wanted[n]!r}' for n in differing)}. "
            f"Received: {', '.join(f'{n} {received[n]!r}' for n in differing)}; train with the checkpoint's settings"
        )
    weights = {weight.path: weight.numpy() for weight in source.weights}
    position = encoder.embeddings.position
    kept = {weight.path for name in fresh for weight in getattr(encoder, name).weights}
    for weight in encoder.weights:
        if weight.path not in weights or weight.path in kept:
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


def check_words(path: str, tokens: Sequence[str] | None) -> None:
    """Each id must be the same word to a checkpoint and to the run; one that the checkpoint left unused may be any."""
    known = checkpoints.tokenizer(path).tokens
    if tokens is None or known is None:
        return
    for line, (theirs, ours) in enumerate(itertools.zip_longest(known, tokens), 1):
        if theirs != ours and not (theirs and ours and theirs.startswith("[unused")):
            raise InputError(
                f"{path}: a checkpoint to begin with must have the run's vocabulary, else its ids would mean other "
                f"words; begin without one, or train with its vocabulary. Received: line {line} is {theirs!r} there, "
                f"{ours!r} here"
            )


@dataclasses.dataclass(frozen=True)
class _Stretch:
    """A phase in place: examples of this length from step `first` to before `end`."""

    length: int
    batch_size: int
    first: int
    end: int


def _stretches(settings, groups, longest, replicas) -> list[_Stretch]:
    """The run's phases, checked against example files by length, the longest that the model takes, and devices."""
    if not groups:
        raise InputError("training needs at least one file of examples. Received: none")
    known = ", ".join(map(str, sorted(groups)))
    stretches, first = [], 0
    for phase in settings.phases or (Phase(settings.steps),):
        if phase.max_seq_length is None and len(groups) > 1:
            raise InputError(f"examples must have one length, or phases say which one when. Received: {known}")
        length = phase.max_seq_length or next(iter(groups))
        if length not in groups:
            raise InputError(f"a phase's max_seq_length must be that of examples ({known}). Received: {length}")
        if length > longest:
            raise InputError(
                f"{groups[length][0]}: the examples' length must not exceed the model's max_positions ({longest}). "
                f"Received: {length}"
            )
        batch_size = phase.batch_size or settings.batch_size
        if batch_size % (replicas * settings.accumulate):
            raise InputError(
                f"batch_size must be a multiple of the devices ({replicas}) times accumulate ({settings.accumulate}). "
                f"Received: {batch_size}"
            )
        stretches.append(_Stretch(length, batch_size, first, first + phase.steps))
        first += phase.steps
    return stretches
