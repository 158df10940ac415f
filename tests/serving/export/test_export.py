"""An exported folder, loaded again."""

import ast
import dataclasses
import json
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_text as text
from tensorflow_serving.apis import prediction_log_pb2

from model import checkpoints
from model.encoder import BertEncoder
from model.encoder.heads import PRETRAINING
from preprocessing.errors import InputError
from preprocessing.tokenizer import BertTokenizer
from serving.engine.loaded_model import WARMUP_REQUESTS
from serving.export import exporting, golden, serving_ops, warmup
from serving.signatures import EMBEDDING, FILL_MASK, NEXT_SENTENCE
from serving.signatures.base import TextEncoder
from serving.signatures.hidden_states import TOKENIZE
from tests.data import ROOT
from tests.serving import small_model

# Tracing all takes seconds. One answers under a second name, too, as several tasks of one model would.
FEW = (EMBEDDING, FILL_MASK, NEXT_SENTENCE, dataclasses.replace(NEXT_SENTENCE, name="follows"))
SETTINGS = small_model.EXPORT
ROUNDED = dataclasses.replace(SETTINGS, weights="bfloat16", compute="bfloat16")


@pytest.fixture(scope="module")
def vocab(tmp_path_factory):
    return small_model.write_vocab(tmp_path_factory.mktemp("vocab"), "words-of-france.txt")


@pytest.fixture(scope="module")
def loaded(exported):
    return tf.saved_model.load(exported[0]).signatures


@pytest.fixture
def here(monkeypatch):
    """Answers golden requests in this process: a fresh one takes seconds."""
    monkeypatch.setattr(exporting, "_answer_elsewhere", lambda folder: golden.answer(str(folder)))


MEGABYTE = {
    "words": "the run is on " * 80_000,
    "one word": "run" * 350_000,
    "controls": "the\x00 run\u200b " * 90_000,
    "accents": "thé fränce " * 90_000,
    "masks": "[MASK] " * 150_000,
}


@pytest.mark.parametrize("text", MEGABYTE.values(), ids=MEGABYTE)
def test_a_megabyte_of_text_is_cut(loaded, text):
    texts = tf.constant([text, "the run"])
    assert tf.strings.length(texts)[0] > 1_000_000
    tokens = loaded["tokenize"](text=texts)
    assert tokens["length"].numpy().tolist() == [3 if text == MEGABYTE["one word"] else 48, 4]
    embedding = loaded["serving_default"](text=texts)["embedding"]
    np.testing.assert_allclose(embedding[1], loaded["serving_default"](text=texts[1:])["embedding"][0], atol=1e-5)
    filled = loaded["fill_mask"](text=texts)
    assert filled["mask_count"].numpy().tolist() == [20 if "[MASK]" in text else 0, 0]


def test_answers_are_compared_with_all_digits(exported_tagger, monkeypatch):
    """A GPU would round the factors of float32 products to TF32, by each process and batch in other places."""
    enabled, seen = tf.config.experimental.tensor_float_32_execution_enabled, []
    tf.config.experimental.enable_tensor_float_32_execution(True)
    with exporting._all_digits():
        assert not enabled()
    assert enabled()
    monkeypatch.setattr(golden, "differences", lambda *_: seen.append(enabled()) or {})
    golden.answer(str(exported_tagger[0]))
    assert set(seen) == {False}


def test_the_report_says_what_there_is(exported):
    folder, report = exported
    assert json.loads((folder / exporting.REPORT).read_text()) == json.loads(json.dumps(report))
    assert report["signatures"]["fill_mask"]["outputs"]["tokens"] == ["string", [None, None, 3]]
    assert report["signatures"]["features"]["inputs"] == {"text": ["string", [None]], "second": ["string", [None]]}
    assert report["left_out"] == {}  # what is for another task is not missed
    assert report["parameters"] == sum(np.prod(v.shape) for v in small_model.encoder().variables)
    assert report["largest_difference"] < 1e-5
    assert report["load_seconds"] > 0
    assert report["bytes"] == sum(
        path.stat().st_size for path in folder.rglob("*") if path.is_file() and "assets.extra" not in str(path)
    )


def test_the_export_holds_the_vocabulary(exported, vocab):
    assert (exported[0] / "assets/vocab.txt").read_bytes() == vocab.read_bytes()


