"""Values of settings from JSON: of the right type, or a line that says which is not."""

import dataclasses
import json
import math
import types
import typing
from typing import Any

from preprocessing.errors import InputError, require

# Beam in this process.
BEAM_ARGS = (
    "--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner",
    "--direct_running_mode=in_memory",
    # Of no use here, but without it TFX packs itself anew for each step and leaves 40 MB in the temporary folder.
    "--sdk_container_image=unused",
)


def read(text: str, **kinds: Any) -> types.SimpleNamespace:
    """The parts of settings that one step is given, by name; a step that reads its own parts depends on no other."""
    values = json.loads(text)
    return types.SimpleNamespace(**{name: _value(values[name], kind, name) for name, kind in kinds.items()})


def build(cls: type, values: Any, where: str) -> Any:
    """A settings object of a JSON object; what is left out has its default. Raises InputError that says `where`."""
    if not isinstance(values, dict):
        raise InputError(f"{where} must be a JSON object. Received: {values!r}")
    fields = {field.name: field for field in dataclasses.fields(cls)}
    hints = typing.get_type_hints(cls)
    unknown = sorted(set(values) - set(fields))
    if unknown:
        raise InputError(f"{where} has no setting {unknown[0]!r}. There are: {', '.join(fields)}")
    return cls(**{name: _value(value, hints[name], f"{where}.{name}") for name, value in values.items()})


def _value(value: Any, hint: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return build(typing.cast(type, hint), value, where)
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if origin is dict and isinstance(value, dict):
        return {name: _value(item, options[1], f"{where}.{name}") for name, item in value.items()}
    if isinstance(value, list):
        value = tuple(value)
        if origin is tuple and dataclasses.is_dataclass(options[0]):
            return tuple(_value(item, options[0], f"{where}[{number}]") for number, item in enumerate(value))
    elif hint is int and isinstance(value, float) and value.is_integer():
        value = int(value)  # 2e4
    wanted = str(hint) if options else hint.__name__
    require(_fits(value, hint), f"{where} must be of type {wanted}", value)
    return value


def _fits(value: Any, hint: Any) -> bool:
    options = typing.get_args(hint)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if typing.get_origin(hint) is typing.Literal:
        return value in options
    if typing.get_origin(hint) is dict:
        return isinstance(value, dict)
    if typing.get_origin(hint) is tuple:
        return isinstance(value, tuple) and all(_fits(item, options[0]) for item in value)
    if options:
        return any(_fits(value, option) for option in options)
    if dataclasses.is_dataclass(hint):
        return isinstance(value, dict | hint)  # type: ignore[operator]
    return isinstance(value, hint)
