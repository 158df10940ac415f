"""What all signatures share: what one of them says of itself, and the encoder with its tokenizer that they answer with.

Texts are UTF-8; invalid bytes count for nothing. A text without tokens is `[CLS] [SEP]`.

Shapes: B batch, L length of the padded batch, H hidden, N heads.
"""

import copy
import dataclasses
import functools
import string
from collections.abc import Callable, Mapping, Sequence

import tensorflow as tf

from model.encoder import BertEncoder
from model.encoder.heads import CLASSIFIER, SPAN, Head
from model.settings import ClassificationSettings, QuestionAnsweringSettings, SimilaritySettings, TaskSettings
from preprocessing.errors import InputError, require
from preprocessing.tokenizer import BertTokenizer
from serving.settings import ExportSettings
from serving.signatures import packing
from serving.signatures.stored_encoder import Pool, StoredEncoder

# Inputs. The SECOND beside a TEXT may be empty; all others are needed.
TEXT = tf.TensorSpec([None], tf.string, name="text")
FIRST = tf.TensorSpec([None], tf.string, name="first")
SECOND = tf.TensorSpec([None], tf.string, name="second")

GOLDEN_TEXTS = (
    "Paris is the capital of France.",
    "",
    " \t\n",
    "[CLS] [SEP] [PAD]",
    "Zoë's naïve café, 東京 und Übergröße: 1,234.5 % of unbelievable internationalization; isn't it? ",
)
GOLDEN_SECOND = "It lies on the Seine."

PRETRAINING = "pretraining"
Outputs = dict[str, tf.Tensor]
Inputs = dict[str, list]  # a request's columns, by name

# How near an output must come to the Python path's where matrices are multiplied as bfloat16, by the measures of
# `serving.export.golden`. Seen at most, in MiniLM, in random encoders, and in a small one of large weights: vectors
# 0.018, probabilities 0.027 (distributions as vectors 0.076), nats 0.007. Without their last layer they were off by
# 0.051 to 1.7 in vectors and, where heads say anything, by 0.11 in distributions and 0.38 in nats; by another pooling,
# by 1.07.
VECTORS = {"vectors": 0.05}
PROBABILITIES = {"numbers": 0.05}
DISTRIBUTIONS = {"numbers": 0.05, "vectors": 0.15}
NATS = {"numbers": 0.05}


class TextEncoder:
    """An encoder with its tokenizer, in the words that signatures are written in.

    Args:
        encoder: its heads decide which signatures there are.
        tokenizer: of the encoder's vocabulary.
        settings: see ExportSettings. Where a task says how vectors are made, and where texts are cut, that counts.
        task: what the numbers of the encoder's fine-tuned head mean; a classifier's are else LABEL_0 and so on, those
            of spans google's.
        pool: of several encoders that share their equal weights.

    Attributes: `task`, of an encoder with its head; `model` (the StoredEncoder), `tokenizer`, `settings`, `lengths`
    (that batches are padded to) and `vocab` (string [V]).
    """

    def __init__(
        self,
        encoder: BertEncoder,
        tokenizer: BertTokenizer,
        settings: ExportSettings,
        task: TaskSettings | None = None,
        pool: Pool | None = None,
    ):
        if tokenizer.vocab_size > encoder.settings.vocab_size:
            raise InputError(
                "the vocabulary must not be larger than the model's word embedding "
                f"({encoder.settings.vocab_size} rows). Received: {tokenizer.vocab_size} tokens"
            )
        self._heads = encoder.described_heads
        self.task = _task(self._heads, task)
        settings = _settings(settings, self.task)
        self.model = StoredEncoder(encoder, settings, pool)
        self.tokenizer = tokenizer
        self.settings = settings
        self.lengths = settings.padded_lengths(encoder.settings.max_positions)
        self.vocab = tf.constant(tokenizer.vocab)
        self.special = {name: getattr(tokenizer, name) for name in ("cls_id", "sep_id", "pad_id")}
        self._shared: dict[tuple, Callable] = {}

    @property
    def kind(self) -> str:
        """Of the task that it was trained for."""
        return PRETRAINING if self.task is None else self.task.kind

    def for_task(self, task: TaskSettings) -> "TextEncoder":
        """The same, whose graphs share its encoder's, with another meaning of the head's numbers."""
        other = copy.copy(self)
        other.task = _task(self._heads, task)
        return other

    def pack(self, text, **how) -> packing.Packed:
        """`how`: other `lengths`, or `head_tail`, as `serving.signatures.packing` has them."""
        return self.pack_rows(packing.rows(self.tokenizer.tokenize(text)), **how)

    def pack_rows(self, rows: packing.Rows, **how) -> packing.Packed:
        return packing.pack_single(rows, **self.special, **{"lengths": self.lengths, **how})

    def pack_pair(self, first, second, optional: bool, **how) -> packing.Packed:
        """With `optional`, an empty second text is none. `how` as for `pack`."""
        both = packing.rows(self.tokenizer.tokenize(tf.concat([first, second], 0)))
        a, b = packing.halves(both)
        return packing.pack_pair(a, b, optional=optional, **self.special, **{"lengths": self.lengths, **how})

    def encode(self, packed: packing.Packed, only=None, **asked) -> dict:
        """The encoder's outputs, with `only` as of `serving.signatures.forward`. Signatures that ask for the same ones
        share one function of the SavedModel."""

        def encode(features, *only):
            return self.model(features, *only, **asked)

        inputs = [packed.features] if only is None else [packed.features, only]
        if tf.executing_eagerly():
            return encode(*inputs)
        key = (len(inputs), *asked)
        if key not in self._shared:
            specs: list = [dict.fromkeys(packed.features, tf.TensorSpec([None, None], tf.int32))]
            specs += [tf.TensorSpec([None], tf.int64)] * (len(inputs) - 1)
            self._shared[key] = tf.function(encode, input_signature=specs, autograph=False)
        return self._shared[key](*inputs)

    def first(self, packed: packing.Packed):
        """The last layer's output at each row's first token, [B, H]."""
        batch, length = tf.unstack(tf.shape(packed.input_ids, tf.int64))
        return self.encode(packed, only=tf.range(batch) * length)["sequence_output"]

    def pooled(self, packed: packing.Packed):
        """The pooler's output, [B, H]."""
        return self.model.pooler(self.first(packed))

    def text_of(self, count: int) -> str:
        """A text of `count` tokens."""
        letters = set(string.ascii_lowercase)
        # "a" is one token, if [UNK]
        word = next((token for token in self.tokenizer.vocab if set(token) <= letters), "a")
        return " ".join([word] * count)


