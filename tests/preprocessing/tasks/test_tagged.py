import json
import pathlib

import pytest

from preprocessing import batches, features
from preprocessing.errors import InputError
from preprocessing.tasks import tagged
from preprocessing.tasks.sentences import Sentences
from preprocessing.tokenizer import BertTokenizer

VOCAB = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "run", "##s", "."]
TOKENIZER = BertTokenizer(VOCAB)
TRAIN = "a B-X\nruns I-X\n\u200b O\n\nb O\n\n" + "a O\n" * 9 + "\nb\n"
DEV = "runs B-X\na I-Y\n\nb O\n"


def source(folder, name, content, **options):
    path = folder / f"{name}.txt"
    path.write_text(content)
    return Sentences(path, **options)


def prepare(folder, train, dev, **options):
    return tagged.prepare(train, dev, TOKENIZER, folder / "examples", **{"max_seq_length": 8} | options)


def arrays(split, tags):
    return batches.open_examples([split.file], features.tagged(tags), vocab_size=len(VOCAB)).arrays


def test_examples_are_those_of_the_words(tmp_path):
    prepared = prepare(tmp_path, source(tmp_path, "train", TRAIN), source(tmp_path, "dev", DEV))
    assert prepared.labels == ["B-X", "I-X", "O"]
    found = arrays(prepared.train, 3)
    ids = [[VOCAB[i] for i in row] for row in found[features.INPUT_IDS]]
    assert ids[0] == ["[CLS]", "a", "run", "##s", "[UNK]", "[SEP]", "[PAD]", "[PAD]"]
    assert found[features.TAG_IDS][0].tolist() == [0, 1, 2, 0, 3, 0, 0, 0]
    assert (found[features.TAG_IDS] == 3).sum() == 1 + 1 + 9  # each word once, in whatever window
    assert arrays(prepared.dev, 3)[features.TAG_IDS][0].tolist() == [0, 1, 0, 4, 0, 0, 0, 0]
    train, dev = prepared.train, prepared.dev
    assert (train.sentences, train.words, train.rows, train.cut, train.removed) == (3, 13, 4, 1, 1)
    assert (train.counts, train.unknown, train.set_aside) == ([1, 1, 11], 0, 1)
    assert (dev.counts, dev.unknown, dev.broken) == ([1, 0, 1], 1, 1)
    assert prepared.leaked == 1
    notes = "\n".join(prepared.notes())
    for words in (
        f"train: 1 sentences cannot be used: {tmp_path}/train.txt:17 line 17 has 1 columns, the first one 2",
        f"dev: 1 sentences break their tags' scheme; an I- without its B- begins an entity: {tmp_path}/dev.txt:2 'I-Y'",
        f"dev: 1 words have a tag that train does not have and count as errors: {tmp_path}/dev.txt:2 'B-Y'",
        "train: of 1 words nothing is left when they are cleaned: [UNK] stands for them",
        f"1 sentences of dev are in train, so that dev flatters: {tmp_path}/dev.txt:4",
    ):
        assert words in notes
    (aside,) = (tmp_path / "examples").glob("*set_aside.tsv")
    assert len(aside.read_text().splitlines()) == 1


def test_sentences_with_the_id_of_another_are_told(tmp_path):
    path = tmp_path / "train.jsonl"
    lines = ({"id": name, "words": ["a", word], "tags": ["A", "B"]} for name, word in ((7, "run"), (8, "b"), (7, "c")))
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    prepared = prepare(tmp_path, Sentences(path), Sentences(path))
    assert f"train: 1 sentences have the id of a sentence before them: {path}:3 '7'" in list(prepared.notes())


def test_what_the_same_files_gave_is_used_again(tmp_path):
    train, dev = source(tmp_path, "train", TRAIN), source(tmp_path, "dev", DEV)
    first = prepare(tmp_path, train, dev)
    before = pathlib.Path(first.train.file).stat().st_mtime_ns
    assert prepare(tmp_path, train, dev) == first
    assert pathlib.Path(first.train.file).stat().st_mtime_ns == before
    assert prepare(tmp_path, train, dev, max_seq_length=9).train.file != first.train.file
    changed = source(tmp_path, "train", TRAIN.replace("b O", "a O"))
    assert prepare(tmp_path, changed, dev).train.file != first.train.file


def test_tags_that_are_declared(tmp_path):
    train = source(tmp_path, "train", "a X\nb Y\n")
    assert prepare(tmp_path, train, train, labels=["Z", "Y", "X"]).train.counts == [0, 1, 1]
    with pytest.raises(InputError, match=r"train.txt:2: a tag must be one of those declared \(X\). Received: 'Y'"):
        prepare(tmp_path, train, train, labels=["X"])


@pytest.mark.parametrize(
    ("train", "dev", "message"),
    [
        ("a X\n", "a X\n", "train.txt: training needs at least two tags. Received: 'X'"),
        ("a X\nb Y\n", "a Z\n", "dev.txt: dev must have words with tags of train. Received: none"),
    ],
)
def test_bad_files(tmp_path, train, dev, message):
    with pytest.raises(InputError, match=message):
        prepare(tmp_path, source(tmp_path, "train", train), source(tmp_path, "dev", dev))


def test_a_column_that_is_no_tag(tmp_path, monkeypatch):
    monkeypatch.setattr(tagged, "MAX_LABELS", 2)
    train = source(tmp_path, "train", "a x\n\na y\nb z\n")
    with pytest.raises(InputError, match=r"train.txt:3: more than 2 different tags; name the column"):
        prepare(tmp_path, train, train)


def test_sentences_without_tags_are_for_a_teacher(tmp_path):
    path, dev = tmp_path / "train.jsonl", source(tmp_path, "dev", DEV)
    lines = [
        {"words": ["a", "runs"], "tags": ["B-X", "O"]},
        {"words": ["b", "runs", "a"]},
        {"words": ["b"], "tags": None},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    without = prepare(tmp_path, Sentences(path), dev)
    assert (without.train.set_aside, without.train.untagged) == (2, 0)
    prepared = prepare(tmp_path, Sentences(path), dev, untagged=True)
    train = prepared.train
    assert (train.sentences, train.words, train.set_aside, train.untagged) == (3, 6, 0, 2)
    assert (train.counts, train.unknown, prepared.labels) == ([1, 1], 0, ["B-X", "O"])
    found = arrays(train, 2)[features.TAG_IDS][:, :6].tolist()
    assert found == [[0, 1, 2, 0, 0, 0], [0, 3, 3, 0, 3, 0], [0, 3, 0, 0, 0, 0]]
    assert f"train: 2 sentences have no tags and are learned from the teacher alone: {path}:2; {path}:3" in [
        *prepared.notes()
    ]
    assert prepare(tmp_path, Sentences(path), dev).train == without.train  # each finds its own again
