import gzip
import itertools

import numpy as np
import pytest

from preprocessing import batches, example_files, features, masking
from preprocessing.errors import InputError
from tests.model import small_examples


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
    return batches.open_examples(files, memory_limit=10 if request.param == "from disk" else 1 << 20)


def ids(dataset, count=None):
    return [batch[features.INPUT_IDS].numpy()[:, 1] for batch in itertools.islice(iter(dataset), count)]


def test_opening_counts_and_measures(examples):
    assert (examples.count, examples.max_seq_length, examples.max_predictions) == (87, 16, 3)
    assert examples.predictions > 0


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
    examples = batches.open_examples([small_examples.write(tmp_path / "a.tfrecord", arrays)])
    found = list(itertools.islice(iter(examples.batches(8, seed=3, buckets=(4, 8))), 20))
    for batch in found:
        longest = batch[features.INPUT_MASK].numpy().sum(axis=1)
        assert len(set(longest)) == 1
        assert batch[features.INPUT_IDS].shape[1] == longest[0]
        assert batch[features.MASKED_LM_IDS].shape[1] == 3
    again = list(itertools.islice(iter(examples.batches(8, seed=3, start=9, buckets=(4, 8))), 11))
    for first, second in zip(found[9:], again, strict=True):
        np.testing.assert_array_equal(first[features.INPUT_IDS], second[features.INPUT_IDS])


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
    examples = batches.open_examples([small_examples.write(tmp_path / "a.tfrecord", arrays)])
    assert examples.predictions == 0
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
        assert epochs(buckets=(16,)) == [[0] * 8] * 10 + [[1] * 8] * 2


def test_find_files(tmp_path):
    for name in ("examples-00001.tfrecord", "examples-00000.tfrecord.gz", "report.json"):
        (tmp_path / name).touch()
    found = [path.rsplit("/", 1)[1] for path in example_files.find_files(str(tmp_path))]
    assert found == ["examples-00000.tfrecord.gz", "examples-00001.tfrecord"]
    assert len(example_files.find_files(str(tmp_path / "*.tfrecord"))) == 1
    with pytest.raises(InputError, match="no example files"):
        example_files.find_files(str(tmp_path / "none*"))


class TestBadInput:
    def test_nothing_there(self, tmp_path):
        with pytest.raises(InputError, match="at least one file"):
            batches.open_examples([])
        with pytest.raises(InputError, match="no such file"):
            batches.open_examples([str(tmp_path / "absent.tfrecord")])

    def test_empty_file(self, tmp_path):
        (tmp_path / "a.tfrecord").touch()
        with pytest.raises(InputError, match=r"a\.tfrecord: one file of examples must hold at least one"):
            batches.open_examples([str(tmp_path / "a.tfrecord")])
        files = [str(tmp_path / "a.tfrecord"), small_examples.write(tmp_path / "b.tfrecord", numbered(4))]
        assert batches.by_length(files) == {16: files[1:]}
        assert batches.open_examples(files).files == (files[1],)

    def test_not_examples(self, tmp_path):
        (tmp_path / "a.tfrecord").write_bytes(b"just text, not records" * 10)
        with pytest.raises(InputError, match=r"a\.tfrecord: cannot be read"):
            batches.open_examples([str(tmp_path / "a.tfrecord")])

    @pytest.mark.parametrize("name", ["a.tfrecord", "a.tfrecord.gz"])
    def test_truncated(self, tmp_path, name):
        path = small_examples.write(tmp_path / name, numbered(50))
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) * 2 // 3])
        with pytest.raises(InputError, match=r"a\.tfrecord.*truncated or damaged"):
            batches.open_examples([path])

    def test_damaged(self, tmp_path):
        small_examples.write(tmp_path / "a.tfrecord", numbered(50))
        content = bytearray((tmp_path / "a.tfrecord").read_bytes())
        content[len(content) // 2] ^= 255
        (tmp_path / "a.tfrecord").write_bytes(bytes(content))
        with pytest.raises(InputError, match=r"a\.tfrecord.*truncated or damaged"):
            batches.open_examples([str(tmp_path / "a.tfrecord")])

    def test_lengths_that_differ(self, tmp_path):
        files = [
            small_examples.write(tmp_path / "a.tfrecord", numbered(4)),
            small_examples.write(tmp_path / "b.tfrecord", numbered(4, length=20)),
        ]
        with pytest.raises(InputError, match=r"b\.tfrecord: examples must have max_seq_length 16"):
            batches.open_examples(files)
        assert sorted(batches.by_length(files)) == [16, 20]

    def test_lengths_that_differ_within_a_file(self, tmp_path):
        short, long = numbered(1), numbered(1, length=20)
        path = tmp_path / "a.tfrecord"
        both = b"".join(
            gzip.decompress((tmp_path / name).read_bytes())
            for name, arrays in (("s.gz", short), ("l.gz", long))
            if small_examples.write(tmp_path / name, arrays)
        )
        path.write_bytes(both)
        with pytest.raises(InputError, match="does not have 16 tokens"):
            batches.open_examples([str(path)])

    def test_missing_feature(self, tmp_path):
        arrays = numbered(4)
        del arrays[features.SEGMENT_IDS]
        with pytest.raises(InputError, match="Missing: segment_ids"):
            batches.open_examples([small_examples.write(tmp_path / "a.tfrecord", arrays)])

    @pytest.mark.parametrize(
        ("name", "value", "message"),
        [
            (features.INPUT_IDS, 40, "example 3: a token id must lie inside the model's vocabulary.* 0 to 39"),
            (features.MASKED_LM_IDS, -1, "example 3: a token id"),
            (features.MASKED_LM_POSITIONS, 16, "example 3: a position must lie inside the sequence"),
            (features.INPUT_MASK, 2, "example 3: the mask must be 0 or 1"),
            (features.NEXT_SENTENCE_LABELS, 2, "example 3: the label must be 0 or 1"),
            (features.MASKED_LM_WEIGHTS, np.nan, "example 3: weights must be 0 or more"),
        ],
    )
    def test_values_out_of_range(self, tmp_path, name, value, message):
        arrays = small_examples.examples(8)
        arrays[name][3, 0] = value
        path = small_examples.write(tmp_path / "a.tfrecord", arrays)
        with pytest.raises(InputError, match=message):
            batches.open_examples([path], vocab_size=40)

    def test_a_prediction_in_the_padding(self, tmp_path):
        arrays = small_examples.examples(8)
        arrays[features.INPUT_MASK][3, arrays[features.MASKED_LM_POSITIONS][3, 0]] = 0
        path = small_examples.write(tmp_path / "a.tfrecord", arrays)
        with pytest.raises(InputError, match=r"example 3: a masked position must be a token's\. Received:"):
            batches.open_examples([path])
