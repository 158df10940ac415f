"""Every format: round trips without a changed bit, recognition, old names, and what is refused."""

import collections
import json
import os
import pathlib
import pickle
import shutil
import signal
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest
import safetensors.numpy
import tensorflow as tf

from model import checkpoints
from model.checkpoints import configs, huggingface, keras_hub, tensor_files, vocabularies
from model.checkpoints import names as array_names
from model.encoder import BertEncoder
from model.settings import EncoderSettings
from preprocessing.errors import InputError
from preprocessing.vocab_file import infer_lower_case
from tests import data
from tests.data import ROOT
from tests.golden import encoder_weights

SETTINGS = EncoderSettings(
    vocab_size=40,
    hidden_size=16,
    num_layers=2,
    num_heads=2,
    intermediate_size=24,
    max_positions=20,
    activation="gelu",
    dropout=0.2,
    attention_dropout=0.3,
    layer_norm_epsilon=1e-6,
)
VOCAB = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "ein", "##e", "\u2028", "ß"]
HEADS = [(), ("masked_lm",), ("next_sentence",), ("masked_lm", "next_sentence")]


def randomised(heads=HEADS[-1], settings=SETTINGS):
    encoder = BertEncoder(settings, heads=heads)
    random = np.random.default_rng(0)
    for weight in encoder.weights:
        weight.assign(random.normal(size=weight.shape))
    return encoder


@pytest.fixture(scope="module")
def encoder():
    return randomised()


def assert_same(first, second):
    assert first.settings == second.settings
    assert first.heads == second.heads
    arrays, others = array_names.arrays_of(first), array_names.arrays_of(second)
    assert set(arrays) == set(others)
    for name, array in arrays.items():
        assert array.tobytes() == others[name].tobytes(), name


KILLED_WHILE_WRITING = """
import pathlib, resource, signal, sys
from model.checkpoints import vocabularies
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
vocabularies.write_vocab(pathlib.Path(sys.argv[1]), ["other"] * 1000)
"""


@pytest.mark.long
def test_a_vocabulary_is_whole_whenever_its_writer_is_killed(tmp_path):
    vocabularies.write_vocab(tmp_path, VOCAB)
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_WHILE_WRITING, str(tmp_path)], cwd=ROOT, check=False, capture_output=True
    )
    assert killed.returncode == -signal.SIGXFSZ, killed.stderr
    assert vocabularies.read_vocab(tmp_path / "vocab.txt") == VOCAB


def test_keras_hubs_own_outputs_and_files(tmp_path):
    settings = EncoderSettings(**{**vars(SETTINGS), "activation": "gelu_tanh", "layer_norm_epsilon": 1e-12})
    encoder = randomised(settings=settings)
    folder = tmp_path / "preset"
    checkpoints.save_as("keras-hub", encoder, folder, VOCAB)
    assert keras_hub.backbone_difference(encoder, folder) < 2e-5
    assert checkpoints.vocab_file(folder) == folder / "assets/tokenizer/vocabulary.txt"
    backbone = keras_hub.load_backbone(folder)
    backbone.save(tmp_path / "backbone.keras")
    alone = checkpoints.load(tmp_path / "backbone.keras")
    assert alone.heads == ()
    assert alone.settings.attention_dropout == alone.settings.dropout == 0.2
    outputs = [model(probe())["pooled_output"] for model in (encoder, alone)]
    np.testing.assert_array_equal(*outputs)


def test_a_folder_named_as_a_built_in_preset_is_the_folder(tmp_path, monkeypatch):
    import keras_nlp

    asked = []
    monkeypatch.setattr(keras_nlp.models.Backbone, "from_preset", asked.append)
    monkeypatch.chdir(tmp_path)
    pathlib.Path("bert_tiny_en_uncased").mkdir()
    with pytest.raises(InputError, match="must hold a BertBackbone"):
        keras_hub.load_backbone(pathlib.Path("bert_tiny_en_uncased"))
    assert asked == [str(tmp_path / "bert_tiny_en_uncased")]


