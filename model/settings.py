"""The architecture of an encoder, stored with every checkpoint, and how one is trained, written beside the run's.

Frozen and validated.
"""

import dataclasses
import math
from typing import Literal

from preprocessing.errors import require, require_one_of
from preprocessing.features import Long

CheckpointFormat = Literal["google", "huggingface", "keras-hub", "ours"]
Activation = Literal["gelu_tanh", "gelu"]


@dataclasses.dataclass(frozen=True)
class EncoderSettings:
    """A BERT encoder (Devlin et al. 2018, section 3). Defaults are those of BERT-base, uncased.

    `activation` belongs to the checkpoint: google-research/bert computes GELU by its tanh approximation
    (`"gelu_tanh"`), Hugging Face's `"gelu"` is exact (`"gelu"` here too).
    """

    vocab_size: int = 30_522
    hidden_size: int = 768
    num_layers: int = 12
    num_heads: int = 12
    intermediate_size: int = 3072
    max_positions: int = 512
    type_vocab_size: int = 2
    activation: Activation = "gelu_tanh"
    dropout: float = 0.1
    attention_dropout: float = 0.1
    initializer_range: float = 0.02
    layer_norm_epsilon: float = 1e-12

    def __post_init__(self):
        for name in ("vocab_size", "hidden_size", "num_layers", "num_heads", "intermediate_size"):
            require(getattr(self, name) > 0, f"{name} must be positive", getattr(self, name))
        require(self.max_positions > 0, "max_positions must be positive", self.max_positions)
        require(self.type_vocab_size > 0, "type_vocab_size must be positive", self.type_vocab_size)
        require(
            self.hidden_size % self.num_heads == 0,
            f"hidden_size must be a multiple of num_heads ({self.num_heads})",
            self.hidden_size,
        )
        require_one_of(Activation, "activation", self.activation)
        for name in ("dropout", "attention_dropout"):
            require(0 <= getattr(self, name) < 1, f"{name} must be in [0, 1)", getattr(self, name))
        require(self.initializer_range > 0, "initializer_range must be positive", self.initializer_range)
        require(self.layer_norm_epsilon > 0, "layer_norm_epsilon must be positive", self.layer_norm_epsilon)

    @property
    def head_size(self) -> int:
        return self.hidden_size // self.num_heads


def _named(layers: int, hidden: int, heads: int, overrides: dict) -> EncoderSettings:
    sizes = {"num_layers": layers, "hidden_size": hidden, "num_heads": heads, "intermediate_size": 4 * hidden}
    return EncoderSettings(**(sizes | overrides))


def tiny(**overrides) -> EncoderSettings:
    """2 layers, 128 hidden, 2 heads: 4.4 M parameters with google's vocabulary."""
    return _named(2, 128, 2, overrides)


def mini(**overrides) -> EncoderSettings:
    """4 layers, 256 hidden, 4 heads."""
    return _named(4, 256, 4, overrides)


def small(**overrides) -> EncoderSettings:
    """4 layers, 512 hidden, 8 heads."""
    return _named(4, 512, 8, overrides)


def medium(**overrides) -> EncoderSettings:
    """8 layers, 512 hidden, 8 heads."""
    return _named(8, 512, 8, overrides)


def base(**overrides) -> EncoderSettings:
    """12 layers, 768 hidden, 12 heads: BERT-base, 109,482,240 parameters with the uncased vocabulary."""
    return _named(12, 768, 12, overrides)


def large(**overrides) -> EncoderSettings:
    """24 layers, 1024 hidden, 16 heads: BERT-large."""
    return _named(24, 1024, 16, overrides)


NAMED = {"tiny": tiny, "mini": mini, "small": small, "medium": medium, "base": base, "large": large}


Pooling = Literal["cls", "mean"]
Watched = Literal["accuracy", "macro_f1", "matthews", "cross_entropy"]


