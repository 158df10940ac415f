"""From documents to examples in Beam: contents, determinism, pools, and the encoding."""

import collections
import gzip
import hashlib
import io
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import time

import apache_beam as beam
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocessing import features, tfrecord, vocab_file
from preprocessing.beam import nursery, progress, runner
from preprocessing.corpus import reading
from preprocessing.errors import InputError
from preprocessing.examples import encoding, planning, spilling, writing
from preprocessing.settings import CorpusSettings, ExampleSettings
from preprocessing.vocabulary import counting

WORDS = ["river", "stone", "bridge", "walk", "##ing", "##ed", "light", "under", "old", "new", "cat", "house", "."]
VOCABULARY = [*features.SPECIAL_TOKENS, "[unused1]", *WORDS, *(f"d{number}" for number in range(120))]


@pytest.fixture(scope="module")
def vocab(tmp_path_factory):
    path = tmp_path_factory.mktemp("vocab") / "vocab.txt"
    vocab_file.save(VOCABULARY, path)
    return str(path)


def make_documents(count=60, seed=0):
    """Texts of sentences, each with a word that names its document."""
    chance = random.Random(seed)
    plain = [word for word in WORDS if not word.startswith("##")] + ["walking", "walked"]
    return [
        "\n".join(
            " ".join([f"d{number}", *chance.choices(plain, k=chance.randint(1, 20)), "."])
            for _ in range(chance.randint(1, 12))
        )
        for number in range(count)
    ]


def examples(paths, vocab, workers=1, options=(), **kwargs):
    """(serialized examples, counters) of a run of MakeExamples."""
    folder = pathlib.Path(paths[0]).parent / f"out-{random.random()}"
    pipeline = beam.Pipeline(options=runner.make_options(options, workers))
    made = (
        pipeline
        | reading.ReadDocuments(CorpusSettings(tuple(map(str, paths)), format="sentences"))
        | writing.MakeExamples(ExampleSettings(**kwargs), vocab)
    )
    _ = made | beam.io.WriteToTFRecord(str(folder / "x"))
    counters = runner.counters(runner.run(pipeline))
    return [record for path in folder.glob("x*") for record in tfrecord.records(path.open("rb"))], counters


def shards(paths, vocab, folder, count, workers=1, compression="none", **kwargs):
    """Records of each shard of a run of WriteExamples on files."""
    pipeline = beam.Pipeline(options=runner.make_options(workers=workers))
    _ = pipeline | writing.WriteExamples(
        ExampleSettings(**kwargs),
        vocab,
        str(folder),
        shards=count,
        compression=compression,
        corpus=CorpusSettings(tuple(map(str, paths)), format="sentences"),
    )
    runner.run(pipeline)
    opened = gzip.open if compression == "gzip" else open
    found = {}
    for path in sorted(pathlib.Path(folder).glob("examples-*")):
        with opened(path, "rb") as file:
            found[path.name] = list(tfrecord.records(file))
    return found


def one_file(folder, texts=None, name="a.txt"):
    path = folder / name
    path.write_text("\n\n".join(texts or make_documents()) + "\n")
    return path


def parse(serialized):
    """Arrays by name of serialized examples."""
    parsed = [tf.train.Example.FromString(one).features.feature for one in serialized]
    return {
        name: np.array([list(one[name].float_list.value or one[name].int64_list.value) for one in parsed])
        for name in sorted(parsed[0])
    }


def digest(serialized):
    return hashlib.sha256(b"".join(sorted(serialized))).hexdigest()


@pytest.fixture(scope="module")
def made(tmp_path_factory, vocab):
    return examples([one_file(tmp_path_factory.mktemp("made"))], vocab, dupe_factor=5, max_seq_length=64)


