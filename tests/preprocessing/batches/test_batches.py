import collections
import dataclasses
import gzip
import itertools

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from preprocessing import batches, features
from preprocessing.batches import files as example_files
from preprocessing.errors import InputError
from preprocessing.examples import masking
from tests.model import small_examples


def open_pairs(files, **options):
    return batches.open_examples(files, features.MASKED_PAIRS, **options)


def numbered(count, first=0, length=small_examples.LENGTH):
    """Examples whose second token tells them apart."""
    arrays = small_examples.examples(count, length=length)
    arrays[features.INPUT_IDS][:, 1] = np.arange(first, first + count)
    return arrays


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("examples")
    return [
        small_examples.write(folder / "a.tfrecord", numbered(50)),
        small_examples.write(folder / "b.tfrecord.gz", numbered(37, first=50)),
    ]


@pytest.fixture(params=["in memory", "from disk"])
def examples(request, files):
    return open_pairs(files, memory_limit=10 if request.param == "from disk" else 1 << 20)


def ids(dataset, count=None):
    return [batch[features.INPUT_IDS].numpy()[:, 1] for batch in itertools.islice(iter(dataset), count)]


def test_opening_counts_and_measures(examples):
    assert (examples.count, examples.axes) == (87, {"L": 16, "P": 3})
    written = (numbered(50), numbered(37, first=50))
    assert examples.sums == {name: sum(arrays[name].sum() for arrays in written) for name in features.ALL_FEATURES}


def test_each_epoch_holds_each_example_once_in_another_order(examples):
    stream = np.concatenate(ids(examples.batches(8, seed=1), 33))[: 3 * 87].reshape(3, 87)
    for epoch in stream:
        np.testing.assert_array_equal(np.sort(epoch), np.arange(87))
    assert not (stream[0] == stream[1]).all()
    # In memory the shuffle is over all examples, whatever file they are from.
    if examples.arrays:
        assert (stream[0][:37] >= 50).sum() in range(5, 30)


