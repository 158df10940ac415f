"""Masked examples on disk -> batches of tensors: `tf.data` over the shards that `bert examples` writes.

Which example stands where in the stream is a pure function of (files, seed, position): nothing is drawn from a
generator's state, so that a run can go on at any step and see what an uninterrupted run would have seen.

Legend: B batch, L max_seq_length, P max_predictions.
"""

import dataclasses
import glob
import os
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from preprocessing import features
from preprocessing.errors import InputError

Batch = dict[str, tf.Tensor]
# (batch, [2] int64 seed that differs by batch) -> batch. For work at training time, such as dynamic masking.
Transform = Callable[[Batch, tf.Tensor], Batch]

# Examples that take more than this stay on disk and are shuffled through a buffer.
MEMORY_LIMIT = 2 << 30
SHUFFLE_BUFFER = 100_000  # examples; about 180 MB serialized at L = 128
FILES_AT_ONCE = 16
SCAN_BATCH = 2048

# How the resident copy is stored: masks and segments as bytes, the rest as it goes into the model.
_STORED = dict.fromkeys(features.ALL_FEATURES, np.int32) | {
    features.INPUT_MASK: np.int8,
    features.SEGMENT_IDS: np.int8,
    features.MASKED_LM_WEIGHTS: np.float32,
}


def find_files(pattern: str) -> list[str]:
    """Example files of a folder (names that contain `tfrecord`) or of a glob, sorted. InputError when there is none."""
    if os.path.isdir(pattern):
        found = [
            path for path in glob.glob(os.path.join(glob.escape(pattern), "*")) if "tfrecord" in os.path.basename(path)
        ]
    else:
        found = glob.glob(pattern)
    if not found:
        raise InputError(f"{pattern}: no example files here; `bert examples` writes them. Received: no match")
    return sorted(path for path in found if os.path.isfile(path))


def feature_spec(max_seq_length: int, max_predictions: int) -> dict[str, tf.io.FixedLenFeature]:
    """What `tf.io.parse_example` needs to read an example."""
    return {
        name: tf.io.FixedLenFeature([length], tf.float32 if name == features.MASKED_LM_WEIGHTS else tf.int64)
        for name, length in features.lengths(max_seq_length, max_predictions).items()
    }


def example_lengths(file: str) -> tuple[int, int]:
    """(max_seq_length, max_predictions) of the first example of a file. InputError when there is none."""
    record = next(_records(file), None)
    if record is None:
        raise InputError(f"{file}: a file of examples must hold at least one. Received: an empty one")
    try:
        example = tf.train.Example.FromString(record).features.feature
    except Exception as error:  # protobuf's DecodeError differs between its implementations
        raise InputError(f"{file}: not a file of tf.Example records. Received: {error}") from error
    missing = [name for name in features.ALL_FEATURES if name not in example]
    if missing:
        raise InputError(f"{file}: an example must have the features of `bert examples`. Missing: {', '.join(missing)}")
    return len(example[features.INPUT_IDS].int64_list.value), len(example[features.MASKED_LM_IDS].int64_list.value)


