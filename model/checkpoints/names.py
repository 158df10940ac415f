"""What every checkpoint format is read into and written from: settings, named arrays, vocabulary.

The common names and layouts are those of google-research/bert's checkpoints (206 arrays for BERT-base with both heads):
dense kernels are [in, out], query, key and value are apart, `cls/seq_relationship/output_weights` is [2, H].
"""

import contextlib
import dataclasses
import fnmatch
import json
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import keras
import numpy as np

from model.checkpoints.tokenizer_files import CheckpointTokenizer, infer_lower_case
from model.encoder import BertEncoder, heads
from model.settings import EncoderSettings
from preprocessing.errors import InputError, require
from preprocessing.features import INPUT_IDS, INPUT_MASK, SEGMENT_IDS
from preprocessing.vocab_file import with_usual_names

ENCODER, POOLER = "encoder", "pooler"
VOCAB = "vocab.txt"
Value = TypeVar("Value")

# Our setting -> the name that google's bert_config.json and Hugging Face's config.json share.
CONFIG_NAMES = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "intermediate_size": "intermediate_size",
    "max_positions": "max_position_embeddings",
    "type_vocab_size": "type_vocab_size",
    "dropout": "hidden_dropout_prob",
    "attention_dropout": "attention_probs_dropout_prob",
    "initializer_range": "initializer_range",
    "layer_norm_epsilon": "layer_norm_eps",
}


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
    """The encoder's weights as float32 arrays by google's names."""
    result = {}
    for names, variable in variables(encoder):
        value = variable.numpy()
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


def random_inputs(settings: EncoderSettings) -> dict[str, np.ndarray]:
    """A batch of two examples of random ids and segments, the second padded."""
    random, length = np.random.default_rng(0), min(settings.max_positions, 32)
    return {
        INPUT_IDS: random.integers(settings.vocab_size, size=(2, length), dtype=np.int32),
        INPUT_MASK: (np.arange(length) < [[length], [length // 2 + 1]]).astype(np.int32),
        SEGMENT_IDS: random.integers(settings.type_vocab_size, size=(2, length), dtype=np.int32),
    }


def difference(a: np.ndarray, b: np.ndarray) -> float:
    """The largest absolute difference; infinite where one alone is not a number."""
    with np.errstate(invalid="ignore"):
        gaps = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0, np.abs(a - b))
    return float(np.max(np.where(np.isnan(gaps), np.inf, gaps)))


def read_json(path: pathlib.Path) -> dict:
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise InputError(f"{path}: must hold a JSON object. Received: {type(value).__name__}")
    return value


def write_json(path: pathlib.Path, value: Mapping) -> None:
    _write_whole(path, json.dumps(value, indent=2) + "\n")


def _write_whole(path: pathlib.Path, text: str) -> None:
    """Under a temporary name first: the file is whole or absent."""
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(text.encode("utf-8"))
    partial.replace(path)


def settings_from(path: pathlib.Path, config: Mapping, activation: str) -> EncoderSettings:
    """Settings from a config with google's names; absent entries keep their defaults, except the sizes."""
    values: dict[str, Any] = {"activation": activation}
    for ours, theirs in CONFIG_NAMES.items():
        value = config.get(theirs)
        if value is None and ours in ("vocab_size", "hidden_size", "num_layers", "num_heads", "intermediate_size"):
            raise InputError(f"{path}: {theirs} is missing")
        if value is not None:
            values[ours] = _number(value)
    return _settings(path, values, CONFIG_NAMES)


def settings_in(path: pathlib.Path) -> EncoderSettings:
    """The EncoderSettings in a JSON file: our config.json, or one that holds nothing else."""
    config = read_json(path)
    return _settings(path, config.get("encoder", config), {})


def _settings(path: pathlib.Path, values: object, names: Mapping[str, str]) -> EncoderSettings:
    if not isinstance(values, dict):
        raise InputError(f"{path}: the settings must be a JSON object. Received: {values!r}")
    for field in dataclasses.fields(EncoderSettings):
        if field.type in (int, float) and field.name in values:
            value, rule = values[field.name], "a whole number" if field.type is int else "a number"
            fits = type(value) is int or type(value) is field.type
            require(fits, f"{path}: {names.get(field.name, field.name)} must be {rule}", value)
    try:
        return EncoderSettings(**values)
    except (TypeError, InputError) as error:
        raise InputError(f"{path}: {error}".replace("EncoderSettings.__init__() ", "")) from error


def _number(value: object) -> object:
    """The number in a string, as some writers of JSON leave it: `1e-12` is one to YAML."""
    if isinstance(value, str):
        for kind in (int, float):
            with contextlib.suppress(ValueError):
                return kind(value)
    return value


def config_of(settings: EncoderSettings) -> dict:
    return {theirs: getattr(settings, ours) for ours, theirs in CONFIG_NAMES.items()}


def read_vocab(path: pathlib.Path) -> list[str]:
    """Tokens of a vocab.txt, one per line; only newline ends a line. A byte order mark, Windows line ends and blank
    lines at the end are read over."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as UTF-8 text: {error}") from error
    return text.rstrip("\r\n").replace("\r\n", "\n").split("\n")


def tokens_of(vocab: str | os.PathLike | Sequence[str] | None, vocab_size: int) -> list[str] | None:
    """The tokens of a vocabulary given as a file or as tokens, none more than the model has embeddings."""
    if vocab is None:
        return None
    tokens = read_vocab(pathlib.Path(vocab)) if isinstance(vocab, str | os.PathLike) else list(vocab)
    tokens = with_usual_names(tokens)
    if len(tokens) > vocab_size:
        rule = f"the vocabulary must not have more tokens than the model has embeddings ({vocab_size})"
        raise InputError(f"{rule}. Received: {len(tokens)}")
    return tokens


def write_vocab(folder: pathlib.Path, tokens: Sequence[str] | None) -> None:
    if tokens is not None:
        _write_whole(folder / VOCAB, "".join(f"{token}\n" for token in tokens))


def vocab_in(folder: pathlib.Path) -> pathlib.Path | None:
    """The vocab.txt of a folder, or None."""
    path = folder / VOCAB
    return path if path.is_file() else None


def tokenizer_of(vocab_file: pathlib.Path | None, lower_case: object, config: Mapping) -> CheckpointTokenizer:
    """Of a vocabulary file, with `lower_case` where a configuration states it, else as the vocabulary tells."""
    tokens = with_usual_names(read_vocab(vocab_file)) if vocab_file else None
    lower_case = lower_case if isinstance(lower_case, bool) else infer_lower_case(tokens)
    return CheckpointTokenizer(tokens, lower_case).with_stated(config)
