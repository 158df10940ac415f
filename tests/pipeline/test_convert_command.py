import json
import re
import shutil

import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner
from safetensors import safe_open

from model import checkpoints
from model.checkpoints import sentence_transformers
from model.checkpoints.sentence_transformers import Sentences
from model.encoder import BertEncoder
from model.encoder.heads import CLASSIFIER, SPAN, TAGGER
from model.settings import ClassificationSettings, EncoderSettings, QuestionAnsweringSettings, TaggingSettings
from pipeline.commands import convert
from preprocessing.errors import InputError
from preprocessing.features import SPECIAL_TOKENS

SETTINGS = EncoderSettings(
    vocab_size=30, hidden_size=8, num_layers=1, num_heads=2, intermediate_size=16, max_positions=16
)


@pytest.fixture
def source(tmp_path):
    checkpoints.save(BertEncoder(SETTINGS), tmp_path / "source", [*SPECIAL_TOKENS, "ab"], lower_case=True)
    return tmp_path / "source"


def run(source, output, to, *more):
    arguments = ["--input", str(source), "--output", str(output), "--to", to, *more]
    return CliRunner().invoke(convert.command, arguments, catch_exceptions=False)


@pytest.mark.parametrize("to", ["google", "huggingface", "keras-hub", "ours"])
def test_converts_reads_back_and_reports(source, tmp_path, to):
    result = run(source, tmp_path / "new" / "out", to)
    assert result.exit_code == 0
    assert "ours, 1 layers, 8 hidden" in result.output
    assert "heads: masked_lm, next_sentence" in result.output
    assert result.output.endswith("largest difference of outputs after reading it back: 0\n")
    written = checkpoints.load(tmp_path / "new" / "out")
    assert checkpoints.largest_difference(checkpoints.load(source), written) == 0
    assert checkpoints.lower_case(tmp_path / "new" / "out") is True
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["out"]
    if to == "keras-hub":
        difference = re.search(r"BertBackbone differs by up to ([\d.e-]+)$", result.output, re.MULTILINE)
        assert float(difference[1]) < 2e-5


@pytest.mark.parametrize("to", ["google", "huggingface", "keras-hub", "ours"])
def test_how_a_vector_is_made_is_carried_along(source, tmp_path, to):
    said = Sentences("cls", True, 32, [], True)
    sentence_transformers.write(source, said, 8)
    assert run(source, tmp_path / "out", to).exit_code == 0
    assert checkpoints.sentences(tmp_path / "out") == said
    config = json.loads((source / "1_Pooling" / "config.json").read_text())
    (source / "1_Pooling" / "config.json").write_text(json.dumps({**config, "pooling_mode_cls_token": False}))
    assert "the pooling must be one of cls_token, " in run(source, tmp_path / "other", to).output
    assert checkpoints.sentences(tmp_path / "other") is None


LABELS = ("B-X", "I-X", "O")


