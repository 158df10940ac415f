"""What a fine-tuning will do, decided and told before it begins."""

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast, get_args

import tensorflow as tf

from model import checkpoints
from model.checkpoints.names import ENCODER, POOLER, part_of
from model.encoder import BertEncoder
from model.encoder.heads import chosen
from model.settings import (
    ClassificationSettings,
    EncoderSettings,
    Pooling,
    Precision,
    SimilaritySettings,
    TaskSettings,
    TrainingSettings,
    Tune,
)
from model.tasks import taught
from model.tasks.task import Task
from model.training.optimizer import choose
from pipeline.finetuning import teaching
from pipeline.finetuning.kinds.kind import OF_TEACHER, Kind, Prepared, Source
from preprocessing.batches.stream import MEMORY_LIMIT
from preprocessing.errors import InputError, require
from preprocessing.features import Long
from preprocessing.tokenizer import BertTokenizer
from serving.export import text_rules

# Of few rows: so many updates at least, in all and for each class, but no more epochs (Mosbach et al. 2021; Zhang et
# al. 2021). With 77 classes 1,000 updates leave much unlearned.
EPOCHS, LEAST_UPDATES, UPDATES_OF_A_CLASS, MOST_EPOCHS = 3, 1000, 25, 20
SEARCHED = (0.5, 1.0, 2.0, 4.0)  # of the learning rate that a model of its size has
BUCKETS = (16, 32, 48, 64, 96, 128, 192, 256, 384)
# Of what this machine's matrix products reach alone, the share that a training step reaches, about.
EFFICIENCY = 0.4
# Of an update, the products with each matrix, times two: forward; back to the layer below; and for its own gradient.
PRODUCTS: dict[Tune, int] = {"all": 6, "lora": 4, "bias": 4, "head": 2}
EVALUATIONS = 10  # of a run
# So many times the learning rate that all weights would have: what is few, or begins at zero, has far to go.
RATES: dict[Tune, float] = {"lora": 10.0, "bias": 30.0, "head": 100.0}


