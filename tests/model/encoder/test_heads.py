"""The pretraining heads, against the formulas written out in NumPy; and what holds for every head."""

import json
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from model import checkpoints
from model.checkpoints import comparing, names, tensor_files
from model.encoder import BertEncoder, heads
from model.settings import EncoderSettings
from preprocessing.errors import InputError
from serving.settings import ExportSettings
from serving.signatures.stored_encoder import StoredEncoder

SETTINGS = EncoderSettings(
    vocab_size=30, hidden_size=8, num_layers=1, num_heads=2, intermediate_size=16, max_positions=16
)


@pytest.fixture(scope="module")
def encoder():
    keras.utils.set_random_seed(0)
    encoder = BertEncoder(SETTINGS)
    random = np.random.default_rng(0)
    for weight in encoder.weights:
        weight.assign(random.normal(size=weight.shape))
    return encoder


def gelu_tanh(x):
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def test_masked_lm_reads_the_chosen_positions_and_is_tied(encoder):
    head = encoder.masked_lm
    sequence = np.random.default_rng(1).normal(size=(2, 5, 8)).astype(np.float32)
    positions = np.array([[4, 0, 0], [1, 2, 3]])
    logits = head(sequence, positions)
    x = np.stack([row[chosen] for row, chosen in zip(sequence, positions, strict=True)]).astype(np.float64)
    x = gelu_tanh(x @ head.kernel.numpy() + head.bias.numpy())
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-12)
    x = x * head.norm_scale.numpy() + head.norm_offset.numpy()
    expected = x @ encoder.embeddings.word.numpy().T + head.output_bias.numpy()
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(logits[0, 1], logits[0, 2])


def test_the_tied_table_is_not_a_weight_of_the_head(encoder):
    assert {weight.name for weight in encoder.masked_lm.weights} == {
        "kernel",
        "bias",
        "norm_scale",
        "norm_offset",
        "output_bias",
    }
    assert sum(weight is encoder.embeddings.word for weight in encoder.weights) == 1


def test_next_sentence_is_a_product_with_the_pooled_output(encoder):
    pooled = np.random.default_rng(2).normal(size=(4, 8)).astype(np.float32)
    head = encoder.next_sentence
    expected = pooled @ head.kernel.numpy().T + head.bias.numpy()
    np.testing.assert_allclose(head(pooled), expected, rtol=1e-5, atol=1e-5)


def test_unknown_numbers_of_rows_and_predictions(encoder):
    @tf.function(input_signature=[tf.TensorSpec([None, None, 8], tf.float32), tf.TensorSpec([None, None], tf.int32)])
    def logits(sequence, positions):
        return encoder.masked_lm(sequence, positions)

    for batch, length, predictions in ((1, 3, 1), (3, 7, 4), (2, 4, 0)):
        sequence = tf.random.normal([batch, length, 8])
        positions = tf.random.uniform([batch, predictions], 0, length, tf.int32)
        assert logits(sequence, positions).shape == (batch, predictions, 30)


# No more than an object. It is spelled as the classifier of whole texts, and told apart by the architecture.
WORDS = heads.Head(
    "words",
    "tokens",
    heads.TaggerHead,
    "BertForWords",
    (
        heads.Array("kernel", "words/output_weights", (heads.LABELS, "hidden_size"), "classifier.weight"),
        heads.Array("bias", "words/output_bias", (heads.LABELS,), "classifier.bias"),
    ),
)
EVERY_HEAD = [*heads.PRETRAINING, heads.CLASSIFIER.with_labels(3), heads.TAGGER.with_labels(4), heads.SPAN]
EVERY_HEAD += [WORDS.with_labels(5)]


