"""An encoder over weights stored, and multiplied, as an export asks for."""

import functools
import hashlib
import math

import keras
import numpy as np
import tensorflow as tf

from model.encoder import BertEncoder
from preprocessing.features import INPUT_IDS
from serving.settings import ExportSettings
from serving.signatures import int8, parts
from serving.signatures.forward import forward

# Variables that are stored, by path and a digest of their values.
Pool = dict[tuple[str, bytes], tf.Variable]


class StoredEncoder:
    """Calls like BertEncoder, without dropout: eagerly it is that encoder, in a graph `forward.forward`. `variables`
    are the tf.Variables it reads, and nothing else; `parameters` is how many numbers the encoder has.

    Matrices may be stored as bfloat16; LayerNorm's and the biases' vectors stay float32, and so do logits, softmax and
    LayerNorm's arithmetic (see BertEncoder). As int8 are stored, and multiplied, those of the layers, and the word
    embedding; eagerly it then is `forward.forward`, too, with the same numbers multiplied otherwise.

    Encoders of one `pool` share each variable whose values are the same to the last bit; `own` are those of `variables`
    that this one has brought.
    """

    def __init__(self, encoder: BertEncoder, settings: ExportSettings, pool: Pool | None = None):
        if settings.compute == "bfloat16":
            encoder = _copy(encoder, "mixed_bfloat16")
        self.settings, self.heads = encoder.settings, encoder.heads
        self._encoder, self._weights, self._pool = encoder, settings.weights, pool
        self.own: list[tf.Variable] = []
        self.variables: list[tf.Variable] = []
        self.parameters = sum(math.prod(variable.shape) for variable in encoder.variables)
        number = parts.count(settings.parts, encoder.settings.num_heads, encoder.settings.intermediate_size)
        # As float32 a matrix is stored as it is, and of bfloat16 TensorFlow makes product and exact GELU one operation.
        folded = settings.weights == "int8" and encoder.settings.activation == "gelu"
        self._layers = [
            [*parts.cut(layer, number, self._matrix, self._variable, folded)] for layer in encoder.transformer_layers
        ]
        self._table: int8.Table | None = None
        elsewhere = {id(getattr(layer, name)) for layer in encoder.transformer_layers for name in parts.NAMES}
        if settings.weights == "int8":
            word = encoder.embeddings.word
            self._table = int8.Table(word, functools.partial(self._variable, word.path))
            elsewhere.add(id(word))
        # By the id of the Keras variable, where it is not its own.
        self._stored: dict[int, tf.Variable] = {}
        for variable in encoder.variables:
            if id(variable) not in elsewhere:
                rounded = settings.weights == "bfloat16" and len(variable.shape) > 1
                stored = self._variable(variable.path, variable.numpy(), None if rounded else variable.value)
                if stored is not variable.value:
                    self._stored[id(variable)] = stored

    def _matrix(self, name: str, values: np.ndarray) -> parts.Matrix:
        store = functools.partial(self._variable, name)
        return int8.Kernel(values, store) if self._weights == "int8" else parts.Dense(store(values))

    def _variable(self, name: str, values: np.ndarray, known: tf.Variable | None = None) -> tf.Variable:
        """One of these values, `known` if it has them: another encoder's, where the pool has it."""
        rounded = self._weights == "bfloat16" and values.ndim > 1
        made = tf.Variable(tf.cast(values, tf.bfloat16) if rounded else values) if known is None else known
        if self._pool is not None and (kept := self._pool.setdefault((name, _digest(values)), made)) is not made:
            self.variables.append(kept)
            return kept
        self.variables.append(made)
        self.own.append(made)
        return made

    def __call__(self, inputs, only=None, **asked):
        word = self._stored.get(id(self._encoder.embeddings.word))
        # Rows are looked up before they are widened: widening the whole table would cost more than the encoder.
        words = None if word is None else tf.gather(word, inputs[INPUT_IDS])
        if self._table is not None:
            words = self._table.lookup(inputs[INPUT_IDS])
        with self._scope():
            if self._weights == "int8" or not tf.executing_eagerly():
                return forward(self._encoder, inputs, self._layers, words=words, only=only, **asked)
            outputs = self._encoder(inputs, words=words, **asked)
            if only is None:
                return outputs
            tokens = tf.reshape(outputs["sequence_output"], [-1, self.settings.hidden_size])
            return {"sequence_output": tf.gather(tokens, only)}

    def pooler(self, first_tokens):
        with self._scope():
            return self._encoder.pooler(first_tokens)

    @property
    def masked_lm(self):
        head = self._encoder.masked_lm
        if head is None:
            return None

        def table():
            return self._table.whole() if self._table else self._stored.get(id(self._encoder.embeddings.word))

        def logits(sequence_output, positions):
            with self._scope():
                return head(sequence_output, positions, table=table())

        return logits

    @property
    def next_sentence(self):
        return self._of_states(self._encoder.next_sentence)

    @property
    def classifier(self):
        return self._of_states(self._encoder.classifier)

    @property
    def tagger(self):
        return self._of_states(self._encoder.tagger)

    @property
    def span(self):
        return self._of_states(self._encoder.span)

    def _of_states(self, head):
        if head is None:
            return None

        def logits(states):
            with self._scope():
                return head(states)

        return logits

    def _scope(self):
        """Within it, the Keras variables have the stored values."""
        scope = keras.StatelessScope()
        if self._weights == "bfloat16" and tf.executing_eagerly():  # what the parts are of
            cut = (getattr(layer, name) for layer in self._encoder.transformer_layers for name in parts.NAMES)
            matrices = (variable for variable in cut if len(variable.shape) > 1)
            scope.state_mapping |= {id(variable): tf.cast(variable.value, tf.bfloat16) for variable in matrices}
        for variable in self._encoder.variables:
            if (stored := self._stored.get(id(variable))) is not None:
                # Kernels are cast where they are multiplied; embeddings are added up as float32.
                added = any(variable is table for table in self._encoder.embeddings.weights)
                scope.state_mapping[id(variable)] = tf.cast(stored, tf.float32) if added else stored.value()
        return scope


def _digest(values: np.ndarray) -> bytes:
    return hashlib.sha256(values.tobytes()).digest()


def _copy(encoder: BertEncoder, dtype: str) -> BertEncoder:
    copy = BertEncoder(encoder.settings, encoder.described_heads, dtype=dtype)
    for target, source in zip(copy.variables, encoder.variables, strict=True):
        target.assign(source)
    return copy