def probe():
    ids = np.arange(12, dtype=np.int32).reshape(2, 6)
    return {"input_ids": ids, "input_mask": np.ones_like(ids), "segment_ids": ids % 2}


@pytest.mark.parametrize("chain", [("google", "huggingface", "ours", "google"), ("ours", "google", "huggingface")])
def test_chains_of_formats_change_no_bit(encoder, chain, tmp_path):
    model = encoder
    for i, kind in enumerate(chain):
        checkpoints.save_as(kind, model, tmp_path / str(i))
        model = checkpoints.load(tmp_path / str(i))
    assert_same(encoder, model)
    assert checkpoints.largest_difference(encoder, model) == 0


def test_google_names_and_shapes_in_a_tf1_reader(tmp_path):
    settings = EncoderSettings(
        vocab_size=encoder_weights.VOCAB_SIZE, hidden_size=128, num_layers=2, num_heads=2, intermediate_size=512
    )
    checkpoints.save_google(randomised(settings=settings), tmp_path / "bert_model.ckpt")
    written = {name: tuple(shape) for name, shape in tf.train.list_variables(str(tmp_path / "bert_model.ckpt"))}
    assert written == encoder_weights.shapes(2, 128)
    reader = tf.compat.v1.train.NewCheckpointReader(str(tmp_path / "bert_model.ckpt"))
    assert all(dtype == tf.float32 for dtype in reader.get_variable_to_dtype_map().values())
    assert len(encoder_weights.shapes(12, 768)) == 206
    assert encoder_weights.shapes(12, 768) == array_names.shapes(EncoderSettings())


def test_google_training_state_is_skipped(encoder, tmp_path):
    checkpoints.save_google(encoder, tmp_path / "model.ckpt-7", VOCAB)
    prefix = str(tmp_path / "model.ckpt-7")
    reader = tf.train.load_checkpoint(prefix)
    tensors = {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
    name = "bert/pooler/dense/bias"
    tensors |= {f"{name}/adam_m": tensors[name], f"{name}/adam_v": tensors[name], "global_step": np.int64(7)}
    tf.raw_ops.SaveV2(
        prefix=prefix, tensor_names=list(tensors), shape_and_slices=[""] * len(tensors), tensors=list(tensors.values())
    )
    for path in (tmp_path, prefix, f"{prefix}.index", f"{prefix}.data-00000-of-00001"):
        assert_same(encoder, checkpoints.load(path))
    assert checkpoints.vocab_file(prefix) == tmp_path / "vocab.txt"
    shutil.copy(f"{prefix}.index", tmp_path / "other.index")
    with pytest.raises(InputError, match=r"several checkpoints; name one of: model.ckpt-7, other"):
        checkpoints.load(tmp_path)
    for named in ("/elsewhere/model.ckpt-7", "../model.ckpt-7"):
        (tmp_path / "checkpoint").write_text(f'model_checkpoint_path: "{named}"\n')
        assert_same(encoder, checkpoints.load(tmp_path))
    (tmp_path / "checkpoint").write_bytes(b'model_checkpoint_path: "\xff"\n')
    with pytest.raises(InputError, match="checkpoint: must be UTF-8 text"):
        checkpoints.load(tmp_path)


@pytest.fixture
def folder(encoder, tmp_path):
    """A Hugging Face folder to damage."""
    checkpoints.save_huggingface(encoder, tmp_path, VOCAB)
    return tmp_path


def rewrite(folder, change):
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    tensors = change(tensors) or tensors
    safetensors.numpy.save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, folder / "model.safetensors")


def old_names(tensors):
    def old(name):
        name = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        return name.removeprefix("bert.")

    result = {old(name): array for name, array in tensors.items()}
    result["embeddings.position_ids"] = np.arange(20)[None]
    result["cls.predictions.decoder.weight"] = result["embeddings.word_embeddings.weight"]
    result["cls.predictions.decoder.bias"] = result.pop("cls.predictions.bias")
    return result