@dataclasses.dataclass(frozen=True)
class Options:
    """What a user says of a fine-tuning; None is decided by `Plan`, or is not of its kind. See `Options.of`."""

    watch: str
    max_seq_length: int
    epochs: float | None = None
    batch_size: int = 32
    learning_rate: float | None = None
    seeds: int = 1
    seed: int = 12345
    precision: Precision = "float32"
    search: bool = False
    tune: Tune = "all"
    rank: int | None = None  # of the adapters of tune lora; None: TrainingSettings' own
    freeze: int = 0
    reinit: int = 0
    layer_decay: float = 1.0
    head_rate: float = 1.0
    patience: int | None = None
    dev_rows: int | None = None  # examples on which the best model is chosen; None: all
    layers: str | None = None  # of the checkpoint's that the model has; None: all
    # Of some kinds.
    teacher: str | None = None  # a model that was tuned for the same
    temperature: float | None = None  # by which its answers are softened; None, as of soft: Taught's own
    soft: float | None = None  # their share of the loss
    untaught: bool | None = None  # whether the same is trained without the teacher, too; None: it is
    long: Long | None = None
    pooling: Pooling | None = None  # None: what the checkpoint was trained for
    labels: str | None = None
    class_weights: str | None = None
    stride: int | None = None
    max_question: int | None = None
    max_answer: int | None = None

    def __post_init__(self):
        require(self.epochs is None or 0 < self.epochs < math.inf, "epochs must be positive", self.epochs)
        require(self.batch_size > 0, "batch_size must be positive", self.batch_size)
        require(self.seeds > 0, "seeds must be positive", self.seeds)
        require(self.dev_rows is None or self.dev_rows > 0, "dev_rows must be positive", self.dev_rows)
        if self.search and self.learning_rate is not None:
            raise InputError("--search finds the learning rate: leave out --learning-rate, or --search")
        require(self.rank is None or self.tune == "lora", "--rank is that of --tune lora: leave it out", self.rank)
        require(self.freeze >= 0, "freeze must be 0 or more", self.freeze)
        require(self.reinit >= 0, "reinit must be 0 or more", self.reinit)
        taught.check(**self.teaching)
        self.training(steps=1, learning_rate=1.0 if self.learning_rate is None else self.learning_rate)
        rule = f"--reinit begins layers anew, which --tune {self.tune} would leave as they are: leave one of them out"
        require(not self.reinit or self.tune == "all", rule, self.reinit)

    @classmethod
    def of(cls, kind: Kind, **given: Any) -> "Options":
        """Those of a kind, where None is not given. Raises InputError for one that another kind has."""
        given = {name: value for name, value in given.items() if value is not None}
        rule = f"--task {kind.name} does not take"
        for name in given:
            require(name in kind.defaults or name not in OWN, rule, f"--{name.replace('_', '-')}")
        for name in OF_TEACHER:
            require(
                name not in given or "teacher" in given, f"--{name} is that of --teacher: leave it out", given.get(name)
            )
        watch = given.setdefault("watch", kind.watched[0])
        require(watch in kind.watched, f"--watch must be {' or '.join(kind.watched)}", watch)
        return cls(**{**kind.defaults, **given})

    def training(self, **decided: Any) -> TrainingSettings:
        """What of them is the training loop's, with what else was decided. Raises InputError for a bad number."""
        return TrainingSettings(
            batch_size=self.batch_size,
            bias_correction=True,
            precision=self.precision,
            tune=self.tune,
            lora_rank=TrainingSettings.lora_rank if self.rank is None else self.rank,
            freeze=self.freeze,
            layer_decay=self.layer_decay,
            head_rate=self.head_rate,
            seed=self.seed,
            evaluation_examples=None,
            patience=self.patience,
            **decided,
        )

    @property
    def teaching(self) -> dict[str, Any]:
        """What is said of how a teacher teaches, as `model.tasks.taught.Taught` takes it."""
        said = {"temperature": self.temperature, "soft": self.soft}
        return {name: value for name, value in said.items() if value is not None}

    def check(self, start: "Start") -> None:
        """Raises InputError where they do not fit the checkpoint."""
        longest, layers, hidden = start.encoder.max_positions, start.encoder.num_layers, start.encoder.hidden_size
        rule = f"{start.path}: max_seq_length must not exceed the model's positions ({longest})"
        require(self.max_seq_length <= longest, rule, self.max_seq_length)
        for name in ("freeze", "reinit"):
            number = getattr(self, name)
            require(number <= layers, f"{name} must be a number of the model's layers, 0 to {layers}", number)
        rule = f"layers that begin anew must not be frozen: reinit must be at most {layers - self.freeze}"
        require(self.freeze + self.reinit <= layers, rule, self.reinit)
        rule = f"--rank must be from 1 to the model's hidden size ({hidden})"
        require(self.rank is None or self.rank <= hidden, rule, self.rank)


OWN = ("long", "pooling", "labels", "class_weights", "stride", "max_question", "max_answer", *OF_TEACHER)


@dataclasses.dataclass(frozen=True)
class Start:
    """The checkpoint that is fine-tuned. `parts`: its heads, and pooler, by name."""

    path: str
    encoder: EncoderSettings
    parts: Sequence[str]
    task: TaskSettings | None  # what the numbers of its fine-tuned head mean, if that is known
    tokenizer: BertTokenizer
    pooling: Pooling | None  # that it was trained for, if that is known

    @classmethod
    def read(
        cls, path: str, vocab: str | None, lower_case: bool | None, report: Callable[[str], None] = lambda line: None
    ) -> "Start":
        """Raises InputError where it is no checkpoint, or has no vocabulary and none is given."""
        found = checkpoints.read(path)
        known = checkpoints.read_task(path)
        parts = list(dict.fromkeys(part for name in found.arrays if (part := part_of(name)) != ENCODER))
        sentences = checkpoints.sentences(path)
        if isinstance(known, ClassificationSettings | SimilaritySettings):
            said: str | None = known.pooling
        else:
            said = sentences.pooling if sentences else None
        tokenizer = text_rules.tokenizer_of(path, vocab, lower_case, report)
        pooling = cast(Pooling, said) if said in get_args(Pooling) else None
        return cls(path, found.settings, parts, known, tokenizer, pooling)

    @property
    def said_tokenizer(self) -> checkpoints.CheckpointTokenizer:
        """The tokenizer as it is stored with a model."""
        own = self.tokenizer
        return checkpoints.CheckpointTokenizer(own.vocab, own.lower_case, own.added, own.longest_word)


