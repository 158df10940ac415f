"""`bert export`, from the command line to a version folder."""

import functools
import json

import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner

from model import checkpoints
from model.encoder import BertEncoder
from model.encoder.smaller import Kept, smaller
from model.settings import EncoderSettings
from pipeline import cli
from preprocessing.errors import InputError
from preprocessing.features import SPECIAL_TOKENS
from preprocessing.tokenizer import BertTokenizer
from serving.export import exporting, golden
from serving.settings import ExportSettings
from serving.signatures import EMBEDDING, FILL_MASK
from serving.signatures.base import TextEncoder
from tests.serving import small_model


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    vocab = small_model.write_vocab(tmp_path_factory.mktemp("vocab"))
    checkpoints.save(small_model.encoder((), 2), folder, vocab, lower_case=True)
    return folder


@pytest.fixture(autouse=True)
def _here(monkeypatch):
    """Exports few signatures, and answers golden requests in this process: all, and a fresh one, take seconds."""
    few = functools.partial(exporting.export_version, signatures=(EMBEDDING, FILL_MASK))
    monkeypatch.setattr(exporting, "export_version", few)
    monkeypatch.setattr(exporting, "_answer_elsewhere", lambda folder: golden.answer(str(folder)))


def run(*arguments):
    return CliRunner().invoke(cli.bert, ["export", *map(str, arguments)], catch_exceptions=False)


def test_versions_follow_each_other(checkpoint, tmp_path):
    first = run("--model", checkpoint, "--output", tmp_path)
    assert first.exit_code == 0
    assert f"\n{tmp_path}/bert/1  " in first.output
    assert "left out fill_mask: the checkpoint has no masked-language head" in first.output
    (tmp_path / "bert" / ".export-left").mkdir()  # by a killed one
    second = run("--model", checkpoint, "--output", tmp_path, "--embedding", "pooler", "--unit-length", "--json")
    report = json.loads(second.stdout.splitlines()[-1])
    assert report["version"] == f"{tmp_path}/bert/2"
    assert report["settings"]["embedding"] == "pooler"
    assert report["settings"]["unit_length"] is True
    assert report["kept"] == {"layers": None, "tokens": None}
    assert sorted(path.name for path in (tmp_path / "bert").iterdir()) == ["1", "2"]


LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORDS = ["paris", "is", "the", "capital", "of", "france", "it", "lies", "on", "a", "river"]


@pytest.fixture(scope="module")
def spelling(tmp_path_factory):
    """A checkpoint whose vocabulary has letters, too, and a text of some of its words."""
    folder = tmp_path_factory.mktemp("spelling")
    vocab = [
        *SPECIAL_TOKENS,
        *LETTERS,
        *(f"##{letter}" for letter in LETTERS),
        *(word for word in WORDS if word != "a"),
    ]
    settings = EncoderSettings(len(vocab), 16, 2, 2, 32, max_positions=48, initializer_range=0.5)
    checkpoints.save(BertEncoder(settings, ()), folder / "whole", vocab, lower_case=True)
    (folder / "text.txt").write_text("The capital: Paris.\n\nOn it\n")
    return folder


def test_a_part_answers_its_text_as_the_whole_does(spelling, tmp_path):
    """Exported, and converted: of all layers that are kept, and of texts whose tokens are."""
    whole, some = spelling / "whole", ("--layers", "1", "--tokens-of", spelling / "text.txt")
    asked = ["convert", "--input", whole, "--output", tmp_path / "part", "--to", "huggingface", *some]
    told = CliRunner().invoke(cli.bert, [str(word) for word in asked], catch_exceptions=False).output
    assert "layers 0 (from 0) of 2 are kept" in told
    assert "62 of 67 tokens are kept, 6 of which the text has" in told  # [UNK] among them, of signs
    assert run("--model", whole, "--output", tmp_path / "out", *some).exit_code == 0
    version = tmp_path / "out" / "bert" / "1"
    said = json.loads((version / exporting.REPORT).read_text())
    assert said["kept"] == {"layers": [0], "tokens": 62}
    assert (version / "assets/vocab.txt").read_text() == (tmp_path / "part" / "vocab.txt").read_text()
    exported = tf.saved_model.load(str(version)).signatures
    models = {whole: smaller(checkpoints.load(whole), Kept([0])), tmp_path / "part": None}
    for place, encoder in models.items():
        tokenizer = BertTokenizer(checkpoints.tokenizer(place).tokens)
        texts = TextEncoder(encoder or checkpoints.load(place), tokenizer, ExportSettings())
        request = {"text": ["The capital: Paris.", "on it", "the"]}
        expected = EMBEDDING.answered(texts, request)["embedding"]
        answered = exported["serving_default"](text=tf.constant(request["text"]))["embedding"]
        np.testing.assert_allclose(answered, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "nowhere"], "nowhere: no such checkpoint"),
        (["--model", "CHECKPOINT", "--layers", "3"], "there must be from 1 to 2 layers, the checkpoint's. Received: 3"),
        (["--model", "CHECKPOINT", "--tokens-of", "nowhere"], "nowhere"),
        (["--model", "CHECKPOINT", "--top-k", "0"], "top_k must be positive. Received: 0"),
        (["--model", "CHECKPOINT", "--vocab", "nowhere.txt"], "nowhere.txt"),
        (["--model", "CHECKPOINT", "--name", "../up"], "name must be"),
        (["--model", "CHECKPOINT", "--output", "gs://bucket"], "must be a local folder"),
    ],
)
def test_bad_arguments_are_told_in_a_line(checkpoint, tmp_path, arguments, message):
    arguments = [str(checkpoint) if argument == "CHECKPOINT" else argument for argument in arguments]
    with pytest.raises(InputError) as error:
        run("--output", tmp_path, *arguments)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.rglob(".export-*"))
