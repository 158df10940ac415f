"""What holds for each signature, whatever it answers. A new one is tested by standing in CASES."""

import functools
import json

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from model.encoder.heads import CLASSIFIER
from model.settings import ClassificationSettings, SimilaritySettings
from preprocessing.features import MASK
from preprocessing.tokenizer import BertTokenizer
from serving.engine.loaded_model import WARMUP_REQUESTS, LoadedModel
from serving.export import golden
from serving.signatures import ALL, TAG, TAG_WORDS
from serving.signatures.base import TextEncoder
from tests.serving import small_model

TAGGING = (TAG, TAG_WORDS)  # of a model of their own


@functools.cache
def encoders():
    """The small models, and what the classifier's numbers may mean beside."""
    labels = ClassificationSettings(("a", "b", "c"), "multi-label", temperature=0.5, thresholds=(0.2, 0.5, 0.7))
    number = ClassificationSettings(("number",), "regression", mean=2.0, scale=0.5)
    small, one = small_model.encoder(), small_model.encoder((CLASSIFIER.with_labels(1),))
    models = ((small, None), (small, labels), (small, SimilaritySettings(most=5.0)), (one, number))
    models += ((small_model.tagger(), small_model.TAGGING),)
    return [TextEncoder(of, BertTokenizer(small_model.VOCAB), small_model.EXPORT, task) for of, task in models]


TEXTS = [*small_model.TEXTS, f"the {MASK} of {MASK}", MASK * 30]
CLOSE = {"atol": 1e-5, "rtol": 1e-5}
OF_OTHER_TASKS = {f"{name}{pair}" for name in ("classify_labels", "score") for pair in ("", "_pair")} | {"similarity"}
CASES = [pytest.param(signature, id=signature.name) for signature in ALL]
# `pipeline.finetuning` exports the others, and compares.
EXPORTED = [pytest.param(signature, id=signature.name) for signature in ALL if signature.name not in OF_OTHER_TASKS]


opened = functools.cache(lambda folder: LoadedModel("bert", 1, folder))


@pytest.fixture
def texts(signature):
    return next(encoder for encoder in encoders() if not signature.missing(encoder))


@pytest.fixture
def exported(signature, exported, exported_tagger):
    return exported_tagger if signature in TAGGING else exported


@pytest.fixture
def model(exported):
    return opened(exported[0])


def columns(signature, encoder):
    """A request of many rows: odd texts where it takes texts, else its golden rows."""
    requests = signature.golden(encoder)
    odd = {spec.name: TEXTS[turn:] + TEXTS[:turn] for turn, spec in enumerate(signature.inputs)}
    takes_texts = all(isinstance(value, str) for request in requests for column in request.values() for value in column)
    return odd if takes_texts else requests[-1]


def served(model, signature, request):
    inputs = {spec.name: tf.constant(request[spec.name], spec.dtype).numpy() for spec in signature.inputs}
    loaded = model.signature(signature.name)
    loaded.checked(inputs)
    return loaded(inputs)


def same(actual, expected, of):
    assert actual.dtype == expected.dtype, of
    if expected.dtype.kind == "f":
        np.testing.assert_allclose(actual, expected, err_msg=of, **CLOSE)
    else:
        np.testing.assert_array_equal(actual, expected, err_msg=of)


def rows_of(request):
    return len(next(iter(request.values())))


@pytest.mark.parametrize("signature", EXPORTED)
def test_the_export_answers_as_the_python_path(signature, texts, model):
    for request in [columns(signature, texts), *signature.golden(texts)]:
        outputs = served(model, signature, request)
        expected = signature.answered(texts, request)
        assert outputs.keys() == expected.keys()
        for name, value in expected.items():
            same(outputs[name], value.numpy(), name)


@pytest.mark.parametrize("signature", EXPORTED)
def test_outputs_are_as_declared(signature, texts, model, exported):
    """By the folder's own words: types, shapes, the batch first; finite; how near each number must be when rounded."""
    loaded = model.signature(signature.name)
    assert loaded.has_batch
    assert set(loaded.inputs) == {spec.name for spec in signature.inputs}
    described = exported[1]["signatures"][signature.name]
    assert described["row_count"] == loaded.count_output == signature.row_count
    for name, value in served(model, signature, columns(signature, texts)).items():
        kind, shape = described["outputs"][name]
        assert value.dtype == (object if kind == "string" else np.dtype(kind)) == loaded.outputs[name].dtype
        assert shape[0] is None
        assert loaded.outputs[name].accepts(value.shape)
        assert value.dtype.kind != "f" or np.isfinite(value).all()
    numbers = {name for name, (kind, _) in described["outputs"].items() if kind.startswith("float")}
    counts = {name for name in numbers if name.endswith(("_correct", "_weight"))}  # whole numbers
    assert numbers - counts <= set(signature.rounded) <= set(described["outputs"])


