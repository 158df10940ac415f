"""Files of masked examples: finding, reading and checking them. Every fault names the file and the example."""

import os
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from preprocessing import features
from preprocessing.errors import InputError

CHUNK = 2048  # examples read and parsed at once


def find_files(pattern: str) -> list[str]:
    """Example files of a folder (names that contain `tfrecord`) or of a glob, sorted. InputError when there is none."""
    gfile = tf.io.gfile
    if gfile.isdir(pattern):
        found = [os.path.join(pattern, name) for name in gfile.listdir(pattern) if "tfrecord" in name]
    else:
        found = gfile.glob(pattern)
    found = sorted(path for path in found if not gfile.isdir(path))
    if not found:
        raise InputError(f"{pattern}: no example files here; `bert examples` writes them. Received: no match")
    return found


def feature_spec(max_seq_length: int, max_predictions: int) -> dict[str, tf.io.FixedLenFeature]:
    """What `tf.io.parse_example` needs to read an example."""
    return {
        name: tf.io.FixedLenFeature([length], tf.float32 if name == features.MASKED_LM_WEIGHTS else tf.int64)
        for name, length in features.lengths(max_seq_length, max_predictions).items()
    }


def lengths(file: str) -> tuple[int, int] | None:
    """(max_seq_length, max_predictions) of the first example of a file, None when there is none."""
    record = next(_records(file), None)
    if record is None:
        return None
    try:
        example = tf.train.Example.FromString(record).features.feature
    except Exception as error:  # protobuf's DecodeError differs between its implementations
        raise InputError(f"{file}: not a file of tf.Example records. Received: {error}") from error
    missing = [name for name in features.ALL_FEATURES if name not in example]
    if missing:
        raise InputError(f"{file}: an example must have the features of `bert examples`. Missing: {', '.join(missing)}")
    return len(example[features.INPUT_IDS].int64_list.value), len(example[features.MASKED_LM_IDS].int64_list.value)


def compression(file: str) -> str:
    """As TensorFlow names it, by the file's first bytes."""
    with tf.io.gfile.GFile(file, "rb") as stream:
        return "GZIP" if stream.read(2) == b"\x1f\x8b" else ""


def _records(file: str) -> Iterator[bytes]:
    """Serialized records of a file. InputError where it breaks off."""
    number = 0
    try:
        for record in tf.data.TFRecordDataset(file, compression(file)).as_numpy_iterator():
            yield record
            number += 1
    except tf.errors.OpError as error:
        raise _broken(file, number, error) from error


def chunks(file: str, spec) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """(number of the first example, arrays of up to CHUNK examples) through a file."""
    number = 0
    # A record that breaks off must not hide the ones before it, so parsing errors and reading errors are told apart.
    batches = tf.data.TFRecordDataset(file, compression(file)).batch(CHUNK).prefetch(1)
    try:
        for serialized in batches:
            try:
                parsed = tf.io.parse_example(serialized, spec)
            except tf.errors.InvalidArgumentError as error:
                length, predictions = spec[features.INPUT_IDS].shape[0], spec[features.MASKED_LM_IDS].shape[0]
                raise InputError(
                    f"{file}: between examples {number} and {number + len(serialized) - 1} one does not have {length} "
                    f"tokens and {predictions} predictions, as the first one does. "
                    f"Received: {error.message.splitlines()[0]}"
                ) from error
            yield number, {name: value.numpy() for name, value in parsed.items()}
            number += len(serialized)
    except tf.errors.OpError as error:
        raise _broken(file, number, error) from error


def _broken(file, number, error) -> InputError:
    return InputError(
        f"{file}: cannot be read after example {number}, the shard is truncated or damaged; write it anew with "
        f"`bert examples`. Received: {error.message.splitlines()[0]}"
    )


def check(file: str, first: int, chunk: dict[str, np.ndarray], vocab_size: int | None) -> None:
    """Raises InputError where a value of the chunk (arrays by feature name) is out of its range."""
    length = chunk[features.INPUT_IDS].shape[1]
    rules = [
        (features.INPUT_IDS, vocab_size, "a token id must lie inside the model's vocabulary"),
        (features.MASKED_LM_IDS, vocab_size, "a token id must lie inside the model's vocabulary"),
        (features.MASKED_LM_POSITIONS, length, "a position must lie inside the sequence"),
        (features.INPUT_MASK, 2, "the mask must be 0 or 1"),
        (features.SEGMENT_IDS, 2, "a segment must be 0 or 1"),
        (features.NEXT_SENTENCE_LABELS, 2, "the label must be 0 or 1"),
    ]
    for name, bound, rule in rules:
        values = chunk[name]
        bad = values < 0 if bound is None else (values < 0) | (values >= bound)
        if bad.any():
            row, column = np.argwhere(bad)[0]
            allowed = "0 or more" if bound is None else f"0 to {bound - 1}"
            raise InputError(
                f"{file}: example {first + row}: {rule}, {name} {allowed}. Received: {values[row, column]}; "
                "the examples must come from the model's own vocabulary"
            )
    weights = chunk[features.MASKED_LM_WEIGHTS]
    if not (np.isfinite(weights).all() and (weights >= 0).all()):
        row = np.argwhere(~(np.isfinite(weights) & (weights >= 0)))[0][0]
        raise InputError(f"{file}: example {first + row}: weights must be 0 or more. Received: {weights[row].tolist()}")
    real = np.take_along_axis(chunk[features.INPUT_MASK], chunk[features.MASKED_LM_POSITIONS].astype(np.int64), 1)
    if (beyond := (weights > 0) & (real == 0)).any():
        row, column = np.argwhere(beyond)[0]
        received = chunk[features.MASKED_LM_POSITIONS][row, column]
        raise InputError(f"{file}: example {first + row}: a masked position must be a token's. Received: {received}")