def test_old_names_and_aliases_load(encoder, folder):
    rewrite(folder, old_names)
    assert_same(encoder, checkpoints.load(folder))


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_shards_and_half_precision_load(encoder, folder, name, monkeypatch):
    monkeypatch.setitem(huggingface.READERS, name, tensor_files.read_safetensors)
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    names = sorted(tensors)
    shards = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for shard, members in shards.items():
        values = {name: tensors[name].astype(np.float16) for name in members}
        safetensors.numpy.save_file(values, folder / shard)
    weight_map = {name: shard for shard, members in shards.items() for name in members}
    index = folder / f"{name}.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    (folder / "model.safetensors").unlink()
    loaded = array_names.arrays_of(checkpoints.load(folder))
    for name, array in array_names.arrays_of(encoder).items():
        np.testing.assert_array_equal(loaded[name], array.astype(np.float16).astype(np.float32))
    for wrong, rule in (([], "weight_map must be a JSON object"), ({"x": "c"}, "every shard must be in the folder")):
        index.write_text(json.dumps({"weight_map": wrong}))
        with pytest.raises(InputError, match=rule):
            checkpoints.load(folder)


def test_bfloat16_safetensors_load(tmp_path):
    values = np.array([[1.5, -2.0], [0.1, 3e30]], np.float32)
    header = json.dumps({"x": {"dtype": "BF16", "shape": [2, 2], "data_offsets": [0, 8]}}).encode()
    data = values.astype(tf.bfloat16.as_numpy_dtype).tobytes()
    (tmp_path / "x").write_bytes(len(header).to_bytes(8, "little") + header + data)
    loaded = tensor_files.read_safetensors(tmp_path / "x")["x"].astype(np.float32)
    np.testing.assert_allclose(loaded, values, rtol=2**-8)


def test_types_that_numpy_lacks_are_refused(tmp_path):
    header = json.dumps({"x": {"dtype": "F8_E4M3", "shape": [2], "data_offsets": [0, 2]}}).encode()
    (tmp_path / "x").write_bytes(len(header).to_bytes(8, "little") + header + bytes(2))
    with pytest.raises(InputError, match=r"x: not a readable safetensors file: .*float8_e4m3"):
        tensor_files.read_safetensors(tmp_path / "x")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.update({"classifier.weight": np.zeros((2, 16), np.float32)}), "1 unexpected arrays: classifier.w"),
        (
            lambda t: t.update({"bert.encoder.layer.2.output.dense.bias": np.zeros(16, np.float32)}),
            r"unexpected arrays: bert.encoder.layer.2.output.dense.bias.*\(2 layers\)",
        ),
        (
            lambda t: t.pop("bert.encoder.layer.1.attention.self.key.weight") is None or None,
            r"1 of the encoder's arrays are missing: bert/encoder/layer_1/attention/self/key/kernel",
        ),
        (lambda t: t.pop("cls.seq_relationship.bias") is None or None, "1 of the next_sentence's arrays are missing"),
        (
            lambda t: t.update({"bert.pooler.dense.bias": np.zeros(17, np.float32)}),
            r"misshapen arrays: bert/pooler/dense/bias must be \[16\], received \[17\]",
        ),
        (
            lambda t: t.update({"cls.predictions.decoder.weight": np.zeros((40, 16), np.float32)}),
            "cls.predictions.decoder.weight must equal bert.embeddings.word_embeddings.weight",
        ),
    ],
)
def test_wrong_arrays_are_refused_by_name(folder, change, message):
    rewrite(folder, change)
    with pytest.raises(InputError, match=message):
        checkpoints.load(folder)


def test_unexpected_arrays_can_be_ignored(encoder, folder):
    rewrite(folder, lambda t: t.update({"classifier.weight": np.zeros((2, 16), np.float32)}))
    assert_same(encoder, checkpoints.load(folder, ignore=["classifier.*"]))


