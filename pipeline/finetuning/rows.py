"""Rows as tf.Examples, with all that their kind needs, so that they can be kept and asked again."""

import dataclasses
import json
import os
import types
import typing
from typing import Any

import tensorflow as tf

from pipeline.finetuning.kinds.kind import Kind

# Features: the whole row as JSON; its labels, as many as it has; about how long it is.
ROW, LABELS, SIZE = "row", "labels", "characters"


def encode(kind: Kind, row: Any) -> bytes:
    """A serialized tf.Example. The file is noted by its name alone, so that it may lie anywhere."""
    whole = json.dumps(values_of(row), ensure_ascii=False)
    labels = [label.encode() for label in kind.labels(row)]
    feature = {
        ROW: tf.train.Feature(bytes_list=tf.train.BytesList(value=[whole.encode()])),
        LABELS: tf.train.Feature(bytes_list=tf.train.BytesList(value=labels)),
        SIZE: tf.train.Feature(int64_list=tf.train.Int64List(value=[kind.size(row)])),
    }
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString(deterministic=True)


def values_of(row: Any) -> dict[str, Any]:
    """As JSON has them."""
    return dataclasses.asdict(row) | {"file": os.path.basename(row.file)}


def decode(kind: Kind, record: bytes) -> Any:
    """The row of a serialized tf.Example."""
    feature = tf.train.Example.FromString(record).features.feature[ROW]
    return of_values(kind, json.loads(feature.bytes_list.value[0]))


def of_values(kind: Kind, found: dict[str, Any]) -> Any:
    """The inverse of `values_of`."""
    return _built(kind.row(), found)


def _built(hint: Any, value: Any) -> Any:
    """What was of a type before it became JSON."""
    options = typing.get_args(hint)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        hints = typing.get_type_hints(hint)
        return hint(**{name: _built(hints[name], item) for name, item in value.items()})
    if typing.get_origin(hint) is tuple:
        return tuple(_built(options[0], item) for item in value)
    if typing.get_origin(hint) in (typing.Union, types.UnionType) and value is not None:
        return _built(next(option for option in options if option is not type(None)), value)
    return value
