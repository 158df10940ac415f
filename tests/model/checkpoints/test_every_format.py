"""What holds for each format of checkpoints. A new one is tested by standing in FORMATS."""

import contextlib
import itertools
import shutil

import pytest
import tensorflow as tf

from model import checkpoints
from model.encoder import heads
from preprocessing.errors import InputError
from preprocessing.features import SPECIAL_TOKENS
from tests.model.checkpoints.test_checkpoints import SETTINGS, VOCAB, assert_same, randomised

HEADS = [[*chosen] for size in range(3) for chosen in itertools.combinations(heads.PRETRAINING, size)]


class Another(heads.HeadLayer):
    def add_weights(self):
        self.kernel = self.matrix("kernel", 3, self.settings.hidden_size)

    def call(self, pooled_output):
        return tf.matmul(pooled_output, self.kernel.value, transpose_b=True)


ANOTHER = heads.Head(
    "another", "pooled", Another, "BertForAnother", (heads.Array("kernel", "another/kernel", (3, "hidden_size")),)
)


@pytest.fixture(scope="module")
def encoder():
    return randomised()


@pytest.fixture(scope="module", params=checkpoints.FORMATS)
def written(request, encoder, tmp_path_factory):
    """(format, folder of a checkpoint with all that it may hold), to be copied by those that change it."""
    folder = tmp_path_factory.mktemp(request.param)
    checkpoints.save_as(request.param, encoder, folder, VOCAB, lower_case=False)
    return request.param, folder


@pytest.fixture
def copy(written, tmp_path):
    return shutil.copytree(written[1], tmp_path / "copy")


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def read(folder):
    checkpoints.load(folder, report=lambda line: None)
    checkpoints.tokenizer(folder)


@pytest.mark.parametrize("among", HEADS, ids=lambda among: "+".join(head.name for head in among) or "none")
@pytest.mark.parametrize("kind", checkpoints.FORMATS)
def test_round_trips_change_no_bit(kind, among, tmp_path):
    """Settings, heads, arrays, vocabulary and its case, and nothing half written beside them."""
    encoder, told = randomised(among), []
    checkpoints.save_as(kind, encoder, tmp_path / "x", VOCAB, lower_case=False)
    assert checkpoints.recognise(tmp_path / "x") == kind
    assert_same(encoder, checkpoints.load(tmp_path / "x", report=told.append))
    assert told == []
    vocabulary = checkpoints.vocab_file(tmp_path / "x")
    assert vocabulary.read_text(encoding="utf-8").split("\n") == [*VOCAB, ""]
    assert list(checkpoints.tokenizer(tmp_path / "x").tokens) == VOCAB
    assert checkpoints.lower_case(tmp_path / "x") is False
    assert not list((tmp_path / "x").rglob("*.partial"))


def test_others_may_read_it_as_any_new_file(copy):
    (copy / "plain").touch()
    modes = {path.stat().st_mode for path in files(copy)}
    assert modes == {(copy / "plain").stat().st_mode}


def test_any_of_its_files_is_the_checkpoint(written, encoder):
    kind, folder = written
    inside = [path for path in files(folder) if path.parent == folder]
    assert {checkpoints.recognise(path) for path in inside} == {kind}
    assert_same(encoder, checkpoints.load(inside[0]))


def test_a_head_that_is_left_out(written, encoder):
    """By the names in the file, in google's spelling or Hugging Face's."""
    told = []
    loaded = checkpoints.load(written[1], ignore=["cls?seq_relationship*"], report=told.append)
    assert (loaded.heads, told) == (("masked_lm",), [])
    checkpoints.load(written[1], encoder.heads, ignore=["cls?seq_relationship*"], report=told.append)
    assert len(told) == 1
    assert told[0].endswith("has no next_sentence: initialised at random")


@pytest.mark.parametrize("kind", checkpoints.FORMATS)
def test_arrays_that_no_head_has_are_refused_by_name(kind, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(heads, "ALL_HEADS", (*heads.ALL_HEADS, ANOTHER))
        checkpoints.save_as(kind, randomised([ANOTHER]), tmp_path)
    with pytest.raises(InputError, match=r"1 unexpected arrays: another.*Ignore them by pattern"):
        checkpoints.load(tmp_path)
    assert checkpoints.load(tmp_path, ignore=["another*"]).heads == ()


def test_a_damaged_file_is_refused_by_name(written, encoder, copy):
    """One that was cut, and one of other bytes; what nobody reads may hold anything."""
    unread = {"keras-hub": {"metadata.json"}}.get(written[0], set())
    for path in files(copy):
        whole = path.read_bytes()
        for content in (b"\xff\xfe\xff", whole[: len(whole) // 2]):
            path.write_bytes(content)
            shorter = path.suffix == ".txt" and content in whole  # a vocabulary that is cut
            if path.name in unread or shorter:
                assert_same(encoder, checkpoints.load(copy))
                continue
            with pytest.raises(InputError) as error:
                read(copy)
            assert path.name.split(".data-")[0].removesuffix(".index") in str(error.value)
        path.write_bytes(whole)
    assert_same(encoder, checkpoints.load(copy))


def test_what_a_killed_writer_left_does_no_harm(written, encoder, copy):
    for path in files(copy):
        path.with_name(f"{path.name}.partial").write_bytes(b"half")
    (copy / "bert_model.ckpt.data-00000-of-00001.tempstate1").write_bytes(b"half")  # TensorFlow's
    assert checkpoints.recognise(copy) == written[0]
    assert_same(encoder, checkpoints.load(copy))
    checkpoints.save_as(written[0], encoder, copy, VOCAB, lower_case=True)
    assert_same(encoder, checkpoints.load(copy))
    assert checkpoints.lower_case(copy) is True


def test_vocabularies_are_optional(encoder, written, tmp_path):
    checkpoints.save_as(written[0], encoder, tmp_path)
    assert checkpoints.vocab_file(tmp_path) is None
    assert checkpoints.lower_case(tmp_path) is None
    assert_same(encoder, checkpoints.load(tmp_path))


def test_more_tokens_than_embeddings_are_refused(encoder, written, tmp_path):
    tokens = [*SPECIAL_TOKENS, *(f"t{number}" for number in range(SETTINGS.vocab_size))]
    with pytest.raises(InputError, match=r"more tokens than the model has embeddings \(40\)\. Received: 45"):
        checkpoints.save_as(written[0], encoder, tmp_path / "x", tokens)
    assert not (tmp_path / "x").exists()


def test_a_folder_where_a_file_should_be(copy):
    for path in files(copy):
        content = path.read_bytes()
        path.unlink()
        path.mkdir()
        with contextlib.suppress(InputError):  # some are not needed
            read(copy)
        path.rmdir()
        path.write_bytes(content)