def test_ignored_are_the_names_that_the_files_give(encoder, folder):
    untied = "cls.predictions.decoder.weight"
    rewrite(folder, lambda t: t.update({untied: np.zeros((40, 16), np.float32)}))
    assert_same(encoder, checkpoints.load(folder, ignore=[untied]))
    assert checkpoints.load(folder, ignore=["cls.predictions.*"]).heads == ("next_sentence",)
    rewrite(folder, old_names)
    assert checkpoints.load(folder, ignore=["cls.*", "pooler.*"], heads=(), report=lambda line: None).heads == ()


def test_values_that_are_not_finite_are_told_and_differ(encoder, folder):
    rewrite(folder, lambda t: t["bert.pooler.dense.bias"].fill(np.nan))
    told = []
    damaged = checkpoints.load(folder, report=told.append)
    assert told == [f"{folder}: 1 arrays hold values that are not finite: bert/pooler/dense/bias"]
    assert checkpoints.largest_difference(encoder, damaged) == float("inf")
    assert checkpoints.largest_difference(damaged, damaged) == 0


def test_tokenizer_settings_that_are_dropped_are_told(folder):
    path, told = folder / "tokenizer_config.json", []
    path.write_text(json.dumps({"do_lower_case": True, "strip_accents": False, "tokenize_chinese_chars": False}))
    checkpoints.load(folder, report=told.append)
    ending = "false is dropped; the text is tokenized without it"
    assert told == [f"{path}: strip_accents {ending}", f"{path}: tokenize_chinese_chars {ending}"]
    path.write_text(json.dumps({"tokenizer_class": "BertTokenizerFast", "strip_accents": None}))
    checkpoints.load(folder, report=told.append)
    assert len(told) == 2
    path.write_text(json.dumps({"tokenizer_class": "BertJapaneseTokenizer"}))
    checkpoints.load(folder, report=told.append)
    rule = "tokenizer_class must be BertTokenizer or BertTokenizerFast"
    assert told[2:] == [f"{path}: {rule}. Received: 'BertJapaneseTokenizer'"]


def test_missing_heads_are_named_and_initialised(folder):
    rewrite(folder, lambda t: {k: v for k, v in t.items() if not k.startswith(("cls.pred", "bert.pooler"))})
    told = []
    loaded = checkpoints.load(folder, heads=("masked_lm",), report=told.append)
    assert loaded.heads == ("masked_lm",)
    assert told == [f"{folder}: has no pooler, no masked_lm: initialised at random"]
    assert 0.01 < loaded.masked_lm.kernel.numpy().std() < 0.03
    assert checkpoints.load(folder, heads=(), report=told.append).heads == ()
    with pytest.raises(InputError, match=r"heads must be among \('masked_lm', .*'masked-lm'"):
        checkpoints.load(folder, heads=("masked-lm",))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "roberta"}, "model_type must be \"bert\". Received: 'roberta'"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type must be"),
        ({"hidden_act": "relu"}, "hidden_act must be one of"),
        ({"num_attention_heads": 3}, "hidden_size must be a multiple"),
        ({"hidden_act": ["gelu"]}, "hidden_act must be one of"),
        ({"hidden_size": "sixteen"}, "hidden_size must be a whole number. Received: 'sixteen'"),
        ({"num_hidden_layers": 2.0}, "num_hidden_layers must be a whole number"),
        ({"layer_norm_eps": "tiny"}, "layer_norm_eps must be a number"),
        ({"num_hidden_layers": None}, "num_hidden_layers is missing"),
        ({"vocab_size": 41}, r"bert/embeddings/word_embeddings must be \[41, 16\], received \[40, 16\]"),
    ],
)
def test_wrong_configurations_are_refused(folder, change, message):
    config = json.loads((folder / "config.json").read_text()) | change
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=message):
        checkpoints.load(folder)


