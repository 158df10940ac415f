"""What a fine-tuning will do, decided and told before it begins."""

import dataclasses
import math
import os
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence

import tensorflow as tf

from model import checkpoints
from model.checkpoints.names import ENCODER, POOLER, part_of
from model.encoder.heads import CLASSIFIER
from model.settings import ClassificationSettings, EncoderSettings, Precision, TrainingSettings, Watched
from model.tasks.classification import Classification, balanced
from preprocessing import batches, features
from preprocessing.batches.stream import MEMORY_LIMIT
from preprocessing.errors import InputError, require
from preprocessing.features import Long
from preprocessing.tasks.examples import Prepared
from preprocessing.tokenizer import BertTokenizer
from serving.export import text_rules

# Of few rows: so many updates at least, but no more epochs (Mosbach et al. 2021; Zhang et al. 2021).
EPOCHS, LEAST_UPDATES, MOST_EPOCHS = 3, 1000, 20
BUCKETS = (16, 32, 48, 64, 96, 128, 192, 256, 384)
# Of what this machine's matrix products reach alone, the share that a training step reaches, about.
EFFICIENCY = 0.4


@dataclasses.dataclass(frozen=True)
class Options:
    """What a user says of a fine-tuning; None is decided by `Plan`."""

    epochs: float | None = None
    batch_size: int = 32
    learning_rate: float | None = None
    max_seq_length: int = 128
    long: Long = "cut"
    seeds: int = 1
    seed: int = 12345
    labels: str | None = None
    class_weights: str | None = None
    watch: Watched = "accuracy"
    precision: Precision = "float32"

    def __post_init__(self):
        require(self.epochs is None or 0 < self.epochs < math.inf, "epochs must be positive", self.epochs)
        require(self.batch_size > 0, "batch_size must be positive", self.batch_size)
        require(self.seeds > 0, "seeds must be positive", self.seeds)

    @property
    def declared(self) -> list[str] | None:
        """The labels of `labels`: a file, one a line, or the labels with commas between them."""
        if self.labels is None:
            return None
        is_file = os.path.isfile(self.labels)
        found = [line for line in _lines(self.labels) if line] if is_file else self.labels.split(",")
        require(len(set(found)) == len(found) and all(found), "--labels must be texts that differ", found)
        return found


@dataclasses.dataclass(frozen=True)
class Start:
    """The checkpoint that is fine-tuned. `parts`: its heads, and pooler, by name."""

    path: str
    encoder: EncoderSettings
    parts: Sequence[str]
    labels: Sequence[str] | None  # of its classifier, if it has one
    tokenizer: BertTokenizer

    @classmethod
    def read(
        cls, path: str, vocab: str | None, lower_case: bool | None, report: Callable[[str], None] = lambda line: None
    ) -> "Start":
        """Raises InputError where it is no checkpoint, or has no vocabulary and none is given."""
        found = checkpoints.read(path)
        known = checkpoints.read_task(path)
        parts = list(dict.fromkeys(part for name in found.arrays if (part := part_of(name)) != ENCODER))
        labels = known.labels if isinstance(known, ClassificationSettings) and CLASSIFIER.name in parts else None
        return cls(path, found.settings, parts, labels, text_rules.tokenizer_of(path, vocab, lower_case, report))

    @property
    def said_tokenizer(self) -> checkpoints.CheckpointTokenizer:
        """The tokenizer as it is stored with a model."""
        own = self.tokenizer
        return checkpoints.CheckpointTokenizer(own.vocab, own.lower_case, own.added, own.longest_word)