@pytest.mark.parametrize("head", EVERY_HEAD, ids=lambda head: head.name)
class TestEveryHead:
    """What holds for each, and for one that is no more than an object."""

    @pytest.fixture(autouse=True)
    def known(self, monkeypatch):
        monkeypatch.setattr(heads, "ALL_HEADS", (*heads.ALL_HEADS, WORDS))

    def encoder(self, head, **options):
        encoder, random = BertEncoder(SETTINGS, [head], **options), np.random.default_rng(0)
        for weight in encoder.weights:
            weight.assign(random.normal(size=weight.shape))
        return encoder

    def logits(self, head, encoder):
        outputs = encoder(comparing.random_inputs(SETTINGS))
        layer = getattr(encoder, head.name)
        if head.over == "pooled":
            return layer(outputs["pooled_output"])
        return layer(outputs["sequence_output"], np.array([[3, 1], [0, 2]], np.int32))

    def test_its_logits_are_float32(self, head):
        whole, half = (self.encoder(head, dtype=dtype) for dtype in ("float32", "mixed_bfloat16"))
        logits = self.logits(head, whole)
        assert logits.shape[:-1] == ((2,) if head.over == "pooled" else (2, 2))
        assert logits.dtype == self.logits(head, half).dtype == tf.float32
        assert whole.heads == (head.name,)

    def test_its_arrays_are_all_its_weights(self, head):
        encoder = self.encoder(head)
        assert len(head.arrays) == len(getattr(encoder, head.name).weights)
        arrays, shapes = names.arrays_of(encoder), names.shapes(SETTINGS, [head])
        assert {name: array.shape for name, array in arrays.items()} == shapes
        assert {names.part_of(array.google) for array in head.arrays} == {head.name}

    def test_a_gradient_reaches_all_its_arrays(self, head):
        encoder = self.encoder(head)
        variables = [weight.value for weight in getattr(encoder, head.name).trainable_variables]
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(self.logits(head, encoder) ** 2)
        assert len(variables) == len(head.arrays)
        for variable, gradient in zip(variables, tape.gradient(loss, variables), strict=True):
            assert np.abs(gradient).max() > 0, variable.name

    def test_what_is_made_without_it_begins_the_same(self, head):
        """However many heads there come to be, a seed gives pretraining the weights that it gave."""
        without = []
        for more in ((), (head,)):
            keras.utils.set_random_seed(5)
            encoder = BertEncoder(SETTINGS, [*heads.PRETRAINING, *more])
            without.append({weight.path: weight.numpy() for weight in encoder.weights if head.name not in weight.path})
        assert without[0].keys() == without[1].keys()
        for path, value in without[0].items():
            np.testing.assert_array_equal(value, without[1][path], err_msg=path)

    @pytest.mark.parametrize("kind", checkpoints.FORMATS)
    def test_every_format_keeps_it(self, head, kind, tmp_path):
        encoder, told = self.encoder(head), []
        checkpoints.save_as(kind, encoder, tmp_path)
        loaded = checkpoints.load(tmp_path, report=told.append)
        assert (loaded.described_heads, told) == ((head,), [])
        np.testing.assert_array_equal(self.logits(head, loaded), self.logits(head, encoder))
        last = getattr(getattr(loaded, head.name), head.arrays[-1].attribute)
        last.assign(last + 1.0)
        assert checkpoints.largest_difference(encoder, loaded) > 0.1

    def test_half_of_it_is_told(self, head, tmp_path):
        checkpoints.save_as("google", self.encoder(head), tmp_path)
        with pytest.raises(InputError, match=f"1 of the {head.name}'s arrays are missing: {head.arrays[-1].google}"):
            checkpoints.load(tmp_path, ignore=[head.arrays[-1].google])

    def test_it_is_made_where_a_checkpoint_lacks_it(self, head, tmp_path):
        checkpoints.save(BertEncoder(SETTINGS, heads=()), tmp_path)
        told = []
        assert checkpoints.load(tmp_path, [head], report=told.append).heads == (head.name,)
        assert told == [f"{tmp_path}: has no {head.name}: initialised at random"]

    def test_an_export_copies_it(self, head):
        stored = StoredEncoder(self.encoder(head), ExportSettings(compute="bfloat16"))
        assert stored.heads == (head.name,)


def test_a_number_of_labels_must_be_given():
    with pytest.raises(InputError, match="the head classifier needs a number of labels"):
        BertEncoder(SETTINGS, [heads.CLASSIFIER])


def test_a_classifier_is_a_product_with_the_pooled_output():
    keras.utils.set_random_seed(0)
    head = BertEncoder(SETTINGS, [heads.CLASSIFIER.with_labels(3)]).classifier
    head.bias.assign([1.0, 2.0, 3.0])
    pooled = np.random.default_rng(2).normal(size=(4, 8)).astype(np.float32)
    np.testing.assert_allclose(head(pooled), pooled @ head.kernel.numpy().T + head.bias.numpy(), rtol=1e-5, atol=1e-5)


def test_a_tagger_is_that_product_of_each_token():
    keras.utils.set_random_seed(0)
    head = BertEncoder(SETTINGS, [heads.TAGGER.with_labels(3)]).tagger
    head.bias.assign([1.0, 2.0, 3.0])
    states = np.random.default_rng(2).normal(size=(2, 5, 8)).astype(np.float32)
    expected = states @ head.kernel.numpy().T + head.bias.numpy()
    np.testing.assert_allclose(head(states), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(head(states, np.array([[4, 0], [1, 1]]))[0], expected[0, [4, 0]], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(head(states[0]), expected[0], rtol=1e-5, atol=1e-5)


def test_spans_are_a_tagger_of_two_by_the_names_that_others_have(tmp_path):
    """google's of run_squad.py, and Hugging Face's."""
    encoder = BertEncoder(SETTINGS, [heads.SPAN])
    assert encoder.span(np.zeros((2, 5, 8), np.float32)).shape == (2, 5, 2)
    checkpoints.save_huggingface(encoder, tmp_path / "theirs")
    assert json.loads((tmp_path / "theirs" / "config.json").read_text())["architectures"] == [
        "BertForQuestionAnswering"
    ]
    found = tensor_files.read_safetensors(tmp_path / "theirs" / "model.safetensors")
    assert {name: array.shape for name, array in found.items() if name.startswith("qa")} == {
        "qa_outputs.weight": (2, 8),
        "qa_outputs.bias": (2,),
    }
    checkpoints.save_google(encoder, tmp_path / "google" / "bert_model.ckpt")
    stored = dict(tf.train.list_variables(str(tmp_path / "google" / "bert_model.ckpt")))
    assert (stored["cls/squad/output_weights"], stored["cls/squad/output_bias"]) == ([2, 8], [2])


def test_another_head_that_hugging_face_spells_alike_is_not_taken_for_it(tmp_path):
    checkpoints.save_huggingface(BertEncoder(SETTINGS, [heads.CLASSIFIER.with_labels(3)]), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"architectures": ["BertForMultipleChoice"]}))
    with pytest.raises(InputError, match=r"2 unexpected arrays: classifier\.bias, classifier\.weight"):
        checkpoints.load(tmp_path)
    for stated, name in ((None, "classifier"), (["BertForTokenClassification"], "tagger")):
        (tmp_path / "config.json").write_text(json.dumps(config | {"architectures": stated}))
        assert checkpoints.load(tmp_path).heads == (name,)


def test_hugging_face_knows_no_model_with_any_two_heads(tmp_path):
    encoder = BertEncoder(SETTINGS, ["masked_lm", heads.CLASSIFIER.with_labels(2)])
    with pytest.raises(InputError, match=r"must have a model with these heads.*\('masked_lm', 'classifier'\)"):
        checkpoints.save_huggingface(encoder, tmp_path / "x")
    assert not (tmp_path / "x").exists()
