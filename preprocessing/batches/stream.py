"""Examples on disk -> batches of tensors: `tf.data` over files of any `features.Spec`.

Which example stands where in the stream is a pure function of (files, seed, position): nothing is drawn from a
generator's state, so that a run can go on at any step and see what an uninterrupted run would have seen.

Legend: B batch, L length of the sequence.
"""

import dataclasses
import threading
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import tensorflow as tf

from preprocessing import features
from preprocessing.batches import files as example_files
from preprocessing.errors import InputError

Batch = dict[str, tf.Tensor]
# (batch of arrays, epoch) -> batch of arrays of the same shapes. For work at training time, such as dynamic masking:
# `lambda batch, epoch: masking.mask_features(batch, vocabulary, seed=seed, epoch=epoch)`.
Transform = Callable[[dict[str, np.ndarray], int], dict[str, np.ndarray]]

# Examples that take more than this stay on disk and are shuffled through a buffer.
MEMORY_LIMIT = 2 << 30
SHUFFLE_BUFFER = 100_000  # examples; about 180 MB serialized at L = 128
FILES_AT_ONCE = 16


@dataclasses.dataclass(frozen=True)
class Examples:
    """Checked example files: how many examples there are and, when they fit, the examples themselves."""

    files: tuple[str, ...]
    spec: features.Spec
    axes: Mapping[str, int]  # length of each axis of the spec
    count: int
    sums: Mapping[str, float]  # of all values of each feature: weights, say
    arrays: Mapping[str, np.ndarray]  # name -> [count, length]; empty when they do not fit in memory

    @tf.autograph.experimental.do_not_convert
    def batches(
        self,
        batch_size: int,
        *,
        seed: int = 0,
        shuffle: bool = True,
        repeat: bool | None = None,
        start: int = 0,
        buckets: Sequence[int] = (),
        transform: Transform | None = None,
        shards: int = 1,
        shard: int = 0,
    ) -> tf.data.Dataset:
        """Batches of int32 and float32 tensors by feature name, each [B, length of the feature].

        Args:
            seed, shuffle: the order of epoch e is a function of (seed, e); unshuffled, it is that of the files.
            repeat: without end (by default when shuffling); batches then run across the ends of epochs, so that all
                have the same size. Otherwise one pass, whose last batch is filled up with examples of zeros: no token,
                no label, no weight.
            start: number of the first batch, so that a run resumes where it stopped.
            buckets: ascending lengths. Examples of like length stand together in a batch, whose features along the
                sequence are cut to the first of these that holds all its tokens (to L otherwise): [B, <= L]. A batch
                across the end of an epoch holds two such groups. Needs examples in memory. Unshuffled
                batches are cut as they come (`shortest_first`).
            transform: applied to every batch, before it is cut; apart to the rows of each epoch where it holds several.
            shards, shard: every batch is cut into `shards` equal parts, of which this gives one (several workers).
        """
        repeat = shuffle if repeat is None else repeat
        if buckets and shuffle and not (self.arrays and repeat):
            raise InputError("buckets need shuffled examples that fit in memory; leave them out, or raise the limit")
        if self.arrays:
            batches = self._resident(batch_size, seed, shuffle, repeat, start, shuffle and bool(buckets))
        else:
            batches = self._streamed(batch_size, seed, shuffle, repeat, start)
        # Filling up comes before everything that relies on whole batches; cutting for workers before transforming, so
        # that none does another's work; prefetching last, so that all of it runs while the model works.
        if not repeat:
            batches = batches.map(lambda batch: _fill(batch, batch_size))
        if shards > 1:
            part = slice(batch_size // shards * shard, batch_size // shards * (shard + 1))
            batches = batches.map(lambda batch: {name: values[part] for name, values in batch.items()})
        if transform is not None:
            rows = np.arange(batch_size)[batch_size // shards * shard : batch_size // shards * (shard + 1)]
            epochs = tf.data.Dataset.range(start, np.iinfo(np.int64).max).map(
                lambda number: (number * batch_size + rows) // self.count
            )
            batches = tf.data.Dataset.zip((batches, epochs)).map(
                lambda batch, epochs: _transformed(transform, batch, epochs), num_parallel_calls=2, deterministic=True
            )
        lengths = self.spec.lengths(self.axes)
        size = batch_size // shards
        batches = batches.map(lambda batch: {k: tf.ensure_shape(v, [size, lengths[k]]) for k, v in batch.items()})
        if buckets:
            along = [name for name, feature in self.spec.features.items() if feature.size == features.LENGTH]
            batches = batches.map(lambda batch: _cut(batch, buckets, along))
        return batches.prefetch(8)

    def shortest_first(self, count: int) -> "Examples":
        """The first `count` of those in memory, the shortest of these first: no batch is much longer than its rows."""
        chosen = np.argsort(self.arrays[features.INPUT_MASK][:count].sum(axis=1, dtype=np.int64), kind="stable")
        arrays = {name: array[chosen] for name, array in self.arrays.items()}
        return dataclasses.replace(self, arrays=arrays, count=len(chosen))

    def _resident(self, batch_size, seed, shuffle, repeat, start, by_length):
        """Shuffled over all examples: each position of the stream computes its own index, so that going to any batch
        costs nothing."""
        arrays = {name: tf.constant(array) for name, array in self.arrays.items()}
        count = self.count

        def indices(number):
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
            return index

        if by_length:
            plan = _LengthPlan(self.arrays[features.INPUT_MASK].sum(axis=1, dtype=np.int64), batch_size, seed)

            def indices(number):
                return tf.ensure_shape(tf.numpy_function(plan, [number], tf.int64), [batch_size])

        def batch_at(number):
            index = indices(number)
            return {name: _as_model_input(tf.gather(array, index)) for name, array in arrays.items()}

        stop = np.iinfo(np.int64).max if repeat else -(-count // batch_size)
        return tf.data.Dataset.range(start, stop).map(batch_at, num_parallel_calls=2, deterministic=True)

    def _streamed(self, batch_size, seed, shuffle, repeat, start):
        """Shuffled as far as a buffer reaches."""
        files = tf.constant(self.files)
        compressions = tf.constant([example_files.compression(file) for file in self.files])

        def epoch_records(epoch):
            # TensorFlow would mix in the seed that the process has set for everything, and fails where that is 0.
            tf.compat.v1.get_default_graph().seed = None
            # Files are shuffled first (cheap, and it is what mixes distant examples), then read several at a time,
            # then the records in a buffer. Seeds are drawn from (seed, epoch) alone.
            seeds = tf.random.stateless_uniform([2], tf.stack([seed, epoch]), maxval=None, minval=None, dtype=tf.int64)
            paths = tf.data.Dataset.from_tensor_slices((files, compressions))
            if shuffle:
                paths = paths.shuffle(len(self.files), seed=seeds[0], reshuffle_each_iteration=False)
            records = paths.interleave(
                tf.data.TFRecordDataset,
                cycle_length=FILES_AT_ONCE if shuffle else 1,
                num_parallel_calls=2 if shuffle else 1,
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
        spec = example_files.parsing(self.spec, self.axes)
        return records.map(
            lambda serialized: {
                name: _as_model_input(value) for name, value in tf.io.parse_example(serialized, spec).items()
            },
            num_parallel_calls=2,
            deterministic=True,
        )


def open_examples(
    files: Sequence[str], spec: features.Spec, *, vocab_size: int | None = None, memory_limit: int = MEMORY_LIMIT
) -> Examples:
    """Reads every example once, checks it, and keeps all of them in memory when they fit `memory_limit` bytes.

    Raises:
        InputError: no file, no example, a truncated shard, features that are missing or not as long in one example as
            in another, ids outside the vocabulary, whatever else breaks a rule of the spec. Names the file and, where
            one example is at fault, its number (from 0).
    """
    if not files:
        raise InputError("training needs at least one file of examples. Received: none")
    found = _axes(files, spec)
    files = tuple(file for file in files if file in found)
    axes = found[files[0]]
    for file in files:
        wanted, received = (spec.lengths(sizes) for sizes in (axes, found[file]))
        if differing := [name for name in wanted if wanted[name] != received[name]]:
            raise InputError(
                f"{file}: examples must be as long as those of {files[0]} "
                f"({', '.join(f'{name} {wanted[name]}' for name in differing)}). "
                f"Received: {', '.join(f'{name} {received[name]}' for name in differing)}; write them anew with "
                f"{spec.written_by}, or leave them out"
            )
    bounds = dict(axes) if vocab_size is None else {**axes, features.VOCABULARY: vocab_size}
    kept: list[dict[str, np.ndarray]] | None = []
    count = size = 0
    sums = dict.fromkeys(spec.features, 0.0)
    for file in files:
        for first, chunk in example_files.chunks(file, spec, axes):
            example_files.check(file, first, chunk, spec, bounds)
            count += len(chunk[features.INPUT_IDS])
            sums = {name: total + float(chunk[name].sum()) for name, total in sums.items()}
            if kept is not None:
                stored = {name: array.astype(spec.features[name].stored) for name, array in chunk.items()}
                size += sum(array.nbytes for array in stored.values())
                kept.append(stored)
                if size > memory_limit:
                    kept = None
    arrays: dict[str, np.ndarray] = {}
    if kept is not None:
        arrays = {name: np.concatenate([chunk[name] for chunk in kept]) for name in spec.features}
    return Examples(files, spec, axes, count, sums, arrays)


def by_length(files: Sequence[str], spec: features.Spec) -> dict[int, list[str]]:
    """Files by the length of the sequence in their first examples. InputError as `open_examples`."""
    groups: dict[int, list[str]] = {}
    axes = _axes(files, spec)
    for file in files:
        if file in axes:
            groups.setdefault(axes[file][features.LENGTH], []).append(file)
    return groups


def _axes(files: Sequence[str], spec: features.Spec) -> dict[str, dict[str, int]]:
    """The axes' lengths in each of the files, the empty ones left out. InputError where all are empty."""
    axes = {}
    for file in files:
        if not tf.io.gfile.exists(file):
            raise InputError(f"{file}: no such file of examples")
        if found := example_files.axes(file, spec):
            axes[file] = found
    if files and not axes:
        raise InputError(f"{files[0]}: one file of examples must hold at least one. Received: {len(files)} empty")
    return axes


class _LengthPlan:
    """Number of a batch -> indices [B] of examples of like length, a function of (seed, number).

    Each epoch holds every example once. Its examples are shuffled and sorted by length in steps of a sixteenth of the
    longest; what stands in a row there is cut into batches and, at the ends of the epoch, the parts of the batches that
    it shares with its neighbours; the batches are then shuffled.
    """

    def __init__(self, lengths: np.ndarray, batch_size: int, seed: int):
        self._classes = lengths * 16 // (lengths.max() + 1)
        self._batch_size, self._seed = batch_size, seed
        self._orders: dict[int, np.ndarray] = {}  # of the newest epochs
        self._lock = threading.Lock()  # tf.data asks for several batches at once

    def __call__(self, number: int) -> np.ndarray:
        epochs, places = np.divmod(int(number) * self._batch_size + np.arange(self._batch_size), len(self._classes))
        with self._lock:
            return np.concatenate([self._order(int(epoch))[places[epochs == epoch]] for epoch in np.unique(epochs)])

    def _order(self, epoch):
        if epoch not in self._orders:
            if len(self._orders) > 2:  # two batches at once, each across the end of one
                del self._orders[min(self._orders)]
            self._orders[epoch] = self._of_epoch(epoch)
        return self._orders[epoch]

    def _of_epoch(self, epoch):
        count, batch_size = len(self._classes), self._batch_size
        random = np.random.Generator(np.random.Philox([self._seed, epoch]))
        order = random.permutation(count)
        order = order[np.argsort(self._classes[order], kind="stable")]
        head = min(-epoch * count % batch_size, count)  # belongs to a batch of the epoch before
        whole, tail = divmod(count - head, batch_size)
        sizes = np.array([head, *[batch_size] * whole, tail])
        drawn = random.permutation(len(sizes))  # which part each run of the sorted order becomes
        runs = np.split(order, np.cumsum(sizes[drawn])[:-1])
        return np.concatenate([runs[run] for run in np.argsort(drawn)])


def _transformed(transform, batch, epochs):
    names = list(batch)

    def on_arrays(epochs, *values):
        results = [np.empty_like(value) for value in values]
        for epoch in np.unique(epochs):
            rows = epochs == epoch
            part = transform({name: value[rows] for name, value in zip(names, values, strict=True)}, int(epoch))
            for name, result in zip(names, results, strict=True):
                result[rows] = part[name]
        return results

    values = tf.numpy_function(on_arrays, [epochs, *batch.values()], [value.dtype for value in batch.values()])
    return dict(zip(names, values, strict=True))


def _cut(batch, buckets, names):
    longest = tf.reduce_max(tf.reduce_sum(batch[features.INPUT_MASK], axis=1))
    length = tf.shape(batch[features.INPUT_MASK])[1]
    for bucket in reversed(buckets):
        length = tf.where(longest <= bucket, tf.minimum(bucket, length), length)
    return batch | {name: batch[name][:, :length] for name in names}


def _as_model_input(values):
    return values if values.dtype == tf.float32 else tf.cast(values, tf.int32)


def _fill(batch, batch_size):
    def fill(values):
        return tf.pad(values, [[0, batch_size - tf.shape(values)[0]], [0, 0]])

    return {name: fill(values) for name, values in batch.items()}