@dataclasses.dataclass(frozen=True)
class Plan:
    """A fine-tuning in all its settings. `fresh`: heads of the checkpoint that are for other labels."""

    start: Start
    prepared: Prepared
    options: Options
    task: Classification
    training: TrainingSettings
    fresh: tuple[str, ...]

    @classmethod
    def of(cls, start: Start, prepared: Prepared, options: Options) -> "Plan":
        rows, length = prepared.train.rows, options.max_seq_length
        per_epoch = rows / options.batch_size
        epochs = options.epochs or min(MOST_EPOCHS, max(EPOCHS, LEAST_UPDATES / per_epoch))
        hidden = start.encoder.hidden_size
        rate = options.learning_rate or (3e-5 if hidden >= 768 else 1e-4 if hidden >= 384 else 3e-4)
        # Bucketed examples stand in memory: their ids take four bytes a token, mask and segment one each.
        fits = rows * length * 6 < MEMORY_LIMIT
        training = TrainingSettings(
            steps=max(1, math.ceil(epochs * per_epoch)),
            batch_size=options.batch_size,
            buckets=tuple(bucket for bucket in BUCKETS if bucket < length) if fits else (),
            learning_rate=rate,
            bias_correction=True,
            precision=options.precision,
            seed=options.seed,
            evaluation_examples=None,
        )
        weights = _class_weights(options.class_weights, prepared)
        task = Classification(len(prepared.labels), weights, options.watch)
        same = start.labels is None or list(start.labels) == prepared.labels
        return cls(start, prepared, options, task, training, () if same else (CLASSIFIER.name,))

    def told(self) -> Iterator[str]:
        """Lines for people."""
        start, encoder, training = self.start, self.start.encoder, self.training
        train, dev, labels = self.prepared.train, self.prepared.dev, self.prepared.labels
        needed = [POOLER, *(head.name for head in self.task.heads)]
        new = [part for part in needed if part not in start.parts or part in self.fresh]
        unused = [part for part in start.parts if part not in needed]
        yield (
            f"{start.path}: {encoder.num_layers} layers, {encoder.hidden_size} hidden; "
            f"new: {', '.join(new) or 'nothing'}; unused: {', '.join(unused) or 'nothing'}"
        )
        yield from self.prepared.notes()
        shown = sorted(zip(train.counts, labels, strict=True), key=lambda pair: -pair[0])
        classes = ", ".join(f"{label} {count:,}" for count, label in shown[:6]) + (", ..." if len(shown) > 6 else "")
        yield f"{len(labels)} classes: {classes}"
        for split, name in ((train, "train"), (dev, "dev")):
            cut = split.cut / split.rows
            yield f"{name}: {split.rows:,} rows, {cut:.1%} cut at {self.options.max_seq_length} tokens"
        most = max(range(len(labels)), key=dev.counts.__getitem__)
        yield f"always saying {labels[most]!r} is right in {dev.counts[most] / dev.rows:.4f} of dev"
        epochs = training.steps * training.batch_size / train.rows
        yield (
            f"{self.options.seeds} x {training.steps:,} updates of {training.batch_size} rows, {epochs:.3g} epochs, "
            f"{training.warmup:,} of them warm-up to the learning rate {training.learning_rate:g}; about "
            f"{duration(self.options.seeds * self.seconds())}"
        )

    def seconds(self) -> float:
        """About how long the updates of one seed take here: their multiplications at the speed of this machine."""
        encoder, prepared = self.start.encoder, self.prepared
        weights = encoder.num_layers * (4 * encoder.hidden_size + 2 * encoder.intermediate_size) * encoder.hidden_size
        tokens = prepared.train.tokens / prepared.train.rows * self.training.batch_size * self.training.steps
        return 6 * weights * tokens / (EFFICIENCY * _speed(encoder))


def _speed(encoder: EncoderSettings) -> float:
    """Floating-point operations a second in products of the encoder's size."""
    rows, hidden, inner = 1024, encoder.hidden_size, encoder.intermediate_size
    a, b = tf.ones([rows, hidden]), tf.ones([hidden, inner])
    tf.matmul(a, b)
    started, count = time.perf_counter(), 0
    while (taken := time.perf_counter() - started) < 0.1 or count < 2:
        tf.reduce_sum(tf.matmul(a, b)).numpy()
        count += 1
    return 2 * rows * hidden * inner * count / taken


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _class_weights(kind: str | None, prepared: Prepared) -> tuple[float, ...]:
    """None, `balanced`, or a file of lines `label TAB weight`."""
    if kind is None:
        return ()
    if kind == "balanced":
        return balanced(prepared.train.counts)
    if not os.path.isfile(kind):
        raise InputError(f"class weights must be balanced or a file of lines `label TAB weight`. Received: {kind!r}")
    found: dict[str, float] = {}
    for number, line in enumerate(_lines(kind), 1):
        label, _, weight = line.rpartition("\t")
        try:
            found[label] = float(weight)
        except ValueError as error:
            raise InputError(f"{kind}:{number}: a line must be `label TAB weight`. Received: {line!r}") from error
        require(label in prepared.labels, f"{kind}:{number}: a weight must be of one of the labels", label)
    missing = [label for label in prepared.labels if label not in found]
    require(not missing, f"{kind}: each label needs a weight", missing)
    return tuple(found[label] for label in prepared.labels)


def _lines(path: str) -> list[str]:
    """Of a UTF-8 file, without blank ones at its end."""
    try:
        text = pathlib.Path(path).read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as UTF-8 text: {error}") from error
    return text.rstrip("\r\n").replace("\r\n", "\n").split("\n")


def dev_examples(plan: Plan) -> batches.Examples:
    spec = features.classified(len(plan.prepared.labels))
    return batches.open_examples([plan.prepared.dev.file], spec, vocab_size=plan.start.encoder.vocab_size)