@pytest.mark.parametrize(
    ("head", "task", "known", "theirs", "googles"),
    [
        (
            CLASSIFIER.with_labels(3),
            ClassificationSettings(LABELS, pair=True, max_seq_length=16),
            ClassificationSettings(LABELS),
            ("BertForSequenceClassification", "classifier.weight"),
            "output_weights",
        ),
        (
            TAGGER.with_labels(3),
            TaggingSettings(LABELS, max_seq_length=16),
            TaggingSettings(LABELS),
            ("BertForTokenClassification", "classifier.weight"),
            "cls/tags/output_weights",
        ),
        (
            SPAN,
            QuestionAnsweringSettings(max_seq_length=16),
            None,
            ("BertForQuestionAnswering", "qa_outputs.weight"),
            "cls/squad/output_weights",
        ),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_fine_tuned_heads_go_to_hugging_face_and_google_and_back(head, task, known, theirs, googles, tmp_path):
    """`known`: what Hugging Face's own files say of the labels."""
    encoder = BertEncoder(SETTINGS, [head])
    checkpoints.save(encoder, tmp_path / "ours", [*SPECIAL_TOKENS, "ab"], lower_case=True)
    checkpoints.write_task(tmp_path / "ours", task)
    assert run(tmp_path / "ours", tmp_path / "theirs", "huggingface").exit_code == 0
    assert checkpoints.read_task(tmp_path / "theirs") == task
    (tmp_path / "theirs" / "task.json").unlink()  # as it comes from them
    config = json.loads((tmp_path / "theirs" / "config.json").read_text())
    with safe_open(tmp_path / "theirs" / "model.safetensors", "np") as tensors:
        assert (config["architectures"], theirs[1] in tensors.keys()) == ([theirs[0]], True)  # noqa: SIM118
    assert run(tmp_path / "theirs", tmp_path / "googles", "google").exit_code == 0
    assert googles in dict(tf.train.list_variables(str(tmp_path / "googles" / "bert_model.ckpt")))
    assert run(tmp_path / "googles", tmp_path / "again", "ours").exit_code == 0
    assert checkpoints.read_task(tmp_path / "again") == known
    for one, other in zip(encoder.weights, checkpoints.load(tmp_path / "again").weights, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy(), err_msg=one.path)


def test_keras_hub_needs_the_special_tokens(tmp_path):
    checkpoints.save(BertEncoder(SETTINGS), tmp_path / "source", ["[PAD]", "[UNK]"])
    with pytest.raises(InputError, match=r"has no \[CLS\], \[SEP\], \[MASK\]"):
        run(tmp_path / "source", tmp_path / "out", "keras-hub")


def test_output_must_be_new_or_empty(source, tmp_path):
    (tmp_path / "out").mkdir()
    assert run(source, tmp_path / "out", "google").exit_code == 0
    with pytest.raises(InputError, match="--output must be a new or empty folder"):
        run(source, tmp_path / "out", "google")


def test_nothing_is_left_when_reading_back_fails(source, tmp_path, monkeypatch):
    differences = iter([0.5])
    monkeypatch.setattr(checkpoints, "largest_difference", lambda *encoders: next(differences))
    with pytest.raises(InputError, match=r"differ by up to 0\.5"):
        run(source, tmp_path / "out", "huggingface")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_vocabulary_that_is_larger_than_the_model_is_left_out(source, tmp_path):
    """The tokenizer is questioned then, not the weights."""
    shutil.copytree(source, tmp_path / "odd")
    (tmp_path / "odd" / "vocab.txt").write_text("".join(f"t{number}\n" for number in range(31)))
    output = run(tmp_path / "odd", tmp_path / "out", "ours").output
    assert "31 tokens in its vocabulary, 30 in the model: left out" in output
    assert not (tmp_path / "out" / "vocab.txt").exists()


def test_what_a_killed_conversion_left_is_removed(source, tmp_path):
    (tmp_path / ".unfinished-out-abc").mkdir()
    run(source, tmp_path / "out", "ours")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "source"]


def test_an_output_that_cannot_be_made(source, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="--output must be writable"):
        run(source, tmp_path / "file" / "out", "ours")


def test_a_part_needs_a_vocabulary(source, tmp_path):
    (source / "vocab.txt").unlink()
    with pytest.raises(InputError, match=r"--tokens-of keeps a part of a vocabulary; put the checkpoint's vocab\.txt"):
        run(source, tmp_path / "out", "ours", "--tokens-of", str(tmp_path))


def test_arrays_can_be_ignored(source, tmp_path):
    run(source, tmp_path / "hf", "huggingface")
    from model.checkpoints import tensor_files

    path = tmp_path / "hf" / "model.safetensors"
    tensors = tensor_files.read_safetensors(path) | {"classifier.bias": np.zeros(2, np.float32)}
    tensor_files.write_safetensors(path, tensors)
    with pytest.raises(InputError, match=r"unexpected arrays: classifier\.bias"):
        run(tmp_path / "hf", tmp_path / "out", "google")
    assert run(tmp_path / "hf", tmp_path / "out", "google", "--ignore", "classifier.*").exit_code == 0