def _task(heads: Sequence[Head], task: TaskSettings | None) -> TaskSettings | None:
    sizes = {head.name: head.labels for head in heads}
    if task is None and (count := sizes.get(CLASSIFIER.name)):
        task = ClassificationSettings(tuple(f"LABEL_{number}" for number in range(count)))
    if task is None and SPAN.name in sizes:
        task = QuestionAnsweringSettings()
    if isinstance(task, SimilaritySettings):
        return task
    if task is None or task.head not in sizes:
        return None
    count = sizes[task.head]
    rule = f"the labels must be as many as those of the {task.head} ({count}); are they another model's?"
    require(task.size == count, rule, task.size)
    return task


def _settings(settings: ExportSettings, task: TaskSettings | None) -> ExportSettings:
    """Of a model of similarity vectors have the length 1: their inner product is the score."""
    if not isinstance(task, SimilaritySettings):
        return settings
    longest = min(settings.max_seq_length, task.max_seq_length or settings.max_seq_length)
    return dataclasses.replace(settings, embedding=task.pooling, unit_length=True, max_seq_length=longest)


def _always(encoder: TextEncoder) -> None:
    """For what every checkpoint can answer."""


def _some_texts(encoder: TextEncoder) -> list[Inputs]:
    return [{TEXT.name: list(GOLDEN_TEXTS)}]


def _long_text(encoder: TextEncoder, length: int) -> tuple[str, ...]:
    return (encoder.text_of(length - 2),)


@dataclasses.dataclass(frozen=True)
class Signature:
    """One signature of the SavedModel. The defaults are those of a signature that takes one text.

    Of its outputs axis 0 is the batch, and what a row gets does not depend on the rows beside it: padding is zero or
    empty, or told by `row_count`.
    """

    name: str
    inputs: tuple[tf.TensorSpec, ...]
    # (encoder, *inputs) to outputs by name; called eagerly it is the Python path that the export is compared with.
    answer: Callable[..., Outputs]
    # By output, those of VECTORS, PROBABILITIES and so on; None: rounding may change it altogether, it is not compared.
    # What is not named is compared exactly, or as far as any number in float32.
    rounded: Mapping[str, Mapping[str, float] | None]
    # Why a checkpoint cannot answer it, or None.
    missing: Callable[[TextEncoder], str | None] = _always
    # Requests that every export must answer as the Python path does.
    golden: Callable[[TextEncoder], Sequence[Inputs]] = _some_texts
    # One row, a value for each input, that is so many tokens long: what a server runs before a version takes requests.
    warm_up: Callable[[TextEncoder, int], tuple[str | bytes, ...]] = _long_text
    kind: str | None = None  # of the task that it answers, as TaskSettings have it, or PRETRAINING; None: of none
    often: bool = False  # asked so often that it is warmed up at all of the batch sizes
    # The int32 [B] output that says how many entries of axis 1 of the padded outputs are a row's own. Such answers can
    # be cut back to what they would be alone, so that a server may answer requests for them together.
    row_count: str | None = None
    # The same of those outputs, by name, whose entries another output counts.
    other_counts: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def function(self, encoder: TextEncoder) -> tf.types.experimental.PolymorphicFunction:
        """It in a graph."""
        answer = functools.partial(self.answer, encoder)
        return tf.function(answer, input_signature=self.inputs, autograph=False)

    def answered(self, encoder: TextEncoder, request: Inputs) -> Outputs:
        """The Python path's answer to a request."""
        return self.answer(encoder, *(tf.constant(request[spec.name], spec.dtype) for spec in self.inputs))