class TestContents:
    def test_the_feature_contract(self, made):
        columns = parse(made[0])
        lengths = features.lengths(64, 20)
        assert {name: values.shape[1] for name, values in columns.items()} == lengths
        ids, mask, segments = (columns[name] for name in features.SEQUENCE_FEATURES)
        _, masked, weights = (columns[name] for name in features.PREDICTION_FEATURES)
        cls, sep, pad = (VOCABULARY.index(token) for token in ("[CLS]", "[SEP]", "[PAD]"))
        total = mask.sum(axis=1)
        assert np.array_equal(mask, np.arange(64) < total[:, None])
        assert (ids[:, 0] == cls).all()
        assert ((ids == sep).sum(axis=1) == 2).all()
        assert (ids[mask == 0] == pad).all()
        assert (segments[mask == 0] == 0).all()
        assert (np.diff(segments, axis=1)[np.arange(63) < total[:, None] - 1] >= 0).all()
        assert (weights.sum(axis=1) == np.minimum(20, np.maximum(1, np.rint(total * 0.15)))).all()
        assert (masked[weights > 0] >= 6).all()  # no special token, no [unused]
        assert set(columns[features.NEXT_SENTENCE_LABELS].reshape(-1)) == {0, 1}

    def test_labels_are_right(self, made):
        """Every sentence names its document: B of a random pair names another than A, B of a true pair the same."""
        columns = parse(made[0])
        ids = columns["input_ids"].copy()
        rows, slots = np.nonzero(columns["masked_lm_weights"])
        ids[rows, columns["masked_lm_positions"][rows, slots]] = columns["masked_lm_ids"][rows, slots]
        first_name = VOCABULARY.index("d0")
        checked = collections.Counter()
        for row, segments, label in zip(ids, columns["segment_ids"], columns["next_sentence_labels"], strict=True):
            a, b = (set(row[(segments == side) & (row >= first_name)].tolist()) for side in (0, 1))
            assert len(a) <= 1
            assert len(b) <= 1
            if a and b:
                assert (a != b) == label[0]
                checked[int(label[0])] += 1
        assert min(checked.values()) > 50

    def test_counters_and_report(self, made):
        serialized, counters = made
        report = writing.report(counters)
        columns = parse(serialized)
        assert report["examples"] == len(serialized)
        assert report["documents"] == 60
        assert report["padding_share"] == pytest.approx(1 - columns["input_mask"].mean(), abs=1e-6)
        assert report["random_next_share"] == pytest.approx(columns["next_sentence_labels"].mean(), abs=1e-6)
        assert report["masked_share"] == pytest.approx(
            columns["masked_lm_weights"].sum() / columns["input_mask"].sum(), abs=1e-6
        )
        assert report["unknown_share"] == 0
        assert report["tokens"] > report["sentences"] > report["documents"]

    def test_model_gardens_names(self, tmp_path, vocab):
        serialized, _ = examples([one_file(tmp_path)], vocab, dupe_factor=1, names="model-garden")
        names = set(parse(serialized))
        assert {"input_word_ids", "input_type_ids", "input_mask"} < names
        assert not {"input_ids", "segment_ids"} & names

    def test_one_copy_is_the_first_of_many(self, tmp_path, vocab):
        path = one_file(tmp_path)
        one, two = (examples([path], vocab, dupe_factor=copies)[0] for copies in (1, 2))
        assert set(one) < set(two)

    @pytest.mark.parametrize(("pairs", "segments"), [("none", 1), ("sentence-order", 2)])
    def test_other_pairs_from_one_document(self, tmp_path, vocab, pairs, segments):
        serialized, _ = examples([one_file(tmp_path, make_documents(1))], vocab, pairs=pairs, dupe_factor=2)
        columns = parse(serialized)
        assert ((columns["input_ids"] == VOCABULARY.index("[SEP]")).sum(axis=1) == segments).all()

    def test_one_document_only(self, tmp_path, vocab):
        with pytest.raises(InputError, match="no next sentence to draw"):
            examples([one_file(tmp_path, make_documents(1) * 2)], vocab)

    def test_no_token(self, tmp_path, vocab):
        with pytest.raises(InputError, match="no document has a token"):
            examples([one_file(tmp_path, ["\u200b", "\u200d"])], vocab)


