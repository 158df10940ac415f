"""Files of examples of any spec: finding, reading and checking them. Every fault names the file and the example."""

import glob
import gzip
import os
import zlib
from collections.abc import Iterator, Mapping

import numpy as np
import tensorflow as tf

from preprocessing.errors import InputError
from preprocessing.features import MODEL_GARDEN_NAMES, VOCABULARY, Spec
from preprocessing.storage import as_glob, is_remote

CHUNK = 2048  # examples read and parsed at once
FRAME = 16  # bytes of a record's length and checksums


def find_files(pattern: str) -> list[str]:
    """Example files of a folder (names that contain `tfrecord`, or `tf_record` as google's do) or of a glob, sorted.
    InputError when there is none."""
    gfile = tf.io.gfile
    if gfile.isdir(pattern):
        found = [os.path.join(pattern, name) for name in gfile.listdir(pattern) if "tfrecord" in name.replace("_", "")]
    else:
        found = gfile.glob(pattern) if is_remote(pattern) else glob.glob(as_glob(pattern))
    found = sorted(path for path in found if not gfile.isdir(path))
    if not found:
        raise InputError(f"{pattern}: no example files here; `bert examples` writes them. Received: no match")
    return found


def parsing(spec: Spec, axes: Mapping[str, int]) -> dict[str, tf.io.FixedLenFeature]:
    """What `tf.io.parse_example` needs to read an example."""
    return {
        name: tf.io.FixedLenFeature([length], tf.float32 if spec.features[name].stored == "float32" else tf.int64)
        for name, length in spec.lengths(axes).items()
    }


def axes(file: str, spec: Spec) -> dict[str, int] | None:
    """How long each axis of the spec is in the first example of a file; None when there is none."""
    record = next(_records(file), None)
    if record is None:
        _check_whole(file, 0, 0, spec.written_by)
        return None
    try:
        example = tf.train.Example.FromString(record).features.feature
    except Exception as error:  # protobuf's DecodeError differs between its implementations
        raise InputError(f"{file}: not a file of tf.Example records. Received: {error}") from error
    missing = [name for name in spec.features if name not in example]
    if any(MODEL_GARDEN_NAMES.get(name) in example for name in missing):
        raise InputError(
            f"{file}: the features must have google's names. Received: TF Model Garden's, which its own trainer "
            f"reads; write the file anew with {spec.written_by} --names google"
        )
    if missing:
        raise InputError(
            f"{file}: an example must have the features of {spec.written_by}. Missing: {', '.join(missing)}"
        )
    found: dict[str, tuple[str, int]] = {}
    for name, feature in spec.features.items():
        if isinstance(feature.size, str):
            values = example[name].float_list if feature.stored == "float32" else example[name].int64_list
            first, length = found.setdefault(feature.size, (name, len(values.value)))
            if not length or len(values.value) != length:
                raise InputError(
                    f"{file}: {name} must have as many values as {first} ({length}), at least one. "
                    f"Received: {len(values.value)}; write it anew with {spec.written_by}"
                )
    return {axis: length for axis, (_, length) in found.items()}


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
        raise _broken(file, number, error.message) from error


def chunks(file: str, spec: Spec, axes: Mapping[str, int]) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """(number of the first example, arrays of up to CHUNK examples) through a file."""
    number, size, parsed_as = 0, 0, parsing(spec, axes)
    # A record that breaks off must not hide the ones before it, so parsing errors and reading errors are told apart.
    batches = tf.data.TFRecordDataset(file, compression(file)).batch(CHUNK).prefetch(1)
    try:
        for serialized in batches:
            try:
                parsed = tf.io.parse_example(serialized, parsed_as)
            except tf.errors.InvalidArgumentError as error:
                lengths = ", ".join(f"{name} {length}" for name, length in spec.lengths(axes).items())
                raise InputError(
                    f"{file}: between examples {number} and {number + len(serialized) - 1} one does not have as many "
                    f"values as the first one does ({lengths}). Received: {error.message.splitlines()[0]}"
                ) from error
            yield number, {name: value.numpy() for name, value in parsed.items()}
            number += len(serialized)
            size += int(tf.reduce_sum(tf.strings.length(serialized))) + FRAME * len(serialized)
    except tf.errors.OpError as error:
        raise _broken(file, number, error.message, spec.written_by) from error
    _check_whole(file, number, size, spec.written_by)


def _check_whole(file: str, number: int, size: int, written_by: str) -> None:
    """Raises InputError where a compressed file holds more than so many examples, of so many bytes with their frames.
    One that breaks off between two examples, as its blocks do, TensorFlow takes for one that ends there."""
    if compression(file) != "GZIP":
        return
    with tf.io.gfile.GFile(file, "rb") as stream:
        stream.seek(max(stream.size() - 4, 0))
        if size and int.from_bytes(stream.read(4), "little") == size % 2**32:
            return
        stream.seek(0)
        try:  # of several members, the last four bytes are the size of the last one
            with gzip.GzipFile(fileobj=stream) as content:
                whole = sum(map(len, iter(lambda: content.read(1 << 20), b"")))
        except (OSError, EOFError, zlib.error) as error:
            raise _broken(file, number, str(error), written_by) from None
    if whole != size:
        raise _broken(file, number, f"{whole - size:,} bytes more", written_by)


def _broken(file, number, message, written_by="the command that wrote it") -> InputError:
    return InputError(
        f"{file}: cannot be read after example {number}, the shard is truncated or damaged; write it anew with "
        f"{written_by}. Received: {message.splitlines()[0]}"
    )


def check(file: str, first: int, chunk: dict[str, np.ndarray], spec: Spec, bounds: Mapping[str, int]) -> None:
    """Raises InputError where a value of the chunk (arrays by feature name) breaks a rule of the spec.

    `bounds`: the axes' lengths and, where there is a vocabulary, `features.VOCABULARY`, its number of tokens."""
    for name, feature in spec.features.items():
        values, least = chunk[name], feature.least
        below = bounds.get(feature.below) if isinstance(feature.below, str) else feature.below
        if feature.stored == "float32":
            bad = ~np.isfinite(values)
        else:  # nor may it change when it is stored
            limits = np.iinfo(feature.stored)
            least = limits.min if least is None else least
            below = limits.max + 1 if below is None else below
            bad = np.zeros(values.shape, bool)
        if least is not None:
            bad |= values < least
        if below is not None:
            bad |= values >= below
        if bad.any():
            row, column = np.argwhere(bad)[0]
            allowed = f"{least} or more" if below is None else f"{least} to {below - 1}"
            of_vocabulary = feature.below == VOCABULARY
            source = "come from the model's own vocabulary" if of_vocabulary else f"be those of {spec.written_by}"
            raise InputError(
                f"{file}: example {first + row}: {feature.rule}"
                f"{'' if least is None else f', {name} {allowed}'}. Received: {values[row, column]}; "
                f"the examples must {source}"
            )
    if fault := spec.check(chunk):
        row, rule = fault
        raise InputError(f"{file}: example {first + row}: {rule}")
