"""What every checkpoint format is read into and written from: arrays by name.

The common names and layouts are those of google-research/bert's checkpoints (206 arrays for BERT-base with both heads):
dense kernels are [in, out], query, key and value are apart, `cls/seq_relationship/output_weights` is [2, H].
"""

import dataclasses
import fnmatch
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

import keras
import numpy as np

from model.encoder import BertEncoder, heads
from model.settings import EncoderSettings

ENCODER, POOLER = "encoder", "pooler"
Value = TypeVar("Value")


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in memory; `arrays` are by google's names. `dropped` says what of it this model has no place for."""

    source: pathlib.Path
    settings: EncoderSettings
    arrays: Mapping[str, np.ndarray]
    dropped: Sequence[str] = ()

    @property
    def described_heads(self) -> tuple[heads.Head, ...]:
        """The heads of which there is any array."""
        found = (head.in_arrays(self.arrays) for head in heads.ALL_HEADS)
        return tuple(head for head in found if head is not None)


def part_of(name: str) -> str:
    """The part of the model (encoder, pooler or a head's name) that an array of google's name belongs to."""
    if name.startswith("bert/pooler/"):
        return POOLER
    owners = (head.name for head in heads.ALL_HEADS if name in {array.google for array in head.arrays})
    return next(owners, ENCODER)


def shapes(
    settings: EncoderSettings, described_heads: Sequence[heads.Head] = heads.PRETRAINING
) -> dict[str, tuple[int, ...]]:
    """Google's names and shapes of all arrays of a model with pooler and these heads."""
    hidden, inner = settings.hidden_size, settings.intermediate_size

    def dense(name, rows, columns):
        return {f"{name}/kernel": (rows, columns), f"{name}/bias": (columns,)}

    def norm(name):
        return {f"{name}/LayerNorm/gamma": (hidden,), f"{name}/LayerNorm/beta": (hidden,)}

    result = {
        "bert/embeddings/word_embeddings": (settings.vocab_size, hidden),
        "bert/embeddings/token_type_embeddings": (settings.type_vocab_size, hidden),
        "bert/embeddings/position_embeddings": (settings.max_positions, hidden),
        **norm("bert/embeddings"),
    }
    for i in range(settings.num_layers):
        layer = f"bert/encoder/layer_{i}"
        for name in ("query", "key", "value"):
            result |= dense(f"{layer}/attention/self/{name}", hidden, hidden)
        result |= dense(f"{layer}/attention/output/dense", hidden, hidden) | norm(f"{layer}/attention/output")
        result |= dense(f"{layer}/intermediate/dense", hidden, inner)
        result |= dense(f"{layer}/output/dense", inner, hidden) | norm(f"{layer}/output")
    result |= dense("bert/pooler/dense", hidden, hidden)
    for head in described_heads:
        result |= head.shapes(settings)
    return result


def variables(encoder: BertEncoder) -> Iterator[tuple[tuple[str, ...], keras.Variable]]:
    """(google's names, variable) of every weight; several names where the variable holds their arrays side by side."""
    embeddings = encoder.embeddings
    yield ("bert/embeddings/word_embeddings",), embeddings.word
    yield ("bert/embeddings/token_type_embeddings",), embeddings.segment
    yield ("bert/embeddings/position_embeddings",), embeddings.position
    yield ("bert/embeddings/LayerNorm/gamma",), embeddings.norm_scale
    yield ("bert/embeddings/LayerNorm/beta",), embeddings.norm_offset
    for i, layer in enumerate(encoder.transformer_layers):
        prefix = f"bert/encoder/layer_{i}"
        qkv = [f"{prefix}/attention/self/{name}" for name in ("query", "key", "value")]
        yield tuple(f"{name}/kernel" for name in qkv), layer.qkv_kernel
        yield tuple(f"{name}/bias" for name in qkv), layer.qkv_bias
        yield (f"{prefix}/attention/output/dense/kernel",), layer.attention_kernel
        yield (f"{prefix}/attention/output/dense/bias",), layer.attention_bias
        yield (f"{prefix}/attention/output/LayerNorm/gamma",), layer.attention_norm_scale
        yield (f"{prefix}/attention/output/LayerNorm/beta",), layer.attention_norm_offset
        yield (f"{prefix}/intermediate/dense/kernel",), layer.inner_kernel
        yield (f"{prefix}/intermediate/dense/bias",), layer.inner_bias
        yield (f"{prefix}/output/dense/kernel",), layer.output_kernel
        yield (f"{prefix}/output/dense/bias",), layer.output_bias
        yield (f"{prefix}/output/LayerNorm/gamma",), layer.output_norm_scale
        yield (f"{prefix}/output/LayerNorm/beta",), layer.output_norm_offset
    yield ("bert/pooler/dense/kernel",), encoder.pooler.kernel
    yield ("bert/pooler/dense/bias",), encoder.pooler.bias
    for head in encoder.described_heads:
        for array in head.arrays:
            yield (array.google,), getattr(getattr(encoder, head.name), array.attribute)


def arrays_of(encoder: BertEncoder) -> dict[str, np.ndarray]:
    """The encoder's weights as float32 arrays by google's names; what adapters add to a kernel is part of it."""
    kernels = {id(layer.qkv_kernel): layer.adapted_kernel for layer in encoder.transformer_layers if layer.adapters}
    result = {}
    for names, variable in variables(encoder):
        value = kernels.get(id(variable), variable).numpy()
        for name, array in zip(names, np.split(value, len(names), axis=-1), strict=True):
            result[name] = np.ascontiguousarray(array, np.float32)
    return result


def assign(encoder: BertEncoder, arrays: Mapping[str, np.ndarray]) -> None:
    """Gives the encoder's variables the arrays' values; variables whose arrays are absent keep theirs."""
    for names, variable in variables(encoder):
        if names[0] in arrays:
            parts = [np.asarray(arrays[name], np.float32) for name in names]
            variable.assign(parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1))


def without(arrays: Mapping[str, Value], ignore: Sequence[str]) -> dict[str, Value]:
    """The arrays whose names no pattern matches."""
    return {n: array for n, array in arrays.items() if not any(fnmatch.fnmatchcase(n, p) for p in ignore)}
