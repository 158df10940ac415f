import itertools
import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from preprocessing import batches, features
from preprocessing.errors import InputError
from preprocessing.tasks import examples, labelling
from preprocessing.tasks.labelling import OneLabel, Score, SeveralLabels
from preprocessing.tasks.packing import MOST_WINDOWS, pack, pack_windows, windows
from preprocessing.tasks.tables import Columns, Table
from preprocessing.tokenizer import BertTokenizer

WORDS = ["a", "b", "c", "d", "e", "f", "good", "bad", "film"]
VOCAB = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
TOKENIZER = BertTokenizer(VOCAB)


def table(folder, name, *rows, **columns):
    path = folder / f"{name}.tsv"
    path.write_text("".join("\t".join(row) + "\n" for row in rows))
    return Table(path, Columns(header=False, **columns))


def prepare(folder, train, dev, labels=None, labelling=None, **options):
    options = {"max_seq_length": 8, "labelling": labelling or OneLabel(labels)} | options
    return examples.prepare(train, dev, TOKENIZER, folder / "examples", **options)


def arrays(split, classes):
    return batches.open_examples([split.file], features.classified(classes), vocab_size=len(VOCAB)).arrays


def test_examples_are_those_of_the_rows(tmp_path):
    train = table(tmp_path, "train", ("good film", "pos"), ("bad", "neg"), ("a b c d e f good", "pos"), ("film", ""))
    dev = table(tmp_path, "dev", ("good", "pos"), ("bad", "odd"), ("bad film", ""), ("", "pos"))
    prepared = prepare(tmp_path, train, dev)
    assert prepared.labels == ["neg", "pos"]
    found = arrays(prepared.train, 2)
    ids = [[VOCAB[i] for i in row] for row in found[features.INPUT_IDS]]
    assert ids[0] == ["[CLS]", "good", "film", "[SEP]", *["[PAD]"] * 4]
    assert ids[2] == ["[CLS]", *"abcdef", "[SEP]"]
    assert found[features.LABEL_IDS].tolist() == [[1], [0], [1]]
    assert arrays(prepared.dev, 2)[features.LABEL_IDS].tolist() == [[1], [2], [2]]
    train, dev = prepared.train, prepared.dev
    assert (train.rows, train.counts, train.cut, train.tokens, train.set_aside) == (3, [1, 2], 1, 4 + 3 + 8, 1)
    assert (dev.rows, dev.counts, dev.unknown, dev.unlabelled, dev.set_aside) == (3, [0, 1], 1, 1, 1)
    notes = "\n".join(prepared.notes())
    for words in (
        "train: 1 rows cannot be used: ",
        "train.tsv:4 has no label",
        "dev.tsv:2 'odd'",
        "dev.tsv:3",
        "dev.tsv:4 text (1) is empty",
    ):
        assert words in notes
    (aside,) = (tmp_path / "examples").glob("*set_aside.tsv")
    assert len(aside.read_text().splitlines()) == 2


def test_rows_with_the_id_of_another_are_told(tmp_path):
    rows = ("good", "pos", "1"), ("bad", "neg", "2"), ("film", "pos", "1")
    train = table(tmp_path, "train", *rows, id="3")
    prepared = prepare(tmp_path, train, train)
    assert (prepared.train.rows, prepared.train.repeated) == (3, 1)
    notes = [note for note in prepared.notes() if "the id of" in note]
    told = f"1 rows have the id of a row before them: {train.path}:3 '1'"
    assert notes == [f"train: {told}", f"dev: {told}"]


def test_pairs_and_what_stays_of_long_ones(tmp_path):
    train = table(tmp_path, "train", ("a", "b", "x"), ("a b c d", "e f good", "y"), text="1", second="2", label="3")
    found = arrays(prepare(tmp_path, train, train).train, 2)
    ids = [" ".join(VOCAB[i] for i in row) for row in found[features.INPUT_IDS]]
    assert ids == ["[CLS] a [SEP] b [SEP] [PAD] [PAD] [PAD]", "[CLS] a b c [SEP] e f [SEP]"]
    assert found[features.SEGMENT_IDS].tolist() == [[0, 0, 0, 1, 1, 0, 0, 0], [0, 0, 0, 0, 0, 1, 1, 1]]
    found = arrays(prepare(tmp_path, train, train, long="head-tail").train, 2)
    assert " ".join(VOCAB[i] for i in found[features.INPUT_IDS][1]) == "[CLS] b c d [SEP] f good [SEP]"


def test_head_and_tail():
    ids = pack(TOKENIZER, ["a b c d e f good bad film a"], None, 10, True)[0][features.INPUT_IDS][0]
    assert " ".join(VOCAB[i] for i in ids) == "[CLS] a b e f good bad film a [SEP]"