class TestDeterminism:
    def test_same_bytes_whatever_the_files_order_and_duplicates(self, tmp_path, vocab, made):
        texts = make_documents()
        wanted = digest(made[0])
        random.Random(3).shuffle(texts)
        forty = [one_file(tmp_path, texts[at::40] + texts[:1], f"{at:02}.txt") for at in range(40)]
        assert digest(examples(forty, vocab, dupe_factor=5, max_seq_length=64)[0]) == wanted

    @pytest.mark.parametrize(("count", "compression"), [(3, "none"), (1, "gzip"), (200, "none")])
    def test_same_bytes_in_any_number_of_shards(self, tmp_path, vocab, made, count, compression):
        path = one_file(tmp_path)
        found = shards([path], vocab, tmp_path, count, compression=compression, dupe_factor=5, max_seq_length=64)
        assert list(found) == [writing.shard_name(shard, count, compression) for shard in range(count)]
        assert digest([record for records in found.values() for record in records]) == digest(made[0])

    def test_shards_are_alike_in_size_and_read_by_tensorflow(self, tmp_path, vocab):
        path = one_file(tmp_path, make_documents(120))
        found = shards([path], vocab, tmp_path, 4, compression="gzip")
        sizes = [len(records) for records in found.values()]
        assert min(sizes) > 0.5 * max(sizes)
        files = [str(tmp_path / name) for name in found]
        assert sum(1 for _ in tf.data.TFRecordDataset(files, "GZIP")) == sum(sizes)

    def test_same_bytes_from_several_threads(self, tmp_path, vocab, made):
        options = ["--direct_running_mode=multi_threading", "--direct_num_workers=3"]
        options.append(f"--runner={runner.LOCAL_RUNNER}")
        found = examples([one_file(tmp_path)], vocab, options=options, dupe_factor=5, max_seq_length=64)[0]
        assert digest(found) == digest(made[0])

    @pytest.mark.long
    @pytest.mark.parametrize("forked", [False, True])
    def test_same_bytes_from_two_processes(self, tmp_path, vocab, made, monkeypatch, forked):
        monkeypatch.setenv(nursery.SOCKET, "")
        monkeypatch.delenv(nursery.SOCKET)
        if forked:
            nursery.start()
        path = one_file(tmp_path)
        found = shards([path], vocab, tmp_path, 4, workers=2, dupe_factor=5, max_seq_length=64)
        assert digest([record for records in found.values() for record in records]) == digest(made[0])

    def test_small_batches_give_the_same_bytes(self, tmp_path, vocab, made, monkeypatch):
        monkeypatch.setattr(spilling, "_TEXT_BATCH_BYTES", 100)
        monkeypatch.setattr(spilling, "_SPILL_TOKENS", 300)
        monkeypatch.setattr(writing, "_BATCH_EXAMPLES", 7)
        monkeypatch.setattr(planning, "_PART_TOKENS", 500)
        assert digest(examples([one_file(tmp_path)], vocab, dupe_factor=5, max_seq_length=64)[0]) == digest(made[0])

    def test_seeds_differ(self, tmp_path, vocab, made):
        other = examples([one_file(tmp_path)], vocab, dupe_factor=5, max_seq_length=64, seed=1)[0]
        assert not set(other) & set(made[0])


