"""Vectors that can be kept: what of similarity is not as of the other kinds."""

import json

import keras
import numpy as np
import pytest
from click.testing import CliRunner

from model import checkpoints
from model.encoder import BertEncoder
from model.settings import EncoderSettings, SimilaritySettings
from pipeline import cli
from pipeline.finetuning import kinds
from preprocessing.errors import InputError
from preprocessing.tasks.tables import Columns
from preprocessing.tokenizer import BertTokenizer
from serving.export import text_rules
from serving.settings import ExportSettings
from serving.signatures import EMBEDDING, SIMILARITY
from serving.signatures.base import TextEncoder
from tests.data import minilm, require
from tests.serving import small_model

PAIRS = {"first": small_model.TEXTS, "second": small_model.TEXTS[3:] + small_model.TEXTS[:3]}


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_the_score_is_the_cosine_of_the_vectors_that_are_served(pooling):
    """Of length 1, cut where the task says, whatever the export's own settings are."""
    task = SimilaritySettings(pooling=pooling, max_seq_length=8, least=1.0, most=5.0)
    tokenizer = BertTokenizer(small_model.VOCAB)
    texts = TextEncoder(small_model.encoder(), tokenizer, small_model.EXPORT, task)
    found = SIMILARITY.answered(texts, PAIRS)
    a, b = (EMBEDDING.answered(texts, {"text": of})["embedding"].numpy() for of in PAIRS.values())
    np.testing.assert_allclose(np.linalg.norm(a, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(found["score"], (a * b).sum(1), atol=1e-6)
    np.testing.assert_allclose(found["scaled"], 1 + 4 * found["score"], atol=1e-5)
    cut = [tokenizer.tokenize(of).row_lengths().numpy() > 6 for of in PAIRS.values()]
    assert found["truncated"].numpy().tolist() == (cut[0] | cut[1]).tolist()


def test_an_export_keeps_to_what_was_tuned(tmp_path):
    keras.utils.set_random_seed(0)
    settings = EncoderSettings(len(small_model.VOCAB), 16, 1, 2, 32, max_positions=48)
    checkpoints.save(BertEncoder(settings, ()), tmp_path, small_model.write_vocab(tmp_path), True)
    checkpoints.write_task(tmp_path, SimilaritySettings(pooling="cls"))
    assert checkpoints.read_task(tmp_path) == SimilaritySettings(pooling="cls")
    assert text_rules.settings_of(tmp_path, {}) == ExportSettings()
    with pytest.raises(InputError, match=r"by the embedding cls; leave --embedding out\. Received: mean"):
        text_rules.settings_of(tmp_path, {"embedding": "mean"})


def test_one_text_is_not_enough(tmp_path):
    path = tmp_path / "rows.tsv"
    path.write_text("a text\t1\n")
    with pytest.raises(InputError, match=r"rows\.tsv: two texts are compared: .* --second"):
        kinds.named("similarity").source(str(path), Columns())


def test_there_is_no_head_to_be_tuned_alone(tmp_path):
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    settings = EncoderSettings(len(small_model.VOCAB), 16, 1, 2, 32, max_positions=48)
    checkpoints.save(BertEncoder(settings, ()), folder, small_model.write_vocab(tmp_path), True)
    path = tmp_path / "rows.tsv"
    path.write_text("paris\tfrance\t1\nriver\tthe\t0\n" * 8)
    words = f"--task similarity --train {path} --dev {path} --text 1 --second 2 --label 3 --tune head".split()
    words += ["--model", str(folder), "--output", str(tmp_path / "out"), "--max-seq-length", "16"]
    with pytest.raises(InputError, match=r"no head to be trained: tune all, or bias\. Received: 'head'"):
        CliRunner().invoke(cli.bert, ["finetune", *words], catch_exceptions=False)


@pytest.mark.long
def test_a_sentence_transformer_is_asked_as_it_is():
    """The figure that is published for it."""
    data = ("--data", require("stsb/test.csv"), "--text", 1, "--second", 2, "--label", 3)
    result = CliRunner().invoke(cli.bert, [*map(str, ("evaluate", "--model", minilm(), *data, "--json"))])
    assert json.loads(result.stdout.splitlines()[-1])["spearman"] == pytest.approx(0.8203, abs=5e-5)