@pytest.mark.parametrize("head_tail", [False, True])
@pytest.mark.parametrize("pair", [False, True])
def test_the_same_ids_as_a_served_model_has(head_tail, pair):
    """Of texts of any length, the second of a pair empty, too."""
    from serving.signatures import packing

    random = np.random.default_rng(0)
    first, second = (
        [" ".join(random.choice(WORDS, random.integers(least, 30))) for _ in range(200)] for least in (0, 0)
    )
    second = second if pair else None
    found, cut = pack(TOKENIZER, first, second, 16, head_tail)
    options = {"lengths": (16,), "head_tail": head_tail, "cls_id": 2, "sep_id": 3, "pad_id": 0}
    rows = packing.rows(TOKENIZER.tokenize(first + (second or [])))
    if pair:
        expected = packing.pack_pair(*packing.halves(rows), optional=True, **options)
    else:
        expected = packing.pack_single(rows, **options)
    for name, value in expected.features.items():
        np.testing.assert_array_equal(found[name], value)
    np.testing.assert_array_equal(cut, expected.truncated)


def test_windows_are_those_of_a_served_model():
    from serving.signatures import packing

    texts = [" ".join(["a", "b", "c"] * 200)[: 2 * length] for length in (*range(40), 100, 599)]
    found, row, cut = pack_windows(TOKENIZER, texts, 8)
    whole = packing.rows(TOKENIZER.tokenize(texts))
    parts, of = packing.windows(whole, 6)
    np.testing.assert_array_equal(row, of)
    expected = packing.pack_single(parts, lengths=(8,), cls_id=2, sep_id=3, pad_id=0)
    for name, value in expected.features.items():
        np.testing.assert_array_equal(found[name], value)
    np.testing.assert_array_equal(cut, whole.lengths > 6)


@pytest.mark.parametrize("capacity", [1, 5, 6])
def test_every_token_is_in_a_window(capacity):
    lengths = np.arange(capacity * MOST_WINDOWS + 1)
    row, start, kept = windows(lengths, capacity)
    for length in lengths:
        spans = [(a, a + b) for a, b in zip(start[row == length], kept[row == length], strict=True)]
        assert len(spans) == max(1, -(-length // capacity))
        assert (spans[0][0], spans[-1][1]) == (0, length)
        assert all(after[0] <= before[1] for before, after in itertools.pairwise(spans))
    assert len(windows(np.array([10**6]), capacity)[0]) == MOST_WINDOWS


def test_a_long_text_is_several_examples(tmp_path):
    train = table(tmp_path, "train", ("a b c d e f good bad", "x"), ("b", "y"))
    prepared = prepare(tmp_path, train, train, long="windows")
    assert (prepared.train.rows, prepared.train.texts, prepared.train.cut, prepared.train.counts) == (3, 2, 1, [1, 1])
    found = arrays(prepared.train, 2)
    assert found[features.LABEL_IDS].tolist() == [[0], [0], [1]]
    assert [VOCAB[i] for i in found[features.INPUT_IDS][1]] == ["[CLS]", *"cdef", "good", "bad", "[SEP]"]


def test_what_the_same_tables_gave_is_used_again(tmp_path):
    train, dev = (table(tmp_path, name, ("a", "x"), ("b", "y")) for name in ("train", "dev"))
    first = prepare(tmp_path, train, dev)
    before = pathlib.Path(first.train.file).stat().st_mtime_ns
    assert prepare(tmp_path, train, dev) == first
    assert pathlib.Path(first.train.file).stat().st_mtime_ns == before
    assert prepare(tmp_path, train, dev, max_seq_length=9).train.file != first.train.file
    pathlib.Path(first.dev.file).unlink()  # of a folder that was copied in part
    assert prepare(tmp_path, train, dev) == first
    changed = table(tmp_path, "train", ("a", "x"), ("c", "y"))
    assert prepare(tmp_path, changed, dev).train.file != first.train.file


def test_texts_in_train_and_dev_are_told(tmp_path):
    train = table(tmp_path, "train", ("a", "x"), ("b", "y"), ("a", "y"))
    dev = table(tmp_path, "dev", ("c", "x"), ("a", "x"), ("a", "y"))
    prepared = prepare(tmp_path, train, dev)
    assert prepared.leaked == 2
    assert f"2 rows of dev have the text of a row of train, so that dev flatters: {dev.path}:2; {dev.path}:3" in list(
        prepared.notes()
    )


def test_labels_that_look_alike_and_labels_declared(tmp_path):
    train = table(tmp_path, "train", ("a", "Good"), ("b", "good "), ("c", "bad"))
    prepared = prepare(tmp_path, train, train)
    assert prepared.labels == ["Good", "bad", "good "]
    assert "labels that differ by case or blanks alone are different classes: 'Good', 'good '" in list(prepared.notes())
    prepared = prepare(tmp_path, train, train, labels=["good ", "bad", "Good", "none"])
    assert prepared.train.counts == [1, 1, 1, 0]
    assert "train has no row of 'none'" in list(prepared.notes())
    with pytest.raises(InputError, match=r"train.tsv:1: a label must be one of those declared \(x\). Received: 'Good'"):
        prepare(tmp_path, train, train, labels=["x"])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("a", "x"), ("b", "x")], "train.tsv: training needs at least two classes. Received: 'x'"),
        ([("a", ""), ("b", "")], "train.tsv: training needs at least two classes. Received: 'no labelled row'"),
    ],
)
def test_bad_tables(tmp_path, rows, message):
    dev = table(tmp_path, "dev", ("a", "x"))
    with pytest.raises(InputError, match=message):
        prepare(tmp_path, table(tmp_path, "train", *rows), dev)