def test_no_variable_is_stored_that_no_signature_reads(exported):
    stored = tf.train.list_variables(str(exported[0] / "variables/variables"))
    sizes = [np.prod(shape, dtype=int) for name, shape in stored if "weights" in name]
    assert sum(sizes) == sum(np.prod(variable.shape) for variable in small_model.encoder().variables)
    assert len(stored) == len(sizes) + 1  # and the object graph


@pytest.mark.parametrize("version", sorted(serving_ops.ALLOWED))
def test_tensorflow_serving_links_every_operation(exported, version):
    custom = serving_ops.custom_operations(exported[0])
    assert custom == {"FastWordpieceTokenizeWithOffsets", "NormalizeUTF8"}
    assert custom <= serving_ops.ALLOWED[version]


def test_a_trimmer_is_refused_for_what_it_is(tmp_path):
    module = tf.Module()
    trimmer = text.RoundRobinTrimmer(4)
    function = tf.function(lambda values: trimmer.trim([tf.strings.split(values)])[0].to_tensor())
    signature = function.get_concrete_function(tf.TensorSpec([None], tf.string))
    tf.saved_model.save(module, str(tmp_path), signatures={"serving_default": signature})
    refused = serving_ops.refused_by(tmp_path)
    assert set(refused) == {"2.16", "2.17", "2.18", "2.19"}
    assert refused["2.19"] <= {"TFText>RoundRobinTrim", "TFText>RoundRobinGenerateMasks"}


def test_the_fresh_process_runs_nothing_of_the_project():
    """-I keeps the working directory and PYTHONPATH out; the script itself looks whether the model brought any in."""
    nodes = list(ast.walk(ast.parse(pathlib.Path(golden.__file__).read_text())))
    imported = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    assert imported == {"base64", "json", "pathlib", "sys", "time", "numpy", "tensorflow", "tensorflow_text"}
    assert not any(isinstance(node, ast.ImportFrom) for node in nodes)


def warmup_requests(folder):
    records = tf.data.TFRecordDataset(str(folder / WARMUP_REQUESTS)).as_numpy_iterator()
    return [prediction_log_pb2.PredictionLog.FromString(record).predict_log.request for record in records]


def test_the_embedded_server_needs_no_keras_to_answer(rounded):
    code = f"""
import gc, pathlib, sys
from pipeline.commands import serve
serve._start_quickly()
from serving.engine.loaded_model import LoadedModel
folder = pathlib.Path({str(rounded)!r})
print(LoadedModel("bert", 1, folder).warm_up(folder), sys.modules["keras"], gc.isenabled())
"""
    root = ROOT
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.split() == [str(len(warmup_requests(rounded))), "None", "False"]


def change_expected(folder, by):
    requests = json.loads((folder / golden.REQUESTS).read_text())
    requests[0]["outputs"]["embedding"][0][0] += by
    (folder / golden.REQUESTS).write_text(json.dumps(requests))


@pytest.fixture(scope="module")
def rounded(vocab, tmp_path_factory):
    """An export of which one answer is served in bfloat16."""
    folder = tmp_path_factory.mktemp("rounded") / "model"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporting, "_answer_elsewhere", lambda folder: golden.answer(str(folder)))
        exporting.export(small_model.encoder(), vocab, folder, ROUNDED, signatures=FEW)
    return folder


def encoder_without_its_last_layer():
    whole = small_model.encoder()
    less = BertEncoder(dataclasses.replace(whole.settings, num_layers=3), whole.described_heads)
    values = {variable.path: variable for variable in whole.variables}
    for variable in less.variables:
        variable.assign(values[variable.path])
    return less


def swapped(request, outputs):
    return {name: [*values[:2][::-1], *values[2:]] for name, values in outputs.items()}


def without_a_layer(request, outputs):
    signature = next(one for one in FEW if one.name == request["signature_name"])
    texts = TextEncoder(encoder_without_its_last_layer(), BertTokenizer(small_model.VOCAB), ROUNDED)
    other = signature.answered(texts, {name: golden.decoded(values) for name, values in request["inputs"].items()})
    return {name: golden.encoded(other[name].numpy().tolist()) for name in outputs}