class TestPhrases:
    def test_masked_whole_counted_and_the_same_bytes(self, tmp_path, vocab):
        path = tmp_path / "phrases.list"
        path.write_text("old bridge\nriver stone\nold bridge cat\nwalking\nDelhi\n")
        arguments = {"dupe_factor": 3, "max_seq_length": 64, "masking": "phrases", "phrases": str(path)}
        texts = make_documents()
        serialized, counters = examples([one_file(tmp_path, texts)], vocab, **arguments)
        random.Random(5).shuffle(texts)
        halves = [one_file(tmp_path, texts[at::2], f"{at}.txt") for at in range(2)]
        options = ["--direct_running_mode=multi_threading", "--direct_num_workers=2"]
        options.append(f"--runner={runner.LOCAL_RUNNER}")
        assert digest(examples(halves, vocab, options=options, **arguments)[0]) == digest(serialized)
        columns = parse(serialized)
        old, bridge, cat = (VOCABULARY.index(word) for word in ("old", "bridge", "cat"))
        whole = 0
        for at, ids in enumerate(columns["input_ids"]):
            chosen = columns["masked_lm_positions"][at][columns["masked_lm_weights"][at] > 0]
            original = ids.copy()
            original[chosen] = columns["masked_lm_ids"][at][columns["masked_lm_weights"][at] > 0]
            for start in np.flatnonzero((original[:-1] == old) & (original[1:] == bridge)):
                length = 3 if original[start + 2] == cat else 2
                is_in = np.isin(np.arange(start, start + length), chosen)
                assert is_in.all() or not is_in.any()
                whole += is_in.all()
        report = writing.report(counters)
        assert report["phrases_found"] > report["phrases_masked"] > whole > 0


class TestPools:
    def slots(self, count):
        chance = np.random.default_rng(0)
        return [(slot, int(chance.integers(1, 50)), int(chance.integers(1, 90_000))) for slot in range(count)]

    def test_several_pools_of_some_size_dealt_anew_for_each_copy(self, monkeypatch):
        slots = self.slots(1024)
        plan = planning.make_plan(slots, ExampleSettings(dupe_factor=20))
        met = collections.defaultdict(set)
        for pool_of in plan.pool_of:
            tokens = collections.Counter()
            members = collections.defaultdict(set)
            for slot, _, size in slots:
                tokens[pool_of[slot]] += size
                members[pool_of[slot]].add(slot)
            assert 4 <= len(tokens) <= 6
            assert all(size < 1.2 * sum(tokens.values()) / 5 for size in tokens.values())
            for group in members.values():
                for slot in group:
                    met[slot] |= group
        assert min(map(len, met.values())) > 950  # over the copies, a document meets nearly all of the corpus

    @given(st.permutations([(0, 1, 9), (5, 1, 9_000_000), (7, 3, 8_000_000), (9, 1, 20_000_000), (11, 1, 1)]))
    @settings(deadline=None)
    def test_no_pool_of_one_document(self, slots):
        counts = {slot: count for slot, count, _ in slots}
        plan = planning.make_plan(slots, ExampleSettings(dupe_factor=5))
        assert plan == planning.make_plan(sorted(slots), ExampleSettings(dupe_factor=5))
        for pool_of in plan.pool_of:
            held = collections.Counter()
            for slot, count in counts.items():
                held[pool_of[slot]] += count
            assert min(held.values()) >= 2
            assert sorted(held) == list(range(len(held)))

    def test_negatives_spread_over_the_corpus_and_never_come_from_the_document_itself(
        self, tmp_path, vocab, monkeypatch
    ):
        monkeypatch.setattr(planning, "POOL_TOKENS", 2_000)
        texts = ["\n".join([f"d{number} river stone bridge cat ."] * 30) for number in range(60)]
        serialized, _ = examples([one_file(tmp_path, texts)], vocab, dupe_factor=40, max_seq_length=32)
        columns = parse(serialized)
        ids = columns["input_ids"].copy()
        rows, slots = np.nonzero(columns["masked_lm_weights"])
        ids[rows, columns["masked_lm_positions"][rows, slots]] = columns["masked_lm_ids"][rows, slots]
        first = VOCABULARY.index("d0")
        drawn = collections.defaultdict(collections.Counter)
        for row, segments, label in zip(ids, columns["segment_ids"], columns["next_sentence_labels"], strict=True):
            names = [row[(segments == side) & (row >= first)] for side in (0, 1)]
            if label[0] and all(map(len, names)):
                drawn[names[0][0]][names[1][0]] += 1
        assert len(drawn) == 60
        for document, others in drawn.items():
            assert document not in others
            assert len(others) >= 50  # of 59, in some 170 draws
            # Documents of one slot meet in every copy: one in a pool of twelve here, of thousands otherwise.
            assert max(others.values()) < 0.2 * sum(others.values())


