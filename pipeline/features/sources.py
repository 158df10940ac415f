"""What makes vectors of texts: a checkpoint, or an exported model by the hidden states that it answers with.

Shapes: B batch, L length of the padded batch, H hidden, D numbers of a vector.
"""

import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import tensorflow as tf

from model import checkpoints
from model.checkpoints.names import POOLER, part_of
from pipeline.features.choices import LAST, Choice
from preprocessing.errors import InputError
from serving.client import Client
from serving.engine import versions
from serving.export import text_rules
from serving.export.exporting import REPORT
from serving.settings import ExportSettings, Pooling
from serving.signatures.base import TEXT, TextEncoder
from serving.signatures.sentences import pooled

STATES = "features_all"
# (a vector [B, D] by choice, bool [B]: which texts are cut)
Ask = Callable[[Sequence[str]], tuple[list[np.ndarray], np.ndarray]]


class Source(Protocol):
    """`settings`: what its texts and vectors are like where nothing else is asked for; `last`: the number of its last
    layer; `has_pooler`: whether the pooler's output can be had beside the hidden states."""

    settings: ExportSettings
    last: int
    hidden: int
    has_pooler: bool

    def ask(self, choices: Sequence[Choice]) -> Ask:
        """What answers batches of texts: all choices in one pass. Raises InputError for one that cannot be made."""


def opened(model: str, vocab: str | None, lower_case: bool | None, given: dict, tell: Callable[[str], None]) -> Source:
    """Of a checkpoint or an exported folder. `given`: what of ExportSettings is asked for. Raises InputError where it
    is neither, or does not fit what is given."""
    folder = pathlib.Path(model)
    if not (folder / "saved_model.pb").is_file():
        found = versions.on_disk(folder)
        folder = found[max(found)] if found else folder
    if not (folder / "saved_model.pb").is_file():
        return _Checkpoint(model, vocab, lower_case, given, tell)
    for name, value in (("--vocab", vocab), ("--cased", lower_case), ("--max-seq-length", given.get("max_seq_length"))):
        if value is not None:
            raise InputError(f"{folder}: texts are read as the export does. Received: {name}; take the checkpoint")
    return _Export(folder, given)


def chosen(layers: str | None, pooling: Pooling | None, source: Source) -> Choice:
    """What was asked for; of what was not, the model's own pooling, of its last layer."""
    own = source.settings.embedding
    own = "mean" if layers and own == "pooler" else own  # of which other layers have none
    return Choice.read(layers or LAST, pooling or own, source.settings.unit_length, source.last)


def _vector(choice: Choice, states: Sequence[tf.Tensor], mask: tf.Tensor, pooler: tf.Tensor | None) -> tf.Tensor:
    """float32 [B, D] of hidden states [B, L, H]."""
    if choice.pooling == "pooler":
        vector = tf.cast(pooler, tf.float32)
    else:
        of = [tf.cast(states[layer], tf.float32) for layer in choice.layers]
        tokens = tf.concat(of[::-1], -1) if choice.how == "concat" else tf.add_n(of)
        vector = pooled(tokens / len(of) if choice.how == "mean" else tokens, mask, choice.pooling)
    return tf.math.l2_normalize(vector, -1) if choice.unit_length else vector


class _Checkpoint:
    def __init__(self, model, vocab, lower_case, given, tell):
        read = checkpoints.read(model)
        tokenizer = text_rules.tokenizer_of(model, vocab, lower_case, tell)
        said = checkpoints.sentences(model)
        if said is None and "embedding" not in given:
            tell("the checkpoint does not say which vector it was trained for: the mean over the tokens")
        elif said is not None and not said.whole and "embedding" not in given:
            reasons = "; ".join(said.unlike) or "no pooling"
            raise InputError(
                f"{model}: its own vectors cannot be made; name a --pooling for others. Received: {reasons}"
            )
        self.settings = text_rules.settings_of(model, given, tell)
        self.last, self.hidden = read.settings.num_layers, read.settings.hidden_size
        self.has_pooler = any(part_of(name) == POOLER for name in read.arrays)
        self._model = model
        self._texts = TextEncoder(checkpoints.build(read, (), report=tell), tokenizer, self.settings)

    def ask(self, choices):
        texts = self._texts
        if not self.has_pooler and any(choice.pooling == "pooler" for choice in choices):
            raise InputError(f'{self._model}: has no pooler; take the pooling "mean"')

        # Layers above those that are chosen are pruned from the graph.
        @tf.function(input_signature=[TEXT], autograph=False)
        def answer(text):
            packed = texts.pack(text)
            outputs = texts.model(packed.features, hidden_states=True)
            states, pooler = outputs["hidden_states"], outputs["pooled_output"]
            return [_vector(choice, states, packed.input_mask, pooler) for choice in choices], packed.truncated

        def ask(batch):
            vectors, cut = answer(tf.constant(batch, tf.string))
            return [vector.numpy() for vector in vectors], cut.numpy()

        return ask


class _Export:
    has_pooler = False  # but as its own embedding

    def __init__(self, folder, given):
        self._folder, self._client = folder, Client(folder)
        description = folder / REPORT
        said = json.loads(description.read_text())["settings"] if description.is_file() else {}
        own = {name: said[name] for name in ("embedding", "unit_length") if name in said}
        self._own, self.settings = tuple(own.values()), ExportSettings(**(own | given))
        if STATES not in self._client.signatures():
            raise InputError(f"{folder}: has no signature {STATES}, of which vectors are made; take the checkpoint")
        _, layers, _, self.hidden = self._states([""])["features"].shape
        self.last = layers - 1

    def _states(self, batch):
        return self._client.predict(STATES, text=batch, second=[""] * len(batch))

    def ask(self, choices):
        own = all(
            ((choice.pooling, choice.unit_length), choice.layers) == (self._own, (self.last,)) for choice in choices
        )
        if not own and any(choice.pooling == "pooler" for choice in choices):
            raise InputError(
                f"{self._folder}: an export answers with its pooler only as its own embedding (--embedding pooler); "
                "take the checkpoint"
            )

        def ask(batch):
            if own:
                answers = self._client.predict("serving_default", text=batch)
                return [answers["embedding"]] * len(choices), answers["truncated"]
            answers = self._states(batch)
            states = tf.unstack(answers["features"], axis=1)
            return [_vector(choice, states, answers["mask"], None).numpy() for choice in choices], answers["truncated"]

        return ask
