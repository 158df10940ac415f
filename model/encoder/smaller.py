"""A smaller encoder of a larger one: some of its layers, and the embeddings of a part of its vocabulary."""

import dataclasses
from collections.abc import Sequence

import tensorflow as tf

from model.encoder.bert import BertEncoder
from preprocessing.errors import InputError, require


@dataclasses.dataclass(frozen=True)
class Kept:
    """What is kept of an encoder; None: all of it.

    Attributes:
        layers: their numbers, from 0, in the order that they get.
        tokens: their ids, ascending; a token's new id is its place here.
    """

    layers: Sequence[int] | None = None
    tokens: Sequence[int] | None = None

    def __post_init__(self):
        if self.tokens is not None:
            tokens = list(self.tokens)
            good = bool(tokens) and tokens == sorted(set(tokens)) and tokens[0] >= 0
            require(good, "tokens must be ids, ascending", tokens[:10])


WHOLE = Kept()


def smaller(encoder: BertEncoder, kept: Kept) -> BertEncoder:
    """The encoder with what is kept of it and with its heads, those over the vocabulary cut to its tokens; for ids that
    are kept it answers as before, where all layers are. Raises InputError for layers or tokens that it does not have.
    """
    if kept == WHOLE:
        return encoder
    known, vocabulary = encoder.settings.num_layers, encoder.settings.vocab_size
    layers = range(known) if kept.layers is None else kept.layers
    tokens = range(vocabulary) if kept.tokens is None else kept.tokens
    _check(layers, known)
    require(tokens[-1] < vocabulary, f"tokens must be of the model's {vocabulary} embeddings", tokens[-1])
    settings = dataclasses.replace(encoder.settings, num_layers=len(layers), vocab_size=len(tokens))
    small = BertEncoder(settings, encoder.described_heads, dtype=encoder.dtype_policy)
    sources: list = [encoder.embeddings, *(encoder.transformer_layers[layer] for layer in layers), encoder.pooler]
    targets: list = [small.embeddings, *small.transformer_layers, small.pooler]
    by_token = {id(encoder.embeddings.word)}
    for head in encoder.described_heads:
        source = getattr(encoder, head.name)
        sources.append(source)
        targets.append(getattr(small, head.name))
        by_token |= {id(getattr(source, array.attribute)) for array in head.arrays if array.axes[0] == "vocab_size"}
    for source, target in zip(sources, targets, strict=True):
        for value, weight in zip(source.weights, target.weights, strict=True):
            cut = kept.tokens is not None and id(value) in by_token
            weight.assign(tf.gather(value.value, tokens) if cut else value)
    return small


def layers_of(said: str, known: int, last: bool = True) -> list[int]:
    """The layers that `--layers` asks for, of so many: a number of them, as `spread` has them, or which ones."""
    numbers = said.split(",")
    if not all(number.isdecimal() for number in numbers):
        raise InputError(f"--layers must be a number, or numbers with commas between them. Received: {said!r}")
    if len(numbers) == 1:
        return spread(known, int(said), last)
    layers = [int(number) for number in numbers]
    _check(layers, known)
    return layers


def _check(layers: Sequence[int], known: int) -> None:
    good = bool(layers) and all(0 <= layer < known for layer in layers)
    require(good, f"layers must be of the checkpoint's, 0 to {known - 1}", list(layers))


def spread(known: int, wanted: int, last: bool = True) -> list[int]:
    """So many layers of those that there are, evenly from the first: 0, 3, 5 of six for three with the `last`, as which
    a model then ends (DistilBERT's choice); else 0, 2, 4, from which a task is learned better."""
    require(0 < wanted <= known, f"there must be from 1 to {known} layers, the checkpoint's", wanted)
    if not last:
        return [place * known // wanted for place in range(wanted)]
    gaps = max(wanted - 1, 1)
    return [(2 * place * (known - 1) + gaps) // (2 * gaps) for place in range(wanted)]