def test_absent_and_null_entries_are_defaults_but_for_the_sizes(folder):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"layer_norm_eps": None}))
    assert checkpoints.load(folder).settings.layer_norm_epsilon == 1e-12


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"hidden_size": 16.0}, "hidden_size must be a whole number. Received: 16.0"),
        ({"num_layers": True}, "num_layers must be a whole number"),
        ({"dropout": "0.1"}, "dropout must be a number"),
        ({"encoder": 5}, "the settings must be a JSON object. Received: 5"),
        ({"depth": 2}, "unexpected keyword argument 'depth'"),
    ],
)
def test_wrong_settings_files_are_refused(config, message, tmp_path):
    path = tmp_path / "x.json"
    path.write_text(json.dumps(config))
    with pytest.raises(InputError, match=f"^{path}: .*{message}"):
        configs.settings_in(path)


def test_a_folder_that_holds_an_exported_model_says_which(tmp_path):
    (tmp_path / "bert" / "1").mkdir(parents=True)
    (tmp_path / "bert" / "1" / "saved_model.pb").touch()
    with pytest.raises(InputError, match=rf"{tmp_path}: not a checkpoint, but .* name {tmp_path}/bert$"):
        checkpoints.load(tmp_path)


def test_damaged_and_absent_files(folder, tmp_path):
    for text in ("{", '{"x":' * 10_000):
        (folder / "config.json").write_text(text)
        with pytest.raises(InputError, match=r"config.json: cannot be read as JSON"):
            checkpoints.load(folder)
    with pytest.raises(InputError, match="no such checkpoint"):
        checkpoints.load(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="not a checkpoint"):
        checkpoints.load(tmp_path / "empty")


def test_a_google_checkpoint_without_its_configuration(encoder, tmp_path):
    checkpoints.save_google(encoder, tmp_path / "bert_model.ckpt")
    (tmp_path / "bert_config.json").unlink()
    with pytest.raises(InputError, match=r"bert_config.json: missing"):
        checkpoints.load(tmp_path)


def test_vocabularies_are_read_as_the_tokenizer_does_and_written_clean(encoder, tmp_path):
    (tmp_path / "dos.txt").write_bytes(b"\xef\xbb\xbf" + "\r\n".join([*VOCAB, "", ""]).encode())
    checkpoints.save(encoder, tmp_path / "x", tmp_path / "dos.txt")
    assert (tmp_path / "x" / "vocab.txt").read_bytes() == "".join(f"{token}\n" for token in VOCAB).encode()


def test_keras_hub_infers_lower_case(encoder, tmp_path):
    checkpoints.save_as("keras-hub", encoder, tmp_path, VOCAB)
    assert json.loads((tmp_path / "tokenizer.json").read_text())["config"]["lowercase"] is True


@pytest.mark.parametrize(
    ("name", "expected"), [("uncased", True), ("cased", False), ("multilingual-cased", False), ("chinese", True)]
)
def test_lower_case_of_official_vocabularies(name, expected):
    tokens = vocabularies.read_vocab(data.require(f"vocab/bert-base-{name}-vocab.txt"))
    assert infer_lower_case(tokens) is expected


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        (None, None),
        (VOCAB, True),
        ([*VOCAB, "Ein"], False),
        ([*VOCAB, "[unused1]", "<S>"], True),
        ([*VOCAB, "Дом"], False),
        ([*VOCAB, "дом"], True),
        ([*VOCAB, "ά"], False),
        ([*VOCAB, "की"], True),
        ([*VOCAB, "कु"], False),
    ],
)
def test_lower_case_is_inferred_where_nothing_states_it(encoder, tokens, expected, tmp_path):
    for kind in ("google", "huggingface", "ours"):
        checkpoints.save_as(kind, encoder, tmp_path / kind, tokens)
        assert checkpoints.lower_case(tmp_path / kind) is expected


class Hostile:
    def __reduce__(self):
        return os.system, ("touch hostile",)