@dataclasses.dataclass(frozen=True)
class ClassificationSettings:
    """What the numbers of the head over the pooled output mean, and how its texts are made. Stored with the model.

    `labels` are by the number of the class. Kinds are `classification`, one label of a text; `multi-label`, any of
    them; and `regression`, a number, which has one label, its name. Others of Hugging Face are known by name, so that
    they are not taken for one of these.
    """

    labels: tuple[str, ...]
    kind: str = "classification"
    pair: bool | None = None  # whether it judges two texts together; None: it is not known
    max_seq_length: int | None = None  # tokens at which texts are cut; None: where the model ends
    long: Long = "cut"  # what is seen of a longer text
    pooling: Pooling = "cls"  # what the head stands on: the pooler's output, or the mean over the tokens
    temperature: float = 1.0  # by which the logits are divided before they become probabilities
    thresholds: tuple[float, ...] = ()  # of `multi-label`: from which probability each label is said; (): 0.5
    mean: float = 0.0  # of `regression`: the number is mean + scale * logit
    scale: float = 1.0

    def __post_init__(self):
        object.__setattr__(self, "labels", tuple(self.labels))
        object.__setattr__(self, "thresholds", tuple(self.thresholds))
        require(len(self.labels) > 0, "there must be labels", self.labels)
        require(all(isinstance(label, str) for label in self.labels), "labels must be text", self.labels)
        require(len(set(self.labels)) == len(self.labels), "labels must differ", self.labels)
        require(self.max_seq_length is None or self.max_seq_length >= 8, "max_seq_length must be at least 8",
                self.max_seq_length)  # fmt: skip
        require_one_of(Long, "long", self.long)
        require_one_of(Pooling, "pooling", self.pooling)
        require(self.temperature > 0, "temperature must be positive", self.temperature)
        rule = f"there must be a threshold, from 0 to 1, for each of the {len(self.labels)} labels"
        good = all(0 <= threshold <= 1 for threshold in self.thresholds)
        require(good and len(self.thresholds) in (0, len(self.labels)), rule, self.thresholds)
        require(self.kind != "regression" or len(self.labels) == 1, "a number has one name", self.labels)
        require(math.isfinite(self.mean) and 0 < self.scale < math.inf, "mean and scale must be finite, scale above 0",
                (self.mean, self.scale))  # fmt: skip

    head = "classifier"  # the encoder's attribute

    @property
    def size(self) -> int | None:
        """Number of labels of the head."""
        return len(self.labels)

    @property
    def meaning(self) -> tuple:
        """What the head's numbers stand for. A head whose numbers stand for something else is of no use."""
        return self.kind, self.labels, self.mean, self.scale, self.pooling


@dataclasses.dataclass(frozen=True)
class QuestionAnsweringSettings:
    """How a question and its context are cut into windows, and which spans are answers (run_squad's defaults). Stored
    with the model."""

    kind: str = "question-answering"
    max_seq_length: int = 384  # tokens of a window
    stride: int = 128  # tokens from one window's part of the context to the next one's
    max_question: int = 64  # tokens; more are cut off
    max_answer: int = 30  # tokens; longer spans are no answers
    # Where no answer scores better than the best answer by more than this, in nats, there is none. None: always one.
    no_answer_threshold: float | None = None

    def __post_init__(self):
        require(self.kind == "question-answering", "kind must be question-answering", self.kind)
        for name in ("stride", "max_question", "max_answer"):
            require(getattr(self, name) > 0, f"{name} must be positive", getattr(self, name))
        require(self.max_seq_length >= 8, "max_seq_length must be at least 8", self.max_seq_length)
        threshold = self.no_answer_threshold
        require(threshold is None or math.isfinite(threshold), "no_answer_threshold must be a finite number", threshold)

    head = "span"

    @property
    def size(self) -> int | None:
        return None

    @property
    def meaning(self) -> tuple:
        return (self.kind,)


@dataclasses.dataclass(frozen=True)
class TaggingSettings:
    """What a tagger's numbers mean, and how its texts are made. Stored with the model. `labels` are the tags by number;
    where they are `O` and tags like `B-PER`, they mark entities (`preprocessing.tags`)."""

    labels: tuple[str, ...]
    kind: str = "tagging"
    max_seq_length: int | None = None  # tokens of a window; None: as many as the model has positions
    temperature: float = 1.0  # by which the logits are divided before they become probabilities

    def __post_init__(self):
        object.__setattr__(self, "labels", tuple(self.labels))
        require(len(self.labels) > 1, "there must be two tags at least", self.labels)
        require(all(isinstance(label, str) and label for label in self.labels), "tags must be text", self.labels)
        require(len(set(self.labels)) == len(self.labels), "tags must differ", self.labels)
        require(self.max_seq_length is None or self.max_seq_length >= 8, "max_seq_length must be at least 8",
                self.max_seq_length)  # fmt: skip
        require(self.temperature > 0, "temperature must be positive", self.temperature)

    head = "tagger"

    @property
    def size(self) -> int | None:
        return len(self.labels)

    @property
    def meaning(self) -> tuple:
        return self.kind, self.labels