class TestEncoding:
    @given(
        values=st.lists(st.lists(st.integers(0, 2**28 - 1), min_size=3, max_size=3), min_size=1, max_size=5),
        floats=st.floats(width=32, allow_nan=False),
    )
    @settings(deadline=None)
    def test_bytes_are_protocol_buffers_own(self, values, floats):
        columns = {
            "b_numbers": np.array(values),
            "a": np.full((len(values), 2), floats, np.float32),
            "flag": np.ones((len(values), 1), np.int32),
        }
        found = list(encoding.serialize(columns))
        assert len(found) == len(values)
        for row, serialized in enumerate(found):
            wanted = tf.train.Example()
            wanted.features.feature["b_numbers"].int64_list.value.extend(values[row])
            wanted.features.feature["a"].float_list.value.extend([floats] * 2)
            wanted.features.feature["flag"].int64_list.value.append(1)
            assert serialized == wanted.SerializeToString(deterministic=True)

    @pytest.mark.parametrize("bad", [-1, 2**28])
    def test_integers_out_of_range(self, bad):
        with pytest.raises(ValueError, match=r"only integers from 0 to 2\*\*28 - 1"):
            encoding.serialize({"x": np.array([[1, bad]])})

    def test_no_rows(self):
        assert encoding.serialize({"x": np.zeros((0, 3), np.int64)}) == []

    def test_records_are_tensorflows(self, tmp_path):
        records = [b"", b"one", bytes(range(256)) * 300]
        path = tmp_path / "x.tfrecord"
        path.write_bytes(tfrecord.frame(records))
        assert [record.numpy() for record in tf.data.TFRecordDataset(str(path))] == records
        with tf.io.TFRecordWriter(str(path)) as writer:
            for record in records:
                writer.write(record)
        assert list(tfrecord.records(path.open("rb"))) == records
        with pytest.raises(OSError, match="corrupt"):
            list(tfrecord.records(io.BytesIO(tfrecord.frame(records)[:-9] + b"12345678\0")))


COUNTED: dict[str, int] = {}


def keep(item):
    COUNTED[item[0]] = item[1]


def test_count_words(tmp_path):
    COUNTED.clear()
    path = one_file(tmp_path, ["The cat. The Dog!", "the café, " * 3])
    pipeline = beam.Pipeline(options=runner.make_options())
    documents = pipeline | reading.ReadDocuments(CorpusSettings((str(path),)))
    _ = documents | counting.CountWords(lower_case=True) | beam.Map(keep)
    runner.run(pipeline)
    assert COUNTED == {"the": 5, "cat": 1, ".": 1, "dog": 1, "!": 1, "cafe": 3, ",": 3}