@dataclasses.dataclass(frozen=True)
class Examples:
    """Checked example files: how many examples there are and, when they fit, the examples themselves."""

    files: tuple[str, ...]
    count: int
    max_seq_length: int
    max_predictions: int
    arrays: dict[str, np.ndarray] | None  # name -> [count, length]

    def batches(
        self,
        batch_size: int,
        *,
        seed: int = 0,
        shuffle: bool = True,
        repeat: bool | None = None,
        start: int = 0,
        transform: Transform | None = None,
        shards: int = 1,
        shard: int = 0,
    ) -> tf.data.Dataset:
        """Batches of int32 and float32 tensors by feature name, each [B, length of the feature].

        seed, shuffle: the order of epoch e is a function of (seed, e); unshuffled, it is that of the files.
        repeat: without end (by default when shuffling); batches then run across the ends of epochs, so that all have
            the same size. Otherwise one pass, whose last batch is filled up with examples of zeros: no token, no
            prediction, no weight.
        start: number of the first batch, so that a run resumes where it stopped.
        shards, shard: every batch is cut into `shards` equal parts, of which this gives one (several workers).
        """
        repeat = shuffle if repeat is None else repeat
        if self.arrays is not None:
            batches = self._resident(batch_size, seed, shuffle, repeat, start)
        else:
            batches = self._streamed(batch_size, seed, shuffle, repeat, start)
        # Filling up comes before cutting (a part must not miss rows), transforming after it (no work for others);
        # prefetching last, so that everything above runs while the model works.
        if not repeat:
            batches = batches.map(lambda batch: _fill(batch, batch_size))
        if shards > 1:
            size = batch_size // shards
            batches = batches.map(lambda batch: {k: v[shard * size : (shard + 1) * size] for k, v in batch.items()})
        if transform is not None:
            batches = batches.enumerate(start).map(
                lambda number, batch: transform(
                    batch, tf.stack([tf.constant(seed, tf.int64), number * shards + shard])
                ),
                num_parallel_calls=2,
                deterministic=True,
            )
        size = batch_size // shards
        lengths = features.lengths(self.max_seq_length, self.max_predictions)
        if transform is None:
            batches = batches.map(lambda batch: {k: tf.ensure_shape(v, [size, lengths[k]]) for k, v in batch.items()})
        return batches.prefetch(8)

    def _resident(self, batch_size, seed, shuffle, repeat, start):
        """Shuffled over all examples: each position of the stream computes its own index, so that going to any batch
        costs nothing."""
        arrays = {name: tf.constant(array) for name, array in self.arrays.items()}
        count = self.count

        def batch_at(number):
            position = number * batch_size + tf.range(batch_size, dtype=tf.int64)
            if not repeat:
                position = position[position < count]
            epoch, index = position // count, position % count
            if shuffle:
                seeds = tf.stack([tf.zeros_like(epoch) + seed, epoch, tf.zeros_like(epoch)], axis=1)
                # The public `index_shuffle` cannot take a seed for each index, and a batch may hold two epochs.
                index = tf.raw_ops.RandomIndexShuffle(
                    index=index, seed=tf.cast(seeds, tf.int32), max_index=tf.zeros_like(index) + (count - 1), rounds=4
                )
            return {name: _as_model_input(tf.gather(array, index)) for name, array in arrays.items()}

        stop = np.iinfo(np.int64).max if repeat else -(-count // batch_size)
        return tf.data.Dataset.range(start, stop).map(batch_at, num_parallel_calls=2, deterministic=True)

    def _streamed(self, batch_size, seed, shuffle, repeat, start):
        """Shuffled as far as a buffer reaches."""
        files = tf.constant(self.files)
        compressions = tf.constant([_compression(file) for file in self.files])

        def epoch_records(epoch):
            # Files are shuffled first (cheap, and it is what mixes distant examples), then read several at a time,
            # then the records in a buffer. Seeds are drawn from (seed, epoch) alone.
            seeds = tf.random.stateless_uniform(
                [2], tf.stack([tf.constant(seed, tf.int64), epoch]), maxval=None, minval=None, dtype=tf.int64
            )
            paths = tf.data.Dataset.from_tensor_slices((files, compressions))
            if shuffle:
                paths = paths.shuffle(len(self.files), seed=seeds[0], reshuffle_each_iteration=False)
            records = paths.interleave(
                tf.data.TFRecordDataset,
                cycle_length=FILES_AT_ONCE if shuffle else 1,
                num_parallel_calls=2 if shuffle else None,
                deterministic=True,
            )
            if shuffle:
                records = records.shuffle(SHUFFLE_BUFFER, seed=seeds[1], reshuffle_each_iteration=False)
            return records

        first_epoch, skip = divmod(start * batch_size, self.count) if repeat else (0, start * batch_size)
        epochs = tf.data.Dataset.range(first_epoch, np.iinfo(np.int64).max if repeat else 1)
        # Skipping and batching serialized records, then parsing a batch at once, is many times cheaper than the
        # other way round.
        records = epochs.flat_map(epoch_records).skip(skip).batch(batch_size, drop_remainder=repeat)
        spec = feature_spec(self.max_seq_length, self.max_predictions)
        return records.map(
            lambda serialized: {
                name: _as_model_input(value) for name, value in tf.io.parse_example(serialized, spec).items()
            },
            num_parallel_calls=2,
            deterministic=True,
        )


def open_examples(
    files: Sequence[str],
    *,
    max_seq_length: int | None = None,
    max_predictions: int | None = None,
    vocab_size: int | None = None,
    memory_limit: int = MEMORY_LIMIT,
) -> Examples:
    """Reads every example once, checks it, and keeps all of them in memory when they fit `memory_limit` bytes.

    Raises:
        InputError: no file or no example, a truncated shard, lengths other than asked for, ids outside the vocabulary,
            positions outside the sequence, masks or labels other than 0 and 1. Names the file and, where one example is
            at fault, its number (from 0).
    """
    if not files:
        raise InputError("training needs at least one file of examples. Received: none")
    for file in files:
        if not tf.io.gfile.exists(file):
            raise InputError(f"{file}: no such file of examples")
    lengths = [example_lengths(file) for file in files]
    for file, (length, predictions) in zip(files, lengths, strict=True):
        wanted = (max_seq_length or lengths[0][0], max_predictions or lengths[0][1])
        if (length, predictions) != wanted:
            raise InputError(
                f"{file}: examples must have max_seq_length {wanted[0]} and max_predictions {wanted[1]}. "
                f"Received: {length} and {predictions}; write them anew with `bert examples`, or change the settings"
            )
    length, predictions = lengths[0]
    spec = feature_spec(length, predictions)
    kept: list[dict[str, np.ndarray]] | None = []
    count = size = 0
    for file in files:
        for first, chunk in _chunks(file, spec):
            _check(file, first, chunk, vocab_size)
            count += len(chunk[features.INPUT_IDS])
            if kept is not None:
                stored = {name: array.astype(_STORED[name]) for name, array in chunk.items()}
                size += sum(array.nbytes for array in stored.values())
                kept.append(stored)
                if size > memory_limit:
                    kept = None
    arrays = None
    if kept is not None:
        arrays = {name: np.concatenate([chunk[name] for chunk in kept]) for name in features.ALL_FEATURES}
    return Examples(tuple(files), count, length, predictions, arrays)


def read_batches(
    files: Sequence[str],
    *,
    batch_size: int,
    max_seq_length: int | None = None,
    max_predictions: int | None = None,
    seed: int = 0,
    shuffle: bool = True,
    repeat: bool | None = None,
    start: int = 0,
    vocab_size: int | None = None,
    memory_limit: int = MEMORY_LIMIT,
    transform: Transform | None = None,
) -> tf.data.Dataset:
    """`open_examples(...).batches(...)` in one call."""
    examples = open_examples(
        files,
        max_seq_length=max_seq_length,
        max_predictions=max_predictions,
        vocab_size=vocab_size,
        memory_limit=memory_limit,
    )
    return examples.batches(batch_size, seed=seed, shuffle=shuffle, repeat=repeat, start=start, transform=transform)


def _as_model_input(values):
    return values if values.dtype == tf.float32 else tf.cast(values, tf.int32)


def _fill(batch, batch_size):
    def fill(values):
        return tf.pad(values, [[0, batch_size - tf.shape(values)[0]], [0, 0]])

    return {name: fill(values) for name, values in batch.items()}


def _compression(file: str) -> str:
    with tf.io.gfile.GFile(file, "rb") as stream:
        return "GZIP" if stream.read(2) == b"\x1f\x8b" else ""


def _records(file: str) -> Iterator[bytes]:
    """Serialized records of a file. InputError where it breaks off."""
    number = 0
    try:
        for record in tf.data.TFRecordDataset(file, _compression(file)).as_numpy_iterator():
            yield record
            number += 1
    except tf.errors.OpError as error:
        raise _broken(file, number, error) from error


def _chunks(file: str, spec) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """(number of the first example, arrays of up to SCAN_BATCH examples) through a file."""
    number = 0
    # A record that breaks off must not hide the ones before it, so parsing errors and reading errors are told apart.
    batches = tf.data.TFRecordDataset(file, _compression(file)).batch(SCAN_BATCH).prefetch(1)
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


def _check(file: str, first: int, chunk: dict[str, np.ndarray], vocab_size: int | None) -> None:
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
