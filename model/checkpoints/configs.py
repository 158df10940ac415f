"""Settings of an encoder in the configuration files of each format."""

import contextlib
import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from model.settings import EncoderSettings
from preprocessing.errors import InputError, require

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


def read_json(path: pathlib.Path, kind: type = dict) -> Any:
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(value, kind):
        wanted = "object" if kind is dict else kind.__name__
        raise InputError(f"{path}: must hold a JSON {wanted}. Received: {type(value).__name__}")
    return value


def write_json(path: pathlib.Path, value: Mapping) -> None:
    write_whole(path, json.dumps(value, indent=2) + "\n")


def write_whole(path: pathlib.Path, text: str) -> None:
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