def by_the_pooler(request, outputs):
    if request["signature_name"] != "serving_default":
        return outputs
    pooler = dataclasses.replace(ROUNDED, embedding="pooler")
    texts = TextEncoder(small_model.encoder(), BertTokenizer(small_model.VOCAB), pooler)
    other = EMBEDDING.answered(texts, {"text": golden.decoded(request["inputs"]["text"])})
    return outputs | {"embedding": other["embedding"].numpy().tolist()}


@pytest.mark.parametrize(
    ("plant", "name", "output"),
    [
        (swapped, "fill_mask", "scores"),
        pytest.param(without_a_layer, "serving_default", "embedding", marks=pytest.mark.long),
        pytest.param(swapped, "serving_default", "embedding", marks=pytest.mark.long),
        pytest.param(by_the_pooler, "serving_default", "embedding", marks=pytest.mark.long),
        pytest.param(without_a_layer, "fill_mask", "scores", marks=pytest.mark.long),
        pytest.param(without_a_layer, "next_sentence", "is_next", marks=pytest.mark.long),
    ],
)
def test_a_wrong_answer_is_not_taken_for_rounding(rounded, tmp_path, here, plant, name, output):
    folder = shutil.copytree(rounded, tmp_path / "copy")
    exporting.verify(folder)
    requests = json.loads((folder / golden.REQUESTS).read_text())
    for request in requests:
        if request["signature_name"] == name:
            planted = plant(request, request["outputs"])
            request["outputs"] |= {output: planted[output]}
    (folder / golden.REQUESTS).write_text(json.dumps(requests))
    with pytest.raises(InputError, match=rf"{name} must answer .* within 0\.\d+\. Received: .* in {output}"):
        exporting.verify(folder)


def test_the_bounds_of_each_output_stand_beside_the_answers(rounded, exported):
    requests = json.loads((rounded / golden.REQUESTS).read_text())
    bounds = {request["signature_name"]: request["bounds"] for request in requests}
    assert bounds == {one.name: {name: bound for name, bound in one.rounded.items() if bound} for one in FEW}
    assert not {"tokens", "sequence"} & {name for request in requests for name in request["outputs"]}
    requests = json.loads((exported[0] / golden.REQUESTS).read_text())
    assert not any(request["bounds"] for request in requests)  # in float32 every number is held to 1e-5


@pytest.mark.long
def test_a_folder_without_bounds_is_held_to_the_one_for_all(exported, tmp_path, here):
    folder = shutil.copytree(exported[0], tmp_path / "copy")
    requests = json.loads((folder / golden.REQUESTS).read_text())
    for request in requests:
        del request["bounds"]
    (folder / golden.REQUESTS).write_text(json.dumps(requests))
    assert exporting.verify(folder)["largest_difference"] < 1e-5
    change_expected(folder, 0.001)
    with pytest.raises(InputError, match="within 1e-05"):
        exporting.verify(folder)


def test_vectors_are_measured_by_their_length():
    expected = [[3.0, 4.0], [0.0, 0.0]]
    measured = golden.differences(expected, np.array([[3.0, 4.5], [0.0, 0.0]], np.float32))
    assert measured == {name: pytest.approx(0.125 if name != "vectors" else 0.1) for name in golden.MEASURES}
    measured = golden.differences(expected, np.array([[3.0, 4.0], [0.0, 0.1]], np.float32))
    assert measured == dict.fromkeys(("numbers", "rounding"), pytest.approx(0.1)) | {"vectors": float("inf")}
    assert golden.differences(expected, np.full((2, 2), np.nan, np.float32))["vectors"] == float("inf")
    measured = golden.differences([[30.0, 40.0, 0.5]], np.array([[30.0, 40.0, 1.5]], np.float32))
    assert measured["rounding"] == pytest.approx(1 / np.sqrt((30**2 + 40**2 + 0.5**2) / 3))
    assert measured["numbers"] == pytest.approx(1)


def test_two_signatures_of_one_name_are_refused(vocab, tmp_path):
    with pytest.raises(InputError, match="signatures must have names of their own"):
        exporting.export(small_model.encoder(), vocab, tmp_path / "model", SETTINGS, signatures=(EMBEDDING, EMBEDDING))


@pytest.mark.long
def test_another_answer_than_the_python_paths_is_refused_with_its_size(exported, tmp_path, here):
    folder = shutil.copytree(exported[0], tmp_path / "copy")
    change_expected(folder, 0.25)
    with pytest.raises(InputError, match=r"serving_default must .* within 1e-05\. Received: .* 0\.2\d* in embedding"):
        exporting.verify(folder)


