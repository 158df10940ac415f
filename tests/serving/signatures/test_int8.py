"""Matrices as int8: what is stored, what is multiplied, and that a row knows nothing of its neighbours."""

import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf

from model.encoder import BertEncoder
from preprocessing.errors import InputError
from preprocessing.tokenizer import BertTokenizer
from serving.export import exporting, golden
from serving.settings import ExportSettings
from serving.signatures import EMBEDDING, FILL_MASK, NEXT_SENTENCE
from serving.signatures.base import TextEncoder
from serving.signatures.int8 import Kernel, rounded
from tests.serving import small_model

SETTINGS = dataclasses.replace(small_model.EXPORT, weights="int8")


@pytest.fixture(scope="module")
def matrix():
    matrix = np.random.default_rng(0).normal(0, 0.05, (48, 64)).astype(np.float32)
    matrix[:, 3] *= 100  # a column of its own size does not cost the others digits
    matrix[:, 5] = 0
    return matrix


@pytest.fixture(scope="module")
def product(matrix):
    """(rows, what a graph makes of them, a kernel and its bias)"""
    kernel, bias = Kernel(matrix), np.linspace(-1, 1, 64, dtype=np.float32)
    call = tf.function(lambda x: kernel(x, tf.constant(bias)), input_signature=[tf.TensorSpec([None, 48])])
    rows = np.random.default_rng(1).normal(size=(9, 48)).astype(np.float32)
    rows[1], rows[2], rows[3, 7] = 0, 5, 1000
    return rows, call, kernel, bias


@pytest.mark.parametrize("axis", [0, 1])
def test_numbers_are_rounded_to_the_nearest_of_their_scale(matrix, axis):
    values, scales = rounded(matrix, axis, 127)
    assert values.dtype == np.int8
    assert scales.shape == ((1, 64) if axis == 0 else (48, 1))
    assert (np.abs(values * scales - matrix) <= 0.5001 * scales).all()
    assert np.abs(values).max() == 127  # so -128 is none


def test_a_graph_multiplies_the_same_whole_numbers(product):
    rows, call, kernel, bias = product
    expected = kernel(tf.constant(rows), tf.constant(bias)).numpy()
    np.testing.assert_allclose(call(rows).numpy(), expected, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(expected[1], bias, atol=1e-5)  # of a row of zeros
    steps = (rows.max(1) - rows.min(1)) / 255
    # Every number of a row is off by half a step at most.
    bound = 0.51 * steps[:, None] * np.abs(kernel.matrix).sum(0) + 1e-4
    assert (np.abs(expected - (rows @ kernel.matrix + bias)) <= bound).all()


@pytest.mark.parametrize("shift", [0, -3e4, 1e-35])
@pytest.mark.parametrize("spread", [0, 1e-35, 1e-3, 1e30])
def test_rows_of_any_size_are_rounded_by_half_a_step_at_most(product, shift, spread):
    _, call, kernel, bias = product
    rows = (shift + spread * np.random.default_rng(2).normal(size=(3, 48))).astype(np.float32)
    of_one = np.abs(kernel.matrix).sum(0)
    bound = (0.51 * (np.ptp(rows, 1) / 255)[:, None] + 1e-6 * np.abs(rows).max()) * of_one + 1e-5
    for made in (call(rows), kernel(tf.constant(rows), tf.constant(bias))):
        assert (np.abs(made - (rows @ kernel.matrix.astype(np.float64) + bias)) <= bound).all()


def test_the_largest_sums_are_whole_on_every_cpu():
    # Without VNNI two products are added as int16, which ends at 32,767.
    kernel = Kernel(np.repeat([[1.0, -1.0]], 48, 0).astype(np.float32))
    rows = np.ones((1, 48), np.float32)
    rows[0, 0] = 0  # so the others are its largest
    call = tf.function(lambda x: kernel(x, None), input_signature=[tf.TensorSpec([None, 48])])
    np.testing.assert_allclose(call(rows).numpy(), [[47, -47]], rtol=1e-5)


def test_a_row_is_answered_as_it_is_alone(product):
    rows, call, *_ = product
    together = call(rows).numpy()
    for number, row in enumerate(rows):
        np.testing.assert_allclose(call(row[None]).numpy()[0], together[number], rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh"])
def test_what_is_stored_is_near_the_encoder(activation):
    tokenizer, small = BertTokenizer(small_model.VOCAB), small_model.encoder()
    encoder = BertEncoder(dataclasses.replace(small.settings, activation=activation), small_model.EVERY_HEAD)
    for variable, value in zip(encoder.variables, small.variables, strict=True):
        variable.assign(value)
    exact = TextEncoder(encoder, tokenizer, small_model.EXPORT)
    stored = TextEncoder(encoder, tokenizer, SETTINGS)
    assert stored.model.parameters == exact.model.parameters
    sizes = [variable.shape.as_list() for variable in stored.model.variables if variable.dtype == tf.int8]
    assert [len(small_model.VOCAB), 16] in sizes
    for signature, inputs, output, bound in (
        (EMBEDDING, [small_model.TEXTS], "embedding", 0.5),
        (FILL_MASK, [["the [MASK] of"]], "scores", 0.1),
        (NEXT_SENTENCE, [["It lies here."], ["on a river"]], "is_next", 0.1),
    ):
        columns = [tf.constant(column) for column in inputs]
        expected, answer = (signature.answer(texts, *columns)[output].numpy() for texts in (exact, stored))
        assert 0 < np.abs(answer - expected).max() < bound, signature.name


def test_exports_hold_each_matrix_once(tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "_answer_elsewhere", lambda folder: golden.answer(str(folder)))
    vocab = small_model.write_vocab(tmp_path)
    report = exporting.export(
        small_model.encoder(), vocab, tmp_path / "model", SETTINGS, signatures=(EMBEDDING, FILL_MASK)
    )
    assert report["settings"]["weights"] == "int8"
    assert not exporting.serving_ops.refused_by(tmp_path / "model")
    kernel = next(weight for weight in small_model.encoder().layer_0.weights if tuple(weight.shape) == (16, 32))
    files = [path.read_bytes() for path in (tmp_path / "model").rglob("*") if path.is_file()]
    for part in np.split(kernel.numpy(), 2, axis=1):
        assert sum(file.count(Kernel(part).values.tobytes()) for file in files) == 1
    # An answer that is far off is no rounding.
    requests = json.loads((tmp_path / "model" / golden.REQUESTS).read_text())
    requests[0]["outputs"]["embedding"] = [[-value for value in row] for row in requests[0]["outputs"]["embedding"]]
    (tmp_path / "model" / golden.REQUESTS).write_text(json.dumps(requests))
    with pytest.raises(InputError, match="must answer as the Python path does"):
        exporting.verify(tmp_path / "model")


def test_what_is_not_a_matrix_stays_float32():
    with pytest.raises(InputError, match="compute must be float32 with int8"):
        ExportSettings(weights="int8", compute="bfloat16")