def pickled(path, value, storage=b""):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", value if isinstance(value, bytes) else pickle.dumps(value, 2))
        archive.writestr("archive/data/0", storage)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"x": Hostile()}, r"refused to load (posix|nt)\.system"),
        ({"x": pathlib.PurePosixPath("a")}, "refused to load pathlib"),
        (collections.OrderedDict(x=1), "not a plain dict of tensors"),
        ([1], "not a plain dict of tensors"),
        (b"\x80", "not a plain dict of tensors"),
    ],
)
def test_pickles_run_no_code(value, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pickled(tmp_path / "pytorch_model.bin", value)
    with pytest.raises(InputError, match=message):
        tensor_files.read_torch_pickle(tmp_path / "pytorch_model.bin")
    assert not (tmp_path / "hostile").exists()


def test_pickled_tensors_do_not_reach_beyond_their_bytes(tmp_path):
    def tensor(size):  # as torch pickles {"x": one over a storage of 4}
        storage = "(S'storage'\nctorch\nFloatStorage\nS'0'\nS'cpu'\nI4\ntQ"
        return f"(dS'x'\nctorch._utils\n_rebuild_tensor_v2\n({storage}I0\n(I{size}\nt(I1\ntI00\nNtRs.".encode()

    with pytest.raises(pickle.UnpicklingError, match="malformed"):
        tensor_files._rebuild_tensor(np.zeros(4, np.float32), 0, (2,), (-1,))
    values = np.arange(4, dtype=np.float32)
    pickled(tmp_path / "x.bin", tensor(4), values.tobytes())
    np.testing.assert_array_equal(tensor_files.read_torch_pickle(tmp_path / "x.bin")["x"], values)
    pickled(tmp_path / "x.bin", tensor(1000), values.tobytes())
    with pytest.raises(InputError, match="tensor reaches beyond its storage"):
        tensor_files.read_torch_pickle(tmp_path / "x.bin")


def test_pytorch_files_of_old_are_refused(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps({}))
    with pytest.raises(InputError, match=r"not a zip archive.*save it again"):
        tensor_files.read_torch_pickle(tmp_path / "pytorch_model.bin")


def test_loading_takes_a_precision_policy(folder):
    loaded = checkpoints.load(folder, dtype="mixed_bfloat16")
    assert loaded.compute_dtype == "bfloat16"
    assert loaded.pooler.kernel.dtype == "float32"
    assert keras.config.dtype_policy().name == "float32"


TRANSFORMERS = """
import sys, numpy as np, torch, transformers
folder, name, out = sys.argv[1:]
model, info = getattr(transformers, name).from_pretrained(folder, output_loading_info=True)
assert not any(info.values()), info
ids = torch.arange(12).reshape(2, 6)
bert = getattr(model, "bert", model).eval()
outputs = bert(ids, attention_mask=torch.ones_like(ids), token_type_ids=ids % 2)
np.save(out, outputs.last_hidden_state.detach().numpy())
"""


@pytest.mark.long
@pytest.mark.parametrize(
    ("heads", "name"),
    [(HEADS[3], "BertForPreTraining"), (HEADS[2], "BertForNextSentencePrediction"), (HEADS[0], "BertModel")],
)
def test_transformers_loads_what_we_write_without_missing_or_unexpected_keys(heads, name, tmp_path):
    python = os.environ.get("BERT_PEER_PYTHON")
    if not python:
        pytest.skip("needs BERT_PEER_PYTHON, a Python with torch and transformers")
    encoder = BertEncoder(EncoderSettings(**{**vars(SETTINGS), "layer_norm_epsilon": 1e-12}), heads)
    checkpoints.save_huggingface(encoder, tmp_path / "hf", VOCAB, lower_case=True)
    subprocess.run([python, "-c", TRANSFORMERS, tmp_path / "hf", name, tmp_path / "out.npy"], check=True)
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), encoder(probe())["sequence_output"], atol=2e-5)