def test_a_dev_table_without_usable_rows(tmp_path):
    train = table(tmp_path, "train", ("a", "x"), ("b", "y"))
    with pytest.raises(InputError, match=r"dev.tsv: a table must have usable rows. Received: '.*dev.tsv:1 text"):
        prepare(tmp_path, train, table(tmp_path, "dev", ("", "x")))


def test_a_column_that_is_no_label(tmp_path, monkeypatch):
    monkeypatch.setattr(labelling, "MAX_LABELS", 2)
    train = table(tmp_path, "train", *((word, word) for word in "abcd"))
    with pytest.raises(InputError, match=r"train.tsv:3: more than 2 different labels; name the column"):
        prepare(tmp_path, train, train)


def test_the_report_is_json(tmp_path):
    train = table(tmp_path, "train", ("a", "x"), ("b", "y"))
    prepare(tmp_path, train, train)
    (report,) = (tmp_path / "examples").glob("*.json")
    assert json.loads(report.read_text())["labels"] == ["x", "y"]
    assert tf.io.gfile.exists(json.loads(report.read_text())["train"]["file"])


def test_several_labels_a_row(tmp_path):
    columns = {"separator": "|"}
    train = table(tmp_path, "train", ("a", "x|y"), ("b", ""), ("c", " z | x |x"), **columns)
    dev = table(tmp_path, "dev", ("d", "y|odd"), ("e", "z"), **columns)
    prepared = prepare(tmp_path, train, dev, labelling=SeveralLabels())
    assert prepared.labels == ["x", "y", "z"]
    spec = features.several_labels(3)
    found = [
        batches.open_examples([split.file], spec, vocab_size=len(VOCAB)).arrays[features.LABEL_IDS].tolist()
        for split in (prepared.train, prepared.dev)
    ]
    assert found == [[[1, 1, 0], [0, 0, 0], [1, 0, 1]], [[0, 1, 0], [0, 0, 1]]]
    assert (prepared.train.counts, prepared.train.set_aside) == ([2, 1, 1], 0)
    assert (prepared.dev.counts, prepared.dev.unknown) == ([0, 1, 1], 1)
    with pytest.raises(InputError, match=r"train.tsv:1: a label must be one of those declared \(x, z\). Received: 'y'"):
        prepare(tmp_path, train, dev, labelling=SeveralLabels(["x", "z"]))
    with pytest.raises(InputError, match="training needs rows with labels"):
        prepare(tmp_path, table(tmp_path, "none", ("a", ""), ("b", ""), **columns), dev, labelling=SeveralLabels())


def test_scores(tmp_path):
    train = table(tmp_path, "train", ("a", "1"), ("b", "nan"), ("c", "-3.5"), ("d", ""))
    dev = table(tmp_path, "dev", ("d", "1e3"), ("e", "much"))
    prepared = prepare(tmp_path, train, dev, labelling=Score())
    assert (prepared.mean, prepared.scale) == (-1.25, 2.25)
    found = [
        batches.open_examples([split.file], features.SCORED, vocab_size=len(VOCAB)).arrays[features.SCORES].tolist()
        for split in (prepared.train, prepared.dev)
    ]
    assert found == [[[1.0], [-3.5]], [[1000.0]]]
    assert "dev.tsv:2 its label must be a finite number. Received: 'much'" in "\n".join(prepared.notes())
    assert prepare(tmp_path, train, dev, labelling=Score()) == prepared
    with pytest.raises(InputError, match="the rows' numbers must differ"):
        prepare(tmp_path, table(tmp_path, "same", ("a", "2"), ("b", "2")), dev, labelling=Score())