def test_order_depends_on_the_seed_alone(examples):
    first, again, other = (np.concatenate(ids(examples.batches(8, seed=seed), 11)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not (first == other).all()


@pytest.mark.parametrize("other", [0, 7])
def test_order_does_not_depend_on_the_seed_of_the_process(examples, other):
    first = np.concatenate(ids(examples.batches(8, seed=1), 11))
    tf.random.set_seed(other)
    try:
        np.testing.assert_array_equal(np.concatenate(ids(examples.batches(8, seed=1), 11)), first)
    finally:
        tf.random.set_seed(None)


@pytest.mark.parametrize("start", [0, 3, 10, 11, 25])
def test_starting_at_a_batch_is_skipping_to_it(examples, start):
    whole = ids(examples.batches(8, seed=1), start + 3)
    np.testing.assert_array_equal(whole[start:], ids(examples.batches(8, seed=1, start=start), 3))


def test_one_pass_in_order_fills_the_last_batch(examples):
    found = list(examples.batches(8, shuffle=False))
    assert len(found) == 11
    np.testing.assert_array_equal(np.concatenate(ids(found))[:87], np.arange(87))
    last = found[-1]
    assert all(value.shape[0] == 8 for value in last.values())
    assert not last[features.INPUT_MASK][7:].numpy().any()
    assert not last[features.MASKED_LM_WEIGHTS][7:].numpy().any()


def test_workers_share_every_batch(examples):
    whole = ids(examples.batches(8, seed=1), 12)
    parts = [ids(examples.batches(8, seed=1, shards=2, shard=shard), 12) for shard in (0, 1)]
    for number, batch in enumerate(whole):
        np.testing.assert_array_equal(batch, np.concatenate([parts[0][number], parts[1][number]]))


def test_values_are_those_written(examples):
    expected = numbered(50)
    batch = next(iter(examples.batches(50, shuffle=False)))
    for name, value in batch.items():
        assert value.dtype.name == ("float32" if name == features.MASKED_LM_WEIGHTS else "int32")
        np.testing.assert_array_equal(value, expected[name])


def test_buckets_put_examples_of_like_length_together(tmp_path):
    arrays = small_examples.examples(64)
    lengths = np.arange(64) % 2 * 8 + 8  # 8 or 16
    arrays[features.INPUT_MASK] = (np.arange(16) < lengths[:, None]).astype(np.int64)
    arrays[features.MASKED_LM_POSITIONS] %= 8
    examples = open_pairs([small_examples.write(tmp_path / "a.tfrecord", arrays)])
    found = list(itertools.islice(iter(examples.batches(8, seed=3, buckets=(4, 8))), 20))
    for batch in found:
        longest = batch[features.INPUT_MASK].numpy().sum(axis=1)
        assert len(set(longest)) == 1
        assert batch[features.INPUT_IDS].shape[1] == longest[0]
        assert batch[features.MASKED_LM_IDS].shape[1] == 3
    again = list(itertools.islice(iter(examples.batches(8, seed=3, start=9, buckets=(4, 8))), 11))
    for first, second in zip(found[9:], again, strict=True):
        np.testing.assert_array_equal(first[features.INPUT_IDS], second[features.INPUT_IDS])


def test_one_pass_from_the_shortest_is_cut_as_it_comes(of_all_lengths):
    lengths = of_all_lengths.arrays[features.INPUT_MASK].sum(1)
    found = list(of_all_lengths.shortest_first(50).batches(8, shuffle=False, buckets=(4, 8)))
    rows = np.concatenate([batch[features.INPUT_IDS].numpy()[:, 0] for batch in found])
    np.testing.assert_array_equal(np.sort(rows[:50]), np.arange(50))
    assert (np.diff(lengths[rows[:50]]) >= 0).all()
    assert not found[-1][features.INPUT_MASK].numpy()[2:].any()  # what fills the last one
    for batch in found:
        longest = batch[features.INPUT_MASK].numpy().sum(1).max()
        assert batch[features.INPUT_IDS].shape[1] == next(cut for cut in (4, 8, 16) if cut >= longest)


@pytest.fixture(scope="module")
def of_all_lengths(tmp_path_factory):
    """93 examples of 1 to 16 tokens that tell them apart."""
    arrays = numbered(93)
    lengths = np.random.default_rng(0).integers(1, 17, 93)
    arrays[features.INPUT_MASK] = (np.arange(16) < lengths[:, None]).astype(np.int64)
    arrays[features.MASKED_LM_WEIGHTS][:] = 0
    arrays[features.INPUT_IDS][:, 0] = np.arange(93)
    path = small_examples.write(tmp_path_factory.mktemp("lengths") / "a.tfrecord", arrays)
    return open_pairs([path])


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    count=st.integers(1, 93),
    batch_size=st.integers(1, 40),
    seed=st.integers(0, 9),
    epochs=st.integers(1, 4),
    start=st.integers(0, 9),
)
def test_buckets_lose_no_example_and_go_on_at_any_batch(of_all_lengths, count, batch_size, seed, epochs, start):
    kept = {name: array[:count] for name, array in of_all_lengths.arrays.items()}
    examples = dataclasses.replace(of_all_lengths, count=count, arrays=kept)
    number = max(-(-epochs * count // batch_size), start + 2)
    dataset = examples.batches(batch_size, seed=seed, buckets=(4, 8, 16))
    found = [batch[features.INPUT_IDS].numpy() for batch in itertools.islice(iter(dataset), number)]
    stream = np.concatenate([rows[:, 0] for rows in found])
    for epoch in range(epochs):
        np.testing.assert_array_equal(np.sort(stream[epoch * count : (epoch + 1) * count]), np.arange(count))
    # Within an epoch the rows of a batch are neighbours by length: at most one batch has those of both sides of each
    # boundary between classes.
    classes = kept[features.INPUT_MASK].sum(1)
    whole = [rows[:, 0] for rows in found[: count // batch_size]]
    spread = sum(int(classes[rows].max() - classes[rows].min()) for rows in whole)
    assert spread <= classes.max() - classes.min()
    again = examples.batches(batch_size, seed=seed, buckets=(4, 8, 16), start=start)
    for rows, expected in zip(itertools.islice(iter(again), 2), found[start:], strict=False):
        np.testing.assert_array_equal(rows[features.INPUT_IDS].numpy(), expected)


def test_examples_of_any_spec(tmp_path):
    """Those of a task that is not ours: along the sequence, along an axis of their own, single numbers of any sign."""
    count = 20
    pairs = small_examples.examples(count)
    pairs[features.INPUT_MASK][:] = np.arange(16) < np.where(np.arange(count) % 2, 16, 6)[:, None]
    arrays = {name: pairs[name] for name in features.SEQUENCE_FEATURES} | {
        "labels": np.arange(count * 16).reshape(count, 16) % 5,
        "word_starts": np.tile([1, 3, 5, 7], (count, 1)),
        "score": np.linspace(-2, 2, count, dtype=np.float32)[:, None],
        "offset": np.full((count, 1), -128),
    }
    spec = features.Spec(
        features.SEQUENCE
        | {
            "labels": features.Feature(features.LENGTH, "a label must be one of 5", below=5, stored="int8"),
            "word_starts": features.Feature("W", "a word must begin inside the sequence", below=features.LENGTH),
            "score": features.Feature(1, "a score must be a number", least=None, stored="float32"),
            "offset": features.Feature(1, "an offset must fit its type", least=None, stored="int8"),
        },
        "`make scores`",
        lambda arrays: (2, "no third one. Received: one") if (arrays["score"] == 9).any() else None,
    )
    path = small_examples.write(tmp_path / "a.tfrecord", arrays)
    for memory_limit in (10, 1 << 20):
        examples = batches.open_examples([path], spec, memory_limit=memory_limit)
        assert examples.axes == {"L": 16, "W": 4}
        batch = next(iter(examples.batches(count, shuffle=False)))
        for name, values in arrays.items():
            np.testing.assert_array_equal(batch[name], values)
    assert examples.arrays["labels"].dtype == np.int8
    shapes = collections.Counter(
        tuple(batch[name].shape[1] for name in ("input_ids", "labels", "word_starts", "score"))
        for batch in itertools.islice(iter(examples.batches(10, seed=1, buckets=(8,))), 6)
    )
    assert shapes == {(8, 8, 4, 1): 3, (16, 16, 4, 1): 3}

    def refused(name, row, value, message):
        changed = {other: values.copy() for other, values in arrays.items()}
        changed[name][row, -1] = value
        with pytest.raises(InputError, match=message):
            batches.open_examples([small_examples.write(tmp_path / "b.tfrecord", changed)], spec)

    refused(
        "labels", 4, 5, r"b\.tfrecord: example 4: a label must be one of 5, labels 0 to 4\. Received: 5; .*make scores"
    )
    refused("word_starts", 0, 16, "example 0: a word must begin inside the sequence, word_starts 0 to 15")
    refused("offset", 5, 128, "example 5: an offset must fit its type, offset -128 to 127")
    refused("score", 3, np.inf, r"example 3: a score must be a number\. Received: inf")
    refused("score", 3, 9, r"example 2: no third one\. Received: one")
    shorter = small_examples.write(tmp_path / "a.tfrecord", arrays | {"labels": arrays["labels"][:, :9]})
    with pytest.raises(InputError, match=r"a\.tfrecord: labels must have as many values as input_ids \(16\)"):
        batches.open_examples([shorter], spec)


def test_masking_at_training_time(tmp_path):
    arrays = small_examples.examples(32)
    np.put_along_axis(
        arrays[features.INPUT_IDS],
        arrays[features.MASKED_LM_POSITIONS],
        arrays[features.MASKED_LM_IDS],
        axis=1,
    )
    for name in features.PREDICTION_FEATURES:
        arrays[name] = np.zeros_like(arrays[name])
    examples = open_pairs([small_examples.write(tmp_path / "a.tfrecord", arrays)])
    assert examples.sums[features.MASKED_LM_WEIGHTS] == 0
    vocabulary = masking.MaskingVocabulary(4, (2, 3, 0), np.arange(5, 40), np.zeros(40, bool))

    def transform(batch, epoch):
        return masking.mask_features(batch, vocabulary, seed=7, epoch=epoch)

    first, second = itertools.islice(iter(examples.batches(32, seed=1, transform=transform)), 2)
    (again,) = itertools.islice(iter(examples.batches(32, seed=1, start=1, transform=transform)), 1)
    assert float(first[features.MASKED_LM_WEIGHTS].numpy().sum()) >= 32

    def masks(batch):
        order = np.lexsort(batch[features.INPUT_IDS].numpy().T)
        return batch[features.MASKED_LM_POSITIONS].numpy()[order].tolist()

    assert masks(first) != masks(second)
    assert masks(second) == masks(again)


def test_each_row_is_transformed_in_its_own_epoch(examples):
    def transform(batch, epoch):
        return batch | {features.NEXT_SENTENCE_LABELS: np.full_like(batch[features.NEXT_SENTENCE_LABELS], epoch)}

    def epochs(**arguments):
        found = itertools.islice(iter(examples.batches(8, seed=1, transform=transform, **arguments)), 12)
        return [batch[features.NEXT_SENTENCE_LABELS].numpy()[:, 0].tolist() for batch in found]

    expected = np.arange(96).reshape(12, 8) // 87
    assert epochs() == expected.tolist()
    assert epochs(shards=2, shard=1) == expected[:, 4:].tolist()
    if examples.arrays:
        assert epochs(buckets=(16,)) == expected.tolist()


def test_find_files(tmp_path):
    for name in ("examples-00001.tfrecord", "examples-00000.tfrecord.gz", "report.json", "tf_examples.tf_record_000"):
        (tmp_path / name).touch()
    found = [path.rsplit("/", 1)[1] for path in example_files.find_files(str(tmp_path))]
    assert found == ["examples-00000.tfrecord.gz", "examples-00001.tfrecord", "tf_examples.tf_record_000"]
    assert len(example_files.find_files(str(tmp_path / "*.tfrecord"))) == 1
    with pytest.raises(InputError, match="no example files"):
        example_files.find_files(str(tmp_path / "none*"))


class TestBadInput:
    def test_nothing_there(self, tmp_path):
        with pytest.raises(InputError, match="at least one file"):
            open_pairs([])
        with pytest.raises(InputError, match="no such file"):
            open_pairs([str(tmp_path / "absent.tfrecord")])

    def test_empty_file(self, tmp_path):
        (tmp_path / "a.tfrecord").touch()
        with pytest.raises(InputError, match=r"a\.tfrecord: one file of examples must hold at least one"):
            open_pairs([str(tmp_path / "a.tfrecord")])
        files = [str(tmp_path / "a.tfrecord"), small_examples.write(tmp_path / "b.tfrecord", numbered(4))]
        assert batches.by_length(files, features.MASKED_PAIRS) == {16: files[1:]}
        assert open_pairs(files).files == (files[1],)

    def test_not_examples(self, tmp_path):
        (tmp_path / "a.tfrecord").write_bytes(b"just text, not records" * 10)
        with pytest.raises(InputError, match=r"a\.tfrecord: cannot be read"):
            open_pairs([str(tmp_path / "a.tfrecord")])

    @pytest.mark.parametrize("name", ["a.tfrecord", "a.tfrecord.gz"])
    def test_truncated(self, tmp_path, name):
        path = small_examples.write(tmp_path / name, numbered(50))
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) * 2 // 3])
        with pytest.raises(InputError, match=r"a\.tfrecord.*truncated or damaged"):
            open_pairs([path])

    @pytest.mark.parametrize("first", [2, *(pytest.param(first, marks=pytest.mark.long) for first in (5, 8))])
    def test_truncated_anywhere(self, tmp_path, first):
        """A compressed file may end between two records, too, or before the first one."""
        path = small_examples.write(tmp_path / "a.tfrecord.gz", numbered(5))
        content = (tmp_path / "a.tfrecord.gz").read_bytes()
        whole = small_examples.write(tmp_path / "whole.tfrecord", numbered(5))
        for cut in range(first, len(content), 9):
            (tmp_path / "a.tfrecord.gz").write_bytes(content[:cut])
            with pytest.raises(InputError, match=r"a\.tfrecord\.gz: cannot be read after example \d, the shard is"):
                open_pairs([path, whole])

    def test_several_members_are_one_file(self, tmp_path):
        path = small_examples.write(tmp_path / "a.tfrecord.gz", numbered(5))
        content = (tmp_path / "a.tfrecord.gz").read_bytes()
        (tmp_path / "a.tfrecord.gz").write_bytes(content * 2)
        assert open_pairs([path]).count == 10

    def test_damaged(self, tmp_path):
        small_examples.write(tmp_path / "a.tfrecord", numbered(50))
        content = bytearray((tmp_path / "a.tfrecord").read_bytes())
        content[len(content) // 2] ^= 255
        (tmp_path / "a.tfrecord").write_bytes(bytes(content))
        with pytest.raises(InputError, match=r"a\.tfrecord.*truncated or damaged"):
            open_pairs([str(tmp_path / "a.tfrecord")])

    def test_lengths_that_differ(self, tmp_path):
        files = [
            small_examples.write(tmp_path / "a.tfrecord", numbered(4)),
            small_examples.write(tmp_path / "b.tfrecord", numbered(4, length=20)),
        ]
        with pytest.raises(
            InputError, match=r"b\.tfrecord: examples must be as long as .*input_ids 16.*Received: input_ids 20"
        ):
            open_pairs(files)
        assert sorted(batches.by_length(files, features.MASKED_PAIRS)) == [16, 20]

    def test_lengths_that_differ_within_a_file(self, tmp_path):
        short, long = numbered(1), numbered(1, length=20)
        path = tmp_path / "a.tfrecord"
        both = b"".join(
            gzip.decompress((tmp_path / name).read_bytes())
            for name, arrays in (("s.gz", short), ("l.gz", long))
            if small_examples.write(tmp_path / name, arrays)
        )
        path.write_bytes(both)
        with pytest.raises(InputError, match=r"does not have as many values as the first one does \(input_ids 16"):
            open_pairs([str(path)])

    def test_names_of_model_garden(self, tmp_path):
        arrays = small_examples.examples(4)
        arrays = {features.MODEL_GARDEN_NAMES.get(name, name): values for name, values in arrays.items()}
        path = small_examples.write(tmp_path / "a.tfrecord", arrays)
        with pytest.raises(
            InputError, match=r"a\.tfrecord: .*must have google's names.*`bert examples` --names google"
        ):
            batches.open_examples([path], features.MASKED_PAIRS)

    def test_missing_feature(self, tmp_path):
        arrays = numbered(4)
        del arrays[features.SEGMENT_IDS]
        with pytest.raises(InputError, match="Missing: segment_ids"):
            open_pairs([small_examples.write(tmp_path / "a.tfrecord", arrays)])

    @pytest.mark.parametrize(
        ("name", "value", "message"),
        [
            (features.INPUT_IDS, 40, "example 3: a token id must lie inside the model's vocabulary.* 0 to 39"),
            (features.MASKED_LM_IDS, -1, "example 3: a token id"),
            (features.MASKED_LM_POSITIONS, 16, "example 3: a position must lie inside the sequence"),
            (features.INPUT_MASK, 2, "example 3: the mask must be 0 or 1"),
            (features.NEXT_SENTENCE_LABELS, 2, "example 3: the label must be 0 or 1"),
            (features.MASKED_LM_WEIGHTS, -1.0, "example 3: a weight must be a finite number"),
            (
                features.MASKED_LM_WEIGHTS,
                np.nan,
                "example 3: a weight must be a finite number, masked_lm_weights 0 or more",
            ),
        ],
    )
    def test_values_out_of_range(self, tmp_path, name, value, message):
        arrays = small_examples.examples(8)
        arrays[name][3, 0] = value
        path = small_examples.write(tmp_path / "a.tfrecord", arrays)
        with pytest.raises(InputError, match=message):
            open_pairs([path], vocab_size=40)

    def test_a_prediction_in_the_padding(self, tmp_path):
        arrays = small_examples.examples(8)
        arrays[features.INPUT_MASK][3, arrays[features.MASKED_LM_POSITIONS][3, 0]] = 0
        path = small_examples.write(tmp_path / "a.tfrecord", arrays)
        with pytest.raises(InputError, match=r"example 3: a masked position must be a token's\. Received:"):
            open_pairs([path])
