"""An encoder over weights stored, and multiplied, as an export asks for."""

import hashlib

import keras
import tensorflow as tf

from model.encoder import BertEncoder
from preprocessing.features import INPUT_IDS
from serving.settings import ExportSettings
from serving.signatures.forward import forward

# Variables that are stored, by path and a digest of their values.
Pool = dict[tuple[str, bytes], tf.Variable]


class StoredEncoder:
    """Calls like BertEncoder, without dropout: eagerly it is that encoder, in a graph `forward.forward`. `variables`
    are the tf.Variables it reads, and nothing else.

    Matrices may be stored as bfloat16; LayerNorm's and the biases' vectors stay float32, and so do logits, softmax and
    LayerNorm's arithmetic (see BertEncoder).

    Encoders of one `pool` share each variable whose values are the same to the last bit; `own` are those of `variables`
    that this one has brought.
    """

    def __init__(self, encoder: BertEncoder, settings: ExportSettings, pool: Pool | None = None):
        if settings.compute == "bfloat16":
            encoder = _copy(encoder, "mixed_bfloat16")
        self.settings, self.heads = encoder.settings, encoder.heads
        self._encoder = encoder
        self._stored: dict[int, tf.Variable] = {}  # by the id of the Keras variable
        if settings.weights == "bfloat16":
            matrices = [variable for variable in encoder.variables if len(variable.shape) > 1]
            self._stored = {id(variable): tf.Variable(tf.cast(variable.value, tf.bfloat16)) for variable in matrices}
        self.own: list[tf.Variable] = []
        for variable in encoder.variables:
            mine = self._stored.get(id(variable), variable.value)
            key = variable.path, hashlib.sha256(variable.numpy().tobytes()).digest() if pool is not None else b""
            kept = mine if pool is None else pool.setdefault(key, mine)
            if kept is mine:
                self.own.append(mine)
            else:
                self._stored[id(variable)] = kept
        self.variables = [self._stored.get(id(variable), variable.value) for variable in encoder.variables]

    def __call__(self, inputs, only=None, **asked):
        word = self._stored.get(id(self._encoder.embeddings.word))
        # Rows are looked up before they are widened: widening the whole table would cost more than the encoder.
        words = None if word is None else tf.gather(word, inputs[INPUT_IDS])
        with self._scope():
            if not tf.executing_eagerly():
                return forward(self._encoder, inputs, words=words, only=only, **asked)
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

        def logits(sequence_output, positions):
            with self._scope():
                return head(sequence_output, positions, table=self._stored.get(id(self._encoder.embeddings.word)))

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
        for variable in self._encoder.variables:
            if (stored := self._stored.get(id(variable))) is not None:
                # Kernels are cast where they are multiplied; embeddings are added up as float32.
                added = any(variable is table for table in self._encoder.embeddings.weights)
                scope.state_mapping[id(variable)] = tf.cast(stored, tf.float32) if added else stored.value()
        return scope


def _copy(encoder: BertEncoder, dtype: str) -> BertEncoder:
    copy = BertEncoder(encoder.settings, encoder.described_heads, dtype=dtype)
    for target, source in zip(copy.variables, encoder.variables, strict=True):
        target.assign(source)
    return copy
