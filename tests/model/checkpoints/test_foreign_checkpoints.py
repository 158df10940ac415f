"""Checkpoints as people have them: wrapped, amid the state of training, of other libraries, with odd configurations."""

import json
import pickle

import numpy as np
import pytest
import tensorflow as tf

from model import checkpoints
from model.checkpoints import comparing, keras_hub
from model.settings import EncoderSettings
from preprocessing.errors import InputError
from preprocessing.features import SPECIAL_TOKENS
from tests.model.checkpoints.test_checkpoints import VOCAB, assert_same, randomised, rewrite

SETTINGS = EncoderSettings(
    vocab_size=40, hidden_size=16, num_layers=2, num_heads=2, intermediate_size=24, max_positions=20
)


@pytest.fixture(scope="module")
def encoder():
    return randomised(settings=SETTINGS)


@pytest.fixture
def folder(encoder, tmp_path):
    """Hugging Face's."""
    checkpoints.save_huggingface(encoder, tmp_path, VOCAB)
    return tmp_path


@pytest.fixture
def prefix(encoder, tmp_path):
    """Google's."""
    checkpoints.save_google(encoder, tmp_path / "model.ckpt", VOCAB)
    return str(tmp_path / "model.ckpt")


def stored(prefix):
    reader = tf.train.load_checkpoint(prefix)
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def store(prefix, tensors):
    tf.raw_ops.SaveV2(
        prefix=prefix,
        tensor_names=list(tensors),
        shape_and_slices=[""] * len(tensors),
        tensors=[tf.constant(tensor) for tensor in tensors.values()],
    )


class TestPrefixes:
    @pytest.mark.parametrize(
        "wrapper", ["module.", "model.", "_orig_mod.", "0.auto_model.", "my_bert.", "a.b.c.", "_orig_mod.module."]
    )
    @pytest.mark.parametrize("root", ["bert.", ""])
    def test_of_hugging_faces_names(self, folder, encoder, wrapper, root):
        def wrapped(tensors):
            return {
                wrapper + (root + name.removeprefix("bert.") if name.startswith("bert.") else name): array
                for name, array in tensors.items()
            }

        rewrite(folder, wrapped)
        told = []
        assert_same(encoder, checkpoints.load(folder, report=told.append))
        assert told == [f"{folder}: the prefix {wrapper!r} is taken off the names of its arrays"]

    def test_of_the_encoder_alone(self, folder, encoder):
        rewrite(folder, lambda t: {n.replace("bert.", "encoder_q.", 1): array for n, array in t.items()})
        assert_same(encoder, checkpoints.load(folder, report=lambda line: None))

    def test_of_googles_names(self, prefix, encoder, tmp_path):
        store(str(tmp_path / "model.ckpt"), {f"module/{name}": array for name, array in stored(prefix).items()})
        told = []
        assert_same(encoder, checkpoints.load(prefix, report=told.append))
        assert told == [f"{prefix}: the prefix 'module/' is taken off the names of its arrays"]

    def test_two_models_in_one_file(self, folder, encoder):
        rewrite(
            folder, lambda t: {f"{who}.{name}": array for who in ("student", "teacher") for name, array in t.items()}
        )
        message = (
            r"must hold one model. Received: 2, .* 'student.', 'teacher.'; ignore the others by pattern, 'teacher.\*'"
        )
        with pytest.raises(InputError, match=message):
            checkpoints.load(folder)
        assert_same(encoder, checkpoints.load(folder, ignore=["teacher.*"], report=lambda line: None))


class TestStateOfTraining:
    @pytest.mark.parametrize(
        "state",
        [
            "{}/Adam",
            "{}/Adam_1",
            "{}/Momentum",
            "{}/lamb_m",
            "{}/vr",
            "train/{}/m",
            "AdamWeightDecay/{}/v/part",
            "{}/a/b",
        ],
    )
    def test_of_any_optimizer(self, prefix, encoder, state):
        tensors = stored(prefix)
        numbers = {"beta1_power": np.ones([1], np.float32), "global_step": np.int64(7), "opt/iter": np.int64(7)}
        store(prefix, tensors | {state.format(name): array for name, array in tensors.items()} | numbers)
        told = []
        assert_same(encoder, checkpoints.load(prefix, report=told.append))
        assert told == []

    def test_moving_averages(self, prefix, encoder):
        tensors, told = stored(prefix), []
        averages = {f"{name}/ExponentialMovingAverage": array + 1 for name, array in tensors.items()}
        store(prefix, tensors | averages)
        assert_same(encoder, checkpoints.load(prefix, report=told.append))
        store(prefix, averages)
        loaded = checkpoints.load(prefix, report=told.append)
        np.testing.assert_array_equal(loaded.pooler.bias, encoder.pooler.bias + 1)
        assert told == [
            f"{prefix}: moving averages are passed over; the weights themselves are taken",
            f"{prefix}: has moving averages of weights, not the weights themselves; they are taken",
        ]

    def test_what_is_of_another_model_is_still_named(self, prefix):
        store(prefix, stored(prefix) | {"classifier/kernel": np.ones([16, 2], np.float32)})
        with pytest.raises(InputError, match="1 unexpected arrays: classifier/kernel"):
            checkpoints.load(prefix)