@pytest.mark.parametrize("signature", CASES)
def test_a_row_has_the_same_answer_alone_and_among_others(signature, texts):
    """And nothing but zeros or empty strings at padding, but for the token [PAD]."""
    request = columns(signature, texts)
    together = {name: value.numpy() for name, value in signature.answered(texts, request).items()}
    for row in range(rows_of(request)):
        alone = signature.answered(texts, {name: column[row : row + 1] for name, column in request.items()})
        for name, value in alone.items():
            among, of = together[name][row : row + 1], f"row {row} of {name}"
            own = tuple(slice(0, size) for size in value.shape)
            same(among[own], value.numpy(), of)
            if value.dtype.is_floating:
                padding = among.copy()
                padding[own] = 0
                assert not padding.any(), of
            elif value.dtype == tf.string:
                assert set(among.ravel()) - set(value.numpy().ravel()) <= {b"", b"[PAD]"}, of


@pytest.mark.parametrize("signature", EXPORTED)
def test_answers_that_a_server_may_share_are_cut_back_to_what_they_were(signature, texts, model):
    """Also joined again, from the parts of a long request."""
    loaded, request = model.signature(signature.name), columns(signature, texts)
    if not loaded.sharable:
        pytest.skip("answered for one client at a time")
    together, parts = served(model, signature, request), []
    for row in range(rows_of(request)):
        rows = slice(row, row + 1)
        alone = served(model, signature, {name: column[rows] for name, column in request.items()})
        parts.append(loaded.cut(together, rows))
        for name, value in alone.items():
            same(parts[-1][name], value, f"row {row} of {name}")
    for name, value in loaded.joined(parts).items():
        same(value, together[name], name)


@pytest.mark.parametrize("signature", EXPORTED)
def test_an_empty_batch_is_answered(signature, model):
    outputs = served(model, signature, {spec.name: np.zeros([0] * spec.shape.rank) for spec in signature.inputs})
    assert all(value.shape[0] == 0 for value in outputs.values())


@pytest.mark.parametrize("signature", EXPORTED)
def test_golden_requests_are_asked_and_warmed_up(signature, texts, exported):
    """The folder holds each request of the object, with its answer; warm-up fills each length exactly."""
    requests = signature.golden(texts)
    assert requests
    stored = json.loads((exported[0] / golden.REQUESTS).read_text())
    stored = [request for request in stored if request["signature_name"] == signature.name]
    assert len(stored) == len(requests)
    for request, written in zip(requests, stored, strict=True):
        assert {spec.name for spec in signature.inputs} == request.keys() == written["inputs"].keys()
        assert written["outputs"].keys() == signature.answered(texts, request).keys()
    records = tf.data.TFRecordDataset(str(exported[0] / WARMUP_REQUESTS)).as_numpy_iterator()
    warmed = [prediction_log_pb2.PredictionLog.FromString(record).predict_log.request for record in records]
    warmed = [request for request in warmed if request.model_spec.signature_name == signature.name]
    batches = texts.settings.warmup_batches if signature.often else (1,)
    assert len(warmed) == len(batches) * len(texts.settings.warmup_lengths)


@pytest.mark.parametrize("signature", CASES)
def test_a_warm_up_row_is_exactly_as_long(signature, texts):
    for length in texts.settings.warmup_lengths:
        row = signature.warm_up(texts, length)
        request = {spec.name: [value] for spec, value in zip(signature.inputs, row, strict=True)}
        with _Lengths(texts) as lengths:
            outputs = signature.answered(texts, request)
        assert set(lengths) <= {length}
        assert not np.any(outputs.get("truncated", False))
        assert signature.row_count is None or np.all(outputs[signature.row_count])


class _Lengths:
    """Of the sequences that an encoder sees meanwhile, without padding."""

    def __init__(self, texts):
        self._texts, self._model, self.seen = texts, texts.model, []

    def __enter__(self):
        self._texts.model = self
        return self.seen

    def __exit__(self, *error):
        self._texts.model = self._model

    def __call__(self, inputs, *only, **asked):
        self.seen += inputs["input_mask"].numpy().sum(1).tolist()
        return self._model(inputs, *only, **asked)

    def __getattr__(self, name):
        return getattr(self._model, name)


def test_no_two_have_one_name():
    names = [case.id for case in CASES]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("signature", EXPORTED)
def test_which_signatures_share_batches(signature, model):
    """Those whose answer does not depend on how long their neighbours are, and whose inputs are of one size."""
    found = model.signature(signature.name)
    padded = signature.name.startswith(("features", "attention", "tokenize"))
    assert found.fixed_size == (not padded)
    assert found.sharable == (not padded and signature is not TAG_WORDS)