def test_a_changed_weight_is_refused(exported, tmp_path, here):
    folder = shutil.copytree(exported[0], tmp_path / "copy")
    data = folder / "variables/variables.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[::-1])
    with pytest.raises(Exception, match=r"difference|corrupt|checksum|Checksum"):
        exporting.verify(folder)


def test_a_model_that_does_not_load_is_refused(exported, tmp_path):
    folder = shutil.copytree(exported[0], tmp_path / "copy")
    shutil.rmtree(folder / "variables")
    with pytest.raises(InputError, match="does not load and answer in a fresh process"):
        exporting.verify(folder)


def test_what_is_no_export_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"not an exported model, it has no saved_model\.pb"):
        exporting.verify(tmp_path)


def test_a_refused_export_leaves_nothing(vocab, tmp_path, monkeypatch):
    def refuse(folder):
        assert folder.parent == tmp_path
        raise InputError("refused")

    monkeypatch.setattr(exporting, "verify", refuse)
    with pytest.raises(InputError, match="refused"):
        exporting.export(small_model.encoder(), vocab, tmp_path / "model", SETTINGS, signatures=FEW)
    assert not list(tmp_path.iterdir())


def test_a_taken_folder_is_left_alone(vocab, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="must not exist yet"):
        exporting.export(small_model.encoder(), vocab, tmp_path, SETTINGS)
    assert (tmp_path / "file").read_text() == "mine"


def test_versions_count_on(vocab, tmp_path, here):
    checkpoints.save(small_model.encoder(("masked_lm",), 2), tmp_path / "checkpoint", vocab, lower_case=True)
    (tmp_path / "base/bert/7").mkdir(parents=True)
    (tmp_path / "base/bert/note.txt").write_text("no version")
    lines = []
    version = exporting.export_version(
        tmp_path / "checkpoint", tmp_path / "base", settings=ROUNDED, report=lines.append, signatures=FEW
    )
    assert version == tmp_path / "base/bert/8"
    assert sorted(path.name for path in version.parent.iterdir()) == ["7", "8", "note.txt"]
    report = json.loads((version / exporting.REPORT).read_text())
    assert report["left_out"] == dict.fromkeys(["next_sentence", "follows"], "the checkpoint has no next-sentence head")
    assert report["lower_case"] is True
    assert lines


def test_warm_up_requests_that_no_server_runs_are_told(vocab, tmp_path, here, monkeypatch):
    monkeypatch.setattr(warmup, "MAX_WARMUP_REQUESTS", 3)
    told = []
    report = exporting.export(
        small_model.encoder((), 2), vocab, tmp_path / "model", SETTINGS, report=told.append, signatures=FEW
    )
    wanted = len(SETTINGS.warmup_lengths) * len(SETTINGS.warmup_batches)  # of the one signature that there is
    assert (report["warmup_records"], report["warmup_left_out"]) == (3, wanted - 3)
    assert len(warmup_requests(tmp_path / "model")) == 3
    assert any(line.startswith("1 warm-up requests are left out: a server runs 3") for line in told)


def test_a_checkpoint_without_vocabulary_needs_one(tmp_path):
    checkpoints.save(small_model.encoder(), tmp_path / "checkpoint")
    with pytest.raises(InputError, match="no vocabulary beside the checkpoint"):
        exporting.export_version(tmp_path / "checkpoint", tmp_path / "base")


def test_added_tokens_and_the_longest_word_are_served(tmp_path, here):
    vocabulary = checkpoints.CheckpointTokenizer([*small_model.VOCAB[:-1], "[USER]"], True, {"[USER]": True}, 5)
    checkpoints.save_huggingface(small_model.encoder(PRETRAINING, layers=1), tmp_path / "checkpoint", vocabulary)
    version = exporting.export_version(tmp_path / "checkpoint", tmp_path, settings=SETTINGS, signatures=[TOKENIZE])
    served = tf.saved_model.load(str(version)).signatures["tokenize"](text=tf.constant(["a[USER]river " + "é" * 101]))
    assert served["tokens"][0, :5].numpy().tolist() == [b"[CLS]", b"a", b"[USER]", b"river", b"[UNK]"]
    report = json.loads((version / exporting.REPORT).read_text())
    assert (report["added_tokens"], report["longest_word"]) == (["[USER]"], 100)