@dataclasses.dataclass(frozen=True)
class SimilaritySettings:
    """How a text becomes a vector, so that two texts are as like as the cosine of theirs says. Stored with the model,
    which has no head."""

    kind: str = "similarity"
    pooling: Pooling = "mean"  # of the last layer: the mean over the tokens, or the first one, [CLS], without a pooler
    max_seq_length: int | None = None  # tokens at which texts are cut; None: where the model ends
    least: float = 0.0  # the scores that the cosines 0 and 1 stand for
    most: float = 1.0

    def __post_init__(self):
        require(self.kind == "similarity", "kind must be similarity", self.kind)
        require_one_of(Pooling, "pooling", self.pooling)
        require(self.max_seq_length is None or self.max_seq_length >= 8, "max_seq_length must be at least 8",
                self.max_seq_length)  # fmt: skip
        require(-math.inf < self.least < self.most < math.inf, "least and most must be finite, most the greater",
                (self.least, self.most))  # fmt: skip

    head = None

    @property
    def size(self) -> int | None:
        return None

    @property
    def meaning(self) -> tuple:
        return (self.kind,)


# What is stored with a fine-tuned model, by the kind that stands in it. A kind that is not known here is a classifier's
# of Hugging Face.
TaskSettings = ClassificationSettings | SimilaritySettings | TaggingSettings | QuestionAnsweringSettings
TASK_SETTINGS: dict[str, type[TaskSettings]] = {
    "classification": ClassificationSettings,
    "similarity": SimilaritySettings,
    "tagging": TaggingSettings,
    "question-answering": QuestionAnsweringSettings,
}


OptimizerName = Literal["adamw", "lamb", "sgd"]
Schedule = Literal["linear", "polynomial", "one-cycle", "constant"]
Precision = Literal["float32", "bfloat16", "float16"]
# All weights; those of pooler and heads alone; or with them low-rank adapters of query and value (Hu et al. 2021, arXiv
# 2106.09685), or the biases (Ben Zaken et al. 2021, arXiv 2106.10199).
Tune = Literal["all", "head", "lora", "bias"]
InitialWeights = Literal["random", "informed"]


@dataclasses.dataclass(frozen=True)
class Phase:
    """A stretch of a run with examples of one length, for example 90 % of the steps at 128 and the rest at 512."""

    steps: int
    max_seq_length: int | None = None  # None: that of the examples
    batch_size: int | None = None  # None: the run's

    def __post_init__(self):
        for name in ("steps", "max_seq_length", "batch_size"):
            value = getattr(self, name)
            require(value is None or value > 0, f"a phase's {name} must be positive", value)