@dataclasses.dataclass(frozen=True)
class Plan:
    """A fine-tuning in all its settings. `fresh`: heads that the checkpoint has for something else, and the
    layers that are to begin anew."""

    kind: Kind
    start: Start
    prepared: Prepared
    options: Options
    task: Task
    settings: TaskSettings  # as they are before the calibration
    training: TrainingSettings
    fresh: tuple[str, ...]
    teacher: Start | None = None

    @classmethod
    def of(
        cls,
        kind: Kind,
        start: Start,
        prepared: Prepared,
        train: Source,
        options: Options,
        teacher: Start | None = None,
    ) -> "Plan":
        """`train`: the source of the prepared rows."""
        if kind.pooling and options.pooling is None:
            said = teacher.pooling if teacher else start.pooling
            options = dataclasses.replace(options, pooling=said or kind.pooling)
        layers = start.encoder.num_layers
        task, settings = kind.task(prepared, options), kind.settings(prepared, train, options)
        if teacher:
            task = teaching.taught(task, settings, start, teacher, options)
        rows, length = prepared.train.rows, options.max_seq_length * task.spec.in_turn
        per_epoch = rows / options.batch_size
        classes = len(settings.labels) if isinstance(settings, ClassificationSettings) else 0
        least = max(LEAST_UPDATES, UPDATES_OF_A_CLASS * classes)
        epochs = options.epochs or min(MOST_EPOCHS, max(EPOCHS, least / per_epoch))
        hidden = start.encoder.hidden_size
        of_size = 3e-5 if hidden >= 768 else 1e-4 if hidden >= 384 else 3e-4
        rate = options.learning_rate or of_size * RATES.get(options.tune, 1.0)
        # Bucketed examples stand in memory: their ids take four bytes a token, mask and segment one each.
        fits = rows * length * 6 < MEMORY_LIMIT
        training = options.training(
            steps=max(1, math.ceil(epochs * per_epoch)),
            buckets=tuple(bucket for bucket in BUCKETS if bucket < length) if fits else (),
            learning_rate=rate,
        )
        known = start.task
        other = known is not None and known.meaning != settings.meaning
        fresh = [settings.head] if other and settings.head and settings.head in start.parts else []
        if options.reinit:
            pooler = [POOLER] * (options.pooling != "mean")
            fresh += pooler + [f"layer_{layer}" for layer in range(layers - options.reinit, layers)]
        return cls(kind, start, prepared, options, task, settings, training, tuple(fresh), teacher)

    def told(self) -> Iterator[str]:
        """Lines for people."""
        start, encoder, training = self.start, self.start.encoder, self.training
        heads = chosen(self.task.heads)
        pooled = any(head.over == "pooled" for head in heads) and self.options.pooling != "mean"
        needed = [POOLER] * pooled + [head.name for head in heads]
        new = [part for part in needed if part not in start.parts and part not in self.fresh] + list(self.fresh)
        unused = [part for part in start.parts if part not in needed]
        yield (
            f"{start.path}: {encoder.num_layers} layers, {encoder.hidden_size} hidden; "
            f"new: {', '.join(new) or 'nothing'}; unused: {', '.join(unused) or 'nothing'}"
        )
        trained, there = self.trained
        adapters = f"; adapters of query and value have the rank {training.lora_rank}" * (training.tune == "lora")
        yield f"trained are {trained:,} of {there:,} weights ({trained / there:.1%}){adapters}"
        yield from self.prepared.notes()
        yield from self.kind.told(self.prepared, self.options)
        epochs = training.steps * training.batch_size / self.prepared.train.rows
        yield (
            f"{self.runs} x {training.steps:,} updates of {training.batch_size} rows, {epochs:.3g} epochs, "
            f"{training.warmup:,} of them warm-up to the learning rate {training.learning_rate:g}; about "
            f"{duration(self.runs * self.seconds())}"
        )
        if self.teacher:
            more = "; the same runs follow without it" * self.untaught
            yield f"taught by {self.teacher.path}: {self.teacher.encoder.num_layers} layers{more}"
        if self.options.patience:
            yield f"a run ends after {self.options.patience} evaluations, of ten, without a better {self.task.watched}"
        if self.sample:
            yield (
                f"the best model is chosen on {self.sample:,} of dev's {self.prepared.dev.rows:,} examples, always the "
                "same ones; the figures are then those of all rows"
            )
        if self.options.search:
            rates = ", ".join(f"{factor * training.learning_rate:g}" for factor in SEARCHED)
            yield f"of the learning rates {rates} the best with the first seed is taken"

    @functools.cached_property
    def trained(self) -> tuple[int, int]:
        """How many weights are trained, and how many there are; adapters count with both."""
        encoder = BertEncoder(self.start.encoder, self.task.heads)
        choose(encoder, self.training)
        trained, there = (
            sum(math.prod(variable.shape) for variable in variables)
            for variables in (encoder.trainable_variables, encoder.variables)
        )
        return trained, there

    @property
    def sample(self) -> int | None:
        """How many examples of dev the best model is chosen on, where these are not all."""
        count = self.options.dev_rows
        return count if count is not None and count < self.prepared.dev.rows else None

    @property
    def runs(self) -> int:
        """How many there will be: one for each seed, and those of the search that no seed needs."""
        return self.options.seeds * (1 + self.untaught) + (len(SEARCHED) - 1) * self.options.search

    @property
    def untaught(self) -> bool:
        """Whether the same is trained without its teacher, too."""
        return self.teacher is not None and self.options.untaught is not False

    def seconds(self) -> float:
        """About how long the updates and evaluations of one seed take here: their multiplications at the speed of this
        machine."""
        train, dev, layers = self.prepared.train, self.prepared.dev, _of_layers(self.start.encoder)
        updated = train.tokens / train.rows * self.training.batch_size * self.training.steps
        evaluated = dev.tokens / dev.rows * EVALUATIONS * (self.sample or dev.rows)
        products = updated * PRODUCTS[self.training.tune] * layers + evaluated * PRODUCTS["head"] * layers
        if self.teacher:
            products += updated * 2 * _of_layers(self.teacher.encoder)
        return products / (EFFICIENCY * _speed(self.start.encoder, self.training.precision))


def _of_layers(encoder: EncoderSettings) -> int:
    """Weights of its products."""
    return encoder.num_layers * (4 * encoder.hidden_size + 2 * encoder.intermediate_size) * encoder.hidden_size


def _speed(encoder: EncoderSettings, precision: str) -> float:
    """Floating-point operations a second in products of the encoder's size, when the processor is awake."""
    rows, hidden, inner = 1024, encoder.hidden_size, encoder.intermediate_size
    a, b = tf.ones([rows, hidden], precision), tf.ones([hidden, inner], precision)
    for _warming in (True, False):
        started, count = time.perf_counter(), 0
        while (taken := time.perf_counter() - started) < 0.1 or count < 2:
            tf.reduce_sum(tf.matmul(a, b)).numpy()
            count += 1
    return 2 * rows * hidden * inner * count / taken


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