class TestRunning:
    def test_the_local_runner_by_default(self, monkeypatch):
        monkeypatch.delenv(nursery.SOCKET, raising=False)
        assert runner.make_options().get_all_options()["runner"] == runner.LOCAL_RUNNER
        two = runner.make_options(workers=2).get_all_options()
        assert (two["direct_running_mode"], two["direct_num_workers"]) == ("multi_processing", 2)

    def test_the_nursery_of_workers_ends_with_its_process(self):
        program = "from preprocessing.beam import nursery as n; n.start(); import os; print(os.environ[n.SOCKET])"
        path = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
        folder = pathlib.Path(path.strip()).parent
        for _ in range(300):
            if not folder.exists():
                break
            time.sleep(0.1)
        assert not folder.exists()

    @pytest.mark.parametrize("forked", [False, True])
    def test_a_killed_worker_fails_the_run(self, monkeypatch, capfd, forked):
        monkeypatch.setenv(nursery.SOCKET, "")
        monkeypatch.delenv(nursery.SOCKET)
        if forked:
            nursery.start()
        launcher = os.getpid()

        def die(_):
            assert os.getpid() != launcher
            os.kill(os.getpid(), signal.SIGKILL)

        pipeline = beam.Pipeline(options=runner.make_options(workers=2))
        _ = pipeline | beam.Create(range(8)) | beam.Reshuffle() | beam.Map(die)
        with pytest.raises(InputError, match="a worker process ended before its work was done"):
            runner.run(pipeline)
        assert "Traceback" not in capfd.readouterr().err

    @pytest.mark.parametrize(
        "options",
        [
            ["--runner=FlinkRunner", "--flink_master=host:8081", "--environment_type=EXTERNAL"],
            ["--runner=SparkRunner", "--spark_master_url=spark://host:7077"],
            ["--runner=PrismRunner", "--environment_type=LOOPBACK"],
            ["--runner=DataflowRunner", "--project=p", "--region=europe-west1", "--temp_location=gs://b/t"],
        ],
    )
    def test_other_runners_options_reach_beam(self, options):
        found = runner.make_options(options, workers=2).get_all_options()
        for option in options:
            name, value = option.removeprefix("--").split("=")
            assert found[name] == value
        assert found["direct_running_mode"] == "in_memory"

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--runer=DataflowRunner"], "--runer=DataflowRunner; did you mean --runner?"),
            (["--runer", "DataflowRunner"], "--runer DataflowRunner; did you mean --runner?"),
            (["-runner=DataflowRunner"], "did you mean --runner?"),
            (["--run=DataflowRunner"], "--run=DataflowRunner"),
            (["DataflowRunner"], "DataflowRunner"),
            (["--runner=DirectRunner", "--xyz"], "--xyz"),
            (["--runner="], "must name a runner"),
            (["--runner"], "expected one argument"),
            (["--direct_num_workers=two"], "invalid int value: 'two'"),
        ],
    )
    def test_an_option_that_beam_does_not_know_is_told(self, options, message):
        for parse in (runner.make_options, runner.named_runner):
            with pytest.raises(InputError, match=re.escape(message)):
                parse(options)

    def test_an_option_that_only_the_runner_knows_is_left_to_it(self, caplog):
        options = ["--runner=FlinkRunner", "--object_reuse=true"]
        made = runner.make_options(options)
        assert made.get_all_options(retain_unknown_options=True)["object_reuse"] == "true"
        assert "Beam does not know --object_reuse=true: left to FlinkRunner" in caplog.text

    @pytest.mark.parametrize(
        ("error", "message"),
        [
            (RuntimeError("x\npreprocessing.errors.InputError: a.txt:1: bad [while running 'y']\n"), "a.txt:1: bad"),
            (RuntimeError("... InputError: a.txt: bad\\n\\nDuring handling"), "a.txt: bad"),
            (
                RuntimeError("OSError: [Errno 28] No space left on device [while running 'x']"),
                "No space left on device",
            ),
        ],
    )
    def test_errors_of_workers(self, error, message):
        with pytest.raises(InputError) as raised:
            runner.raise_input_error(error)
        assert str(raised.value) == message

    def test_other_errors_are_left_alone(self):
        runner.raise_input_error(RuntimeError("a bug"))

    def test_progress_adds_up(self, tmp_path, monkeypatch):
        monkeypatch.setattr(progress, "_INTERVAL", 0)
        for _ in range(2):
            worker = progress.WorkerProgress(str(tmp_path))
            worker.add(documents=2)
            worker.add(documents=3, examples=1)
        progress.WorkerProgress(None).add(documents=9)
        assert progress.total(str(tmp_path)) == {"documents": 10, "examples": 2}