@dataclasses.dataclass(frozen=True)
class TrainingSettings:
    """Pretraining with masked tokens and next sentences; defaults are google-research/bert's but for size and time
    (its base model: batch 256, 1,000,000 steps, 10,000 of them warm-up)."""

    steps: int = 1000
    batch_size: int = 32  # examples an update, over all devices
    accumulate: int = (
        1  # cut each batch into so many parts, one after the other: less memory, same result but for dropout's choice
    )
    recompute: bool = False  # each layer's inner values in the backward pass: less memory, more time, same result
    phases: tuple[
        Phase, ...
    ] = ()  # in order, `steps` in all; each takes the example files of its length. (): one phase
    buckets: tuple[int, ...] = ()  # lengths to which batches are cut; examples of like length then stand together
    next_sentence: bool = True  # of pretraining: whether its next-sentence loss counts; other tasks do not ask

    initial_weights: InitialWeights = "random"  # of fresh ones: `model.training.fresh` says what informed ones know
    optimizer: OptimizerName = "adamw"
    learning_rate: float = 1e-4
    warmup_steps: int | None = None  # None: a tenth of `steps`
    # After warm-up, from `learning_rate` down to `end_learning_rate` at the last step: counted from step 0, as google
    # does, so that a long warm-up ends with a fall, or (`one-cycle`) from the end of warm-up.
    schedule: Schedule = "linear"
    schedule_power: float = 1.0  # of the polynomial
    end_learning_rate: float = 0.0
    weight_decay: float = 0.01  # of matrices; biases and LayerNorm have none
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-6
    bias_correction: bool = False  # google's optimizer has none: early steps are larger, so warm up long or correct
    clip_norm: float = 1.0  # of all gradients together; 0 = no clipping
    layer_decay: float = 1.0  # learning rate of each layer as a share of that of the layer above
    head_rate: float = 1.0  # learning rate of what stands on the layers, pooler and heads, as a multiple of theirs
    tune: Tune = "all"  # which weights are trained
    lora_rank: int = 8  # of the adapters that tune lora trains
    lora_alpha: float = 16.0  # what they add is multiplied by lora_alpha / lora_rank, so that a rate suits any rank
    freeze: int = 0  # so many layers from below, and the embeddings, are not trained; 0: all are

    precision: Precision = "float32"
    xla: bool | None = None  # None: on GPUs, where all batches of a phase have one shape (`compiled`)
    gpus: int | None = None  # None: all there are; 0: none
    seed: int = 12345

    steps_per_call: int = 20  # steps that run without returning to Python
    report_every: int = 20  # steps
    evaluate_every: int | None = None  # steps; None: ten times a run
    evaluation_examples: int | None = 1024  # at most, while training; the last evaluation takes all. None: all
    patience: int | None = None  # evaluations without a better watched figure that end a run; None: it runs all steps
    checkpoint_every: int | None = None  # steps; None: ten times a run
    keep_checkpoints: int = 2  # newest ones

    def __post_init__(self):
        # What was read from JSON: lists, and phases as objects.
        phases = tuple(phase if isinstance(phase, Phase) else Phase(**phase) for phase in self.phases)
        object.__setattr__(self, "phases", phases)
        object.__setattr__(self, "buckets", tuple(self.buckets))
        require(
            not phases or sum(phase.steps for phase in phases) == self.steps,
            f"the phases' steps must add up to steps ({self.steps})",
            [phase.steps for phase in phases],
        )
        require(
            all(0 < a < b for a, b in zip(self.buckets, self.buckets[1:], strict=False))
            and min(self.buckets, default=1) > 0,
            "buckets must be positive and ascending",
            self.buckets,
        )
        for name in ("steps", "batch_size", "accumulate", "steps_per_call", "report_every", "keep_checkpoints"):
            require(getattr(self, name) > 0, f"{name} must be positive", getattr(self, name))
        require(self.lora_rank > 0, "lora_rank must be positive", self.lora_rank)
        for name in ("evaluate_every", "evaluation_examples", "patience", "checkpoint_every"):
            value = getattr(self, name)
            require(value is None or value > 0, f"{name} must be positive", value)
        for size in (self.batch_size, *(phase.batch_size or self.batch_size for phase in phases)):
            require(
                size % self.accumulate == 0, f"batch_size must be a multiple of accumulate ({self.accumulate})", size
            )
        named = {
            "initial_weights": InitialWeights,
            "optimizer": OptimizerName,
            "schedule": Schedule,
            "precision": Precision,
            "tune": Tune,
        }
        for name, choices in named.items():
            require_one_of(choices, name, getattr(self, name))
        require(self.learning_rate > 0, "learning_rate must be positive", self.learning_rate)
        require(
            0 <= self.end_learning_rate <= self.learning_rate,
            f"end_learning_rate must be between 0 and learning_rate ({self.learning_rate})",
            self.end_learning_rate,
        )
        require(
            self.warmup_steps is None or 0 <= self.warmup_steps < self.steps,
            f"warmup_steps must be at least 0 and less than steps ({self.steps})",
            self.warmup_steps,
        )
        require(
            self.schedule_power == 1 or self.schedule == "polynomial",
            "schedule_power needs schedule polynomial",
            self.schedule_power,
        )
        for name in ("schedule_power", "epsilon", "layer_decay", "head_rate", "lora_alpha"):
            require(getattr(self, name) > 0, f"{name} must be positive", getattr(self, name))
        for name in ("weight_decay", "clip_norm", "freeze"):
            require(getattr(self, name) >= 0, f"{name} must be 0 or more", getattr(self, name))
        for name in ("beta_1", "beta_2"):
            require(0 <= getattr(self, name) < 1, f"{name} must be in [0, 1)", getattr(self, name))
        require(self.gpus is None or self.gpus >= 0, "gpus must be 0 or more", self.gpus)
        require(0 <= self.seed < 2**31, "seed must be 0 or more and less than 2**31", self.seed)

    @property
    def warmup(self) -> int:
        """Steps of warm-up."""
        return self.steps // 10 if self.warmup_steps is None else self.warmup_steps

    def compiled(self, on_gpus: bool) -> bool:
        """Whether XLA compiles a step: each shape anew, so with buckets a short training ends before it has begun."""
        return on_gpus and not self.buckets if self.xla is None else self.xla

    @property
    def dtype_policy(self) -> str:
        """Keras's name of the precision."""
        return self.precision if self.precision == "float32" else f"mixed_{self.precision}"