class TestOtherForms:
    def test_an_object_checkpoint(self, prefix, encoder):
        tf.train.Checkpoint(weights=[weight.value for weight in encoder.weights]).write(prefix)
        with pytest.raises(InputError, match="an object checkpoint of TensorFlow 2, as Model Garden writes it"):
            checkpoints.load(prefix)

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("tf_model.h5", r"Hugging Face's weights for TensorFlow; .*from_tf=True"),
            ("flax_model.msgpack", r"Hugging Face's weights for Flax; .*from_flax=True"),
            ("model.onnx", "an ONNX graph"),
            ("saved_model.pb", "a SavedModel"),
        ],
    )
    def test_files_of_other_libraries(self, folder, name, message):
        (folder / "model.safetensors").rename(folder / name)
        with pytest.raises(InputError, match=f"{name}: {message}"):
            checkpoints.load(folder)

    def test_pytorch_before_1_6(self, folder):
        """As torch.save wrote it then: a magic number, a version, what the machine is like, then the tensors."""
        (folder / "model.safetensors").unlink()
        parts = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, {})
        (folder / "pytorch_model.bin").write_bytes(b"".join(pickle.dumps(part, 2) for part in parts))
        with pytest.raises(InputError, match=r"written by PyTorch before 1\.6, .*torch\.save\(torch\.load"):
            checkpoints.load(folder)
        (folder / "pytorch_model.bin").write_bytes(b"PK")
        with pytest.raises(InputError, match=r"not a zip archive \(truncated\?\)"):
            checkpoints.load(folder)

    @pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
    def test_a_pointer_to_a_file(self, folder, name):
        (folder / "model.safetensors").unlink()
        (folder / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")
        with pytest.raises(InputError, match=r"only points at the file itself, which Git LFS keeps; run git lfs pull"):
            checkpoints.load(folder)


class TestModelsOfKerasHub:
    """Presets with a head, as its own code saves them."""

    @pytest.fixture
    def parts(self, encoder, tmp_path):
        """(keras-hub's models, a backbone, a tokenizer)."""
        import keras_nlp

        checkpoints.save_as("keras-hub", encoder, tmp_path / "backbone")
        tokenizer = keras_nlp.models.BertTokenizer([*SPECIAL_TOKENS, "ein"])
        return keras_nlp.models, keras_hub.load_backbone(tmp_path / "backbone"), tokenizer

    def test_masked_lm(self, parts, tmp_path):
        models, backbone, tokenizer = parts
        model = models.BertMaskedLM(backbone, models.BertMaskedLMPreprocessor(tokenizer, sequence_length=8))
        random = np.random.default_rng(0)
        for weight in model.weights:
            weight.assign(random.normal(size=weight.shape))
        model.save_to_preset(str(tmp_path))
        told = []
        loaded = checkpoints.load(tmp_path, report=told.append)
        assert loaded.heads == ("masked_lm",)
        assert "its head computes GELU exactly" in told[0]
        inputs, positions = comparing.random_inputs(SETTINGS), np.array([[0, 3], [1, 2]], np.int32)
        theirs = model(
            {
                "token_ids": inputs["input_ids"],
                "padding_mask": inputs["input_mask"],
                "segment_ids": inputs["segment_ids"],
                "mask_positions": positions,
            }
        )
        ours = loaded.masked_lm(loaded(inputs)["sequence_output"], positions)
        np.testing.assert_allclose(ours, theirs, atol=0.05)

    def test_a_classifier(self, parts, tmp_path):
        models, backbone, tokenizer = parts
        preprocessor = models.BertTextClassifierPreprocessor(tokenizer, sequence_length=8)
        models.BertTextClassifier(backbone, 3, preprocessor).save_to_preset(str(tmp_path))
        told = []
        assert checkpoints.load(tmp_path, report=told.append).heads == ()
        assert told == [
            f"{tmp_path / 'task.json'}: a BertTextClassifier, of which the backbone is read, and not its head"
        ]


class TestConfigurations:
    def change(self, folder, **values):
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    def test_a_byte_order_mark(self, folder, encoder):
        path = folder / "config.json"
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
        assert_same(encoder, checkpoints.load(folder))

    def test_numbers_in_strings(self, folder, encoder):
        self.change(folder, hidden_size="16", num_hidden_layers=" 2", layer_norm_eps="1e-12")
        assert_same(encoder, checkpoints.load(folder))

    def test_no_type_of_model(self, folder, encoder):
        self.change(folder, model_type=None, architectures=None)
        assert_same(encoder, checkpoints.load(folder))
