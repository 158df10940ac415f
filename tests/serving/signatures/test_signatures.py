"""Signatures, called as functions, against the encoder called by hand."""

import dataclasses
import functools

import numpy as np
import pytest
import tensorflow as tf

from model.encoder.heads import PRETRAINING
from preprocessing.errors import InputError
from preprocessing.features import INPUT_IDS, INPUT_MASK, SEGMENT_IDS
from preprocessing.tokenizer import BertTokenizer
from serving.settings import ExportSettings
from serving.signatures import (
    ALL,
    ATTENTION,
    EMBEDDING,
    EVALUATE,
    FEATURES,
    FILL_MASK,
    NEXT_SENTENCE,
    TOKENIZE,
    packing,
)
from serving.signatures.base import TextEncoder
from serving.signatures.classification import CLASSIFIERS
from serving.signatures.fill_mask import sequences
from serving.signatures.hidden_states import CHOICES
from serving.signatures.stored_encoder import StoredEncoder
from tests.serving import small_model
from tests.serving.small_model import TEXTS, VOCAB

PAD, UNK, CLS, SEP, MASK = range(5)
LENGTHS = (8, 16, 48)
SETTINGS = ExportSettings(lengths=LENGTHS, top_k=3)
TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}


@pytest.fixture(scope="module")
def encoder():
    return small_model.encoder()


@pytest.fixture(scope="module")
def tokenizer():
    return BertTokenizer(VOCAB)


@pytest.fixture(scope="module")
def texts(encoder, tokenizer):
    return TextEncoder(encoder, tokenizer, SETTINGS)


def answered(signature, encoder, *columns):
    return {name: value.numpy() for name, value in signature.answer(encoder, *map(tf.constant, columns)).items()}


def encode(encoder, *segments, **asked):
    """The encoder on one unpadded sequence, whose segments are lists of ids."""
    ids = [number for segment in segments for number in segment]
    kinds = [index for index, segment in enumerate(segments) for _ in segment]
    inputs = {INPUT_IDS: [ids], INPUT_MASK: [[1] * len(ids)], SEGMENT_IDS: [kinds]}
    return encoder({name: tf.constant(value) for name, value in inputs.items()}, **asked)


def ids_of(tokenizer, text, limit=46):
    return tokenizer.tokenize([text]).to_list()[0][:limit]


# ------------------------------------------------------------------------------------------------------------- packing


def cut_by_hand(a, b, limit):
    while a + b > limit:
        if a > b:
            a -= 1
        else:
            b -= 1
    return a, b


@pytest.mark.parametrize("limit", range(2, 12))
def test_cutting_removes_from_the_longer(limit):
    a, b = (axis.ravel() for axis in np.meshgrid(range(14), range(14)))
    cut = packing.cut_longer(tf.constant(a, tf.int32), tf.constant(b, tf.int32), limit)
    assert np.transpose(cut).tolist() == [list(cut_by_hand(*pair, limit)) for pair in zip(a, b, strict=True)]


@pytest.mark.parametrize(("longest", "padded"), [(2, 8), (8, 8), (9, 16), (16, 16), (17, 48), (48, 48)])
def test_a_batch_is_padded_to_the_next_length(longest, padded):
    assert packing.padded_length(tf.constant(longest), LENGTHS) == padded


def random_tokens(seed, longest):
    rng = np.random.default_rng(seed)
    return tf.ragged.constant([rng.integers(5, 30, rng.integers(0, longest)).tolist() for _ in range(40)], tf.int32)


@pytest.mark.parametrize(("seed", "longest"), [(0, 6), (1, 14), (2, 90)])
@pytest.mark.parametrize("optional", [True, False])
def test_pairs_are_packed_as_by_hand(seed, longest, optional):
    both = random_tokens(seed, longest)
    a, b = packing.halves(packing.rows(both))
    packed = packing.pack_pair(a, b, optional=optional, lengths=LENGTHS, cls_id=CLS, sep_id=SEP, pad_id=PAD)
    rows = both.to_list()
    for row, (first, second) in enumerate(zip(rows[:20], rows[20:], strict=True)):
        given = bool(second) or not optional
        kept = cut_by_hand(len(first), len(second), 45) if given else (min(len(first), 46), 0)
        expected = [CLS, *first[: kept[0]], SEP, *second[: kept[1]], *([SEP] if given else [])]
        real = len(expected)
        width = packed.input_ids.shape[1]
        assert packed.input_ids[row].numpy().tolist() == expected + [PAD] * (width - real)
        assert packed.input_mask[row].numpy().tolist() == [1] * real + [0] * (width - real)
        segments = [0] * (kept[0] + 2) + [1] * (real - kept[0] - 2)
        assert packed.segment_ids[row].numpy().tolist() == segments + [0] * (width - real)
        assert bool(packed.truncated[row]) == (kept != (len(first), len(second)))


@pytest.mark.parametrize(("seed", "longest"), [(0, 6), (1, 14), (2, 90)])
def test_single_texts_are_packed_as_by_hand(seed, longest):
    tokens = random_tokens(seed, longest)
    packed = packing.pack_single(packing.rows(tokens), lengths=LENGTHS, cls_id=CLS, sep_id=SEP, pad_id=PAD)
    width = packed.input_ids.shape[1]
    assert width == min(size for size in LENGTHS if size >= min(max(map(len, tokens.to_list())) + 2, 48))
    for row, ids in enumerate(tokens.to_list()):
        expected = [CLS, *ids[:46], SEP]
        assert packed.input_ids[row].numpy().tolist() == expected + [PAD] * (width - len(expected))
        assert packed.input_mask[row].numpy().tolist() == [1] * len(expected) + [0] * (width - len(expected))
        assert bool(packed.truncated[row]) == (len(ids) > 46)
    assert not packed.segment_ids.numpy().any()


# ---------------------------------------------------------------------------------------------------------- signatures


def test_embedding_is_the_mean_over_the_real_tokens(texts, encoder, tokenizer):
    outputs = answered(EMBEDDING, texts, TEXTS)
    for row, text in enumerate(TEXTS):
        sequence = encode(encoder, [CLS, *ids_of(tokenizer, text), SEP])["sequence_output"][0]
        np.testing.assert_allclose(outputs["embedding"][row], np.mean(sequence, 0), **TOLERANCE)
    assert outputs["truncated"].tolist() == [len(ids_of(tokenizer, text, None)) > 46 for text in TEXTS]
    assert outputs["truncated"].any()


def test_embedding_by_the_pooler_and_of_unit_length(encoder, tokenizer):
    pooler = TextEncoder(encoder, tokenizer, dataclasses.replace(SETTINGS, embedding="pooler"))
    pooled = answered(EMBEDDING, pooler, TEXTS[:1])
    expected = encode(encoder, [CLS, *ids_of(tokenizer, TEXTS[0]), SEP])["pooled_output"]
    np.testing.assert_allclose(pooled["embedding"], expected, **TOLERANCE)
    unit_length = TextEncoder(encoder, tokenizer, dataclasses.replace(SETTINGS, unit_length=True))
    unit = answered(EMBEDDING, unit_length, TEXTS[:1])
    np.testing.assert_allclose(np.linalg.norm(unit["embedding"], axis=-1), 1, **TOLERANCE)


@pytest.mark.parametrize(
    ("pooling", "expected"), [("cls", lambda states: states[0]), ("max", lambda states: states.max(0))]
)
def test_embedding_by_the_first_token_and_by_the_greatest(encoder, tokenizer, pooling, expected):
    texts = TextEncoder(encoder, tokenizer, dataclasses.replace(SETTINGS, embedding=pooling))
    outputs = answered(EMBEDDING, texts, TEXTS)
    for row, text in enumerate(TEXTS):
        states = encode(encoder, [CLS, *ids_of(tokenizer, text), SEP])["sequence_output"][0]
        np.testing.assert_allclose(outputs["embedding"][row], expected(np.asarray(states)), **TOLERANCE)


def test_texts_are_cut_at_max_seq_length(encoder, tokenizer):
    short = TextEncoder(encoder, tokenizer, dataclasses.replace(SETTINGS, max_seq_length=10))
    outputs = answered(TOKENIZE, short, [TEXTS[0], "the " * 8, "the " * 9])
    assert outputs["ids"].shape == (3, 10)
    assert outputs["truncated"].tolist() == [False, False, True]
    assert outputs["ids"][2].tolist() == [CLS, *[VOCAB.index("the")] * 8, SEP]


def test_tokenize_gives_what_the_model_sees(texts):
    outputs = answered(TOKENIZE, texts, ["Paris, runs", "東京 xyz", ""])
    assert [[token.decode() for token in row] for row in outputs["tokens"]] == [
        ["[CLS]", "paris", ",", "run", "##s", "[SEP]", "[PAD]", "[PAD]"],
        ["[CLS]", "東", "京", "[UNK]", "[SEP]", "[PAD]", "[PAD]", "[PAD]"],
        ["[CLS]", "[SEP]", *["[PAD]"] * 6],
    ]
    assert outputs["ids"].tolist() == [[VOCAB.index(token.decode()) for token in row] for row in outputs["tokens"]]
    assert outputs["length"].tolist() == [6, 5, 2]


def test_fill_mask_ranks_the_vocabulary(texts, encoder, tokenizer):
    outputs = answered(FILL_MASK, texts, ["paris [MASK] the[MASK].", "no mask here"])
    ids = [CLS, VOCAB.index("paris"), MASK, VOCAB.index("the"), MASK, VOCAB.index("."), SEP]
    sequence = encode(encoder, ids)["sequence_output"]
    probabilities = tf.nn.softmax(encoder.masked_lm(sequence, tf.constant([[2, 4]])))[0].numpy()
    best = np.argsort(-probabilities, -1)[:, :3]
    assert outputs["tokens"][0].tolist() == [[VOCAB[index].encode() for index in row] for row in best]
    np.testing.assert_allclose(outputs["scores"][0], np.take_along_axis(probabilities, best, -1), **TOLERANCE)
    assert outputs["mask_count"].tolist() == [2, 0]
    assert outputs["tokens"][1].tolist() == [[b""] * 3] * 2
    assert not outputs["scores"][1].any()


def test_fill_mask_writes_the_sentence():
    tokens = tf.constant([["river", "##ning"]] * 4)
    text, rows = tf.constant(["A [MASK],[MASK]  B", "[MASK]é", "run [MASK]!"]), [0, 0, 1, 2]
    written = sequences(tf.gather(text, rows), tf.constant([0, 1, 0, 0]), tokens).numpy()
    assert [[text.decode() for text in row] for row in written] == [
        ["A river,[MASK]  B", "Aning,[MASK]  B"],
        ["A [MASK],river  B", "A [MASK],ning  B"],
        ["riveré", "ningé"],
        ["run river!", "running!"],
    ]


def test_fill_mask_bounds_its_answer(encoder, tokenizer):
    few = TextEncoder(encoder, tokenizer, dataclasses.replace(SETTINGS, max_predictions=2))
    outputs = answered(FILL_MASK, few, ["[MASK] " * 5, "[MASK]", "no mask", "[MASK]" + " " * 9000])
    assert outputs["mask_count"].tolist() == [2, 1, 0, 1]
    assert outputs["tokens"].shape == (4, 2, 3)
    assert all(outputs["sequence"][0].ravel())
    assert not any(outputs["sequence"][3].ravel())
    assert all(outputs["tokens"][3, 0])


def test_fill_mask_without_any_mask(texts):
    outputs = answered(FILL_MASK, texts, ["no mask", "[mask] [MAS K]"])
    assert outputs["mask_count"].tolist() == [0, 0]
    assert outputs["tokens"].shape == (2, 0, 3)


def test_next_sentence_is_the_first_of_two(texts, encoder, tokenizer):
    first, second = [TEXTS[0], TEXTS[5], ""], [TEXTS[6], TEXTS[0], "the"]
    outputs = answered(NEXT_SENTENCE, texts, first, second)
    for row, pair in enumerate(zip(first, second, strict=True)):
        a, b = (ids_of(tokenizer, text, None) for text in pair)
        kept = cut_by_hand(len(a), len(b), 45)
        pooled = encode(encoder, [CLS, *a[: kept[0]], SEP], [*b[: kept[1]], SEP])["pooled_output"]
        probability = tf.nn.softmax(encoder.next_sentence(pooled))[0, 0]
        np.testing.assert_allclose(outputs["is_next"][row], probability, **TOLERANCE)
    assert outputs["truncated"].tolist() == [False, True, False]


def test_features_by_name(texts, encoder, tokenizer):
    pair = [TEXTS[0]], [TEXTS[6]]
    a, b = (ids_of(tokenizer, text) for (text,) in pair)
    states = encode(encoder, [CLS, *a, SEP], [*b, SEP], hidden_states=True)["hidden_states"]
    states = np.stack(states, 1)[0]
    expected = {
        "last": states[-1],
        "second_to_last": states[-2],
        "sum_last_four": states[1:].sum(0),
        "concat_last_four": np.concatenate([states[4], states[3], states[2], states[1]], -1),
        "all": states,
    }
    assert tuple(expected) == tuple(CHOICES)
    features, *single = FEATURES
    every = answered(features, texts, *pair)
    real = int(every["mask"].sum())
    assert real == len(a) + len(b) + 3
    for (choice, value), signature in zip(expected.items(), single, strict=True):
        assert signature.name == f"features_{choice}"
        one = answered(signature, texts, *pair)
        np.testing.assert_allclose(every[choice][0][..., :real, :], value, **TOLERANCE)
        np.testing.assert_allclose(one["features"][0][..., :real, :], value, **TOLERANCE)
        assert [token.decode() for token in one["tokens"][0][:real]] == [VOCAB[i] for i in (CLS, *a, SEP, *b, SEP)]


def test_attention_is_the_encoders(texts, encoder, tokenizer):
    asked = [TEXTS[0], "the"]
    outputs = answered(ATTENTION, texts, asked, ["", ""])
    assert outputs["attention"].shape == (2, 4, 2, 16, 16)
    for row, text in enumerate(asked):
        ids = [CLS, *ids_of(tokenizer, text), SEP]
        expected = tf.stack(encode(encoder, ids, attentions=True)["attentions"], 1)[0]
        real = outputs["attention"][row][..., : len(ids), :]
        np.testing.assert_allclose(real[..., : len(ids)], expected, **TOLERANCE)
        assert not real[..., len(ids) :].any()  # nothing looks at padding


def serialized(ids, positions, labels, weights, label, length):
    example = tf.train.Example()
    values = {
        INPUT_IDS: ids + [0] * (length - len(ids)),
        INPUT_MASK: [1] * len(ids) + [0] * (length - len(ids)),
        SEGMENT_IDS: [0] * length,
        "masked_lm_positions": positions,
        "masked_lm_ids": labels,
        "next_sentence_labels": [label],
    }
    for name, numbers in values.items():
        example.features.feature[name].int64_list.value.extend(numbers)
    example.features.feature["masked_lm_weights"].float_list.value.extend(weights)
    return example.SerializeToString()


def test_evaluate_sums_over_each_example(texts, encoder):
    rows = [
        ([CLS, MASK, 7, 8, MASK, SEP], [1, 4, 0], [6, 9, 0], [1.0, 1.0, 0.0], 0, 20),
        ([CLS, 7, MASK, SEP], [2, 0, 0], [8, 0, 0], [1.0, 0.0, 0.0], 1, 20),
        ([CLS, 7, SEP], [], [], [], 1, 3),
    ]
    outputs = answered(EVALUATE, texts, [serialized(*row) for row in rows])
    for row, (ids, positions, labels, weights, label, _) in enumerate(rows):
        encoded = encode(encoder, ids)
        count = int(sum(weights))
        logits = encoder.masked_lm(encoded["sequence_output"], tf.constant([positions[:count]], tf.int32))[0]
        nll = -tf.nn.log_softmax(logits).numpy()[range(count), labels[:count]]
        np.testing.assert_allclose(outputs["mlm_loss"][row], nll.sum(), **TOLERANCE)
        correct = np.argmax(logits, -1) == labels[:count] if count else np.zeros(0)
        assert outputs["mlm_correct"][row] == correct.sum()
        assert outputs["mlm_weight"][row] == count
        nsp = encoder.next_sentence(encoded["pooled_output"])[0]
        np.testing.assert_allclose(outputs["nsp_loss"][row], -tf.nn.log_softmax(nsp)[label], **TOLERANCE)
        assert outputs["nsp_correct"][row] == float(np.argmax(nsp) == label)
    assert outputs["nsp_weight"].tolist() == [1, 1, 1]
    assert {value.dtype for value in outputs.values()} == {np.dtype(np.float32)}


LONG = serialized([CLS, *[7] * 50, SEP], [49], [8], [1.0], 0, 64)
SHORT = serialized([CLS, 7, MASK, SEP], [2], [8], [1.0], 0, 64)


@pytest.mark.parametrize("in_graph", [True, False])
def test_evaluate_refuses_examples_that_the_export_would_cut(texts, in_graph):
    evaluate = EVALUATE.function(texts) if in_graph else functools.partial(EVALUATE.answer, texts)
    for examples in ([LONG], [LONG, SHORT], [SHORT, LONG], [serialized([], [], [], [], 0, 0)]):
        with pytest.raises(tf.errors.InvalidArgumentError, match=r"must have 1 to 48 tokens, .* \(max_seq_length\)"):
            evaluate(tf.constant(examples))
    assert evaluate(tf.constant([SHORT]))["mlm_weight"].numpy().tolist() == [1.0]


@pytest.mark.parametrize("position", [-1, 4, 8, 40, 100])
def test_evaluate_never_reads_another_row(texts, position):
    """Of the examples that follow, or of the padding."""
    ids = [CLS, 7, MASK, SEP]
    outside = serialized(ids, [position], [8], [1.0], 0, 64)
    evaluate = EVALUATE.function(texts)
    with pytest.raises(tf.errors.InvalidArgumentError, match="masked_lm_positions must lie within their example"):
        evaluate(tf.constant([outside, SHORT]))
    unweighted = serialized(ids, [2, position], [8, 9], [1.0, 0.0], 0, 64)
    for key, value in evaluate(tf.constant([unweighted, SHORT])).items():
        np.testing.assert_allclose(value, evaluate(tf.constant([SHORT, SHORT]))[key], err_msg=key, **TOLERANCE)


ONE_LABEL = {"classify", "classify_pair"}  # what a classifier answers of which nothing else is said
OF_OTHERS = {"tag", "tag_words", "similarity"} | {signature.name for signature in CLASSIFIERS} - ONE_LABEL


@pytest.mark.parametrize(
    ("heads", "missing"),
    [
        (small_model.EVERY_HEAD, set()),
        (PRETRAINING, {"answer", *ONE_LABEL}),
        (("masked_lm",), {"next_sentence", "answer", *ONE_LABEL}),
        (("next_sentence",), {"fill_mask", "answer", *ONE_LABEL}),
        (small_model.EVERY_HEAD[2:3], {"fill_mask", "next_sentence", "evaluate", "answer"}),
        (small_model.EVERY_HEAD[3:], {"fill_mask", "next_sentence", "evaluate", *ONE_LABEL}),
        ((), {"fill_mask", "next_sentence", "evaluate", "answer", *ONE_LABEL}),
    ],
)
def test_missing_heads_leave_out_their_signatures(tokenizer, heads, missing):
    texts = TextEncoder(small_model.encoder(heads, 4), tokenizer, SETTINGS)
    assert {signature.name for signature in ALL if signature.missing(texts)} == missing | OF_OTHERS
    if heads == ("masked_lm",):
        outputs = answered(EVALUATE, texts, [serialized([CLS, MASK, SEP], [1], [7], [1.0], 0, 3)])
        assert set(outputs) == {"mlm_correct", "mlm_loss", "mlm_weight"}


def test_a_vocabulary_without_masks_leaves_out_what_fills_them():
    tokenizer = BertTokenizer([token.replace("[MASK]", "mask") for token in VOCAB])
    texts = TextEncoder(small_model.encoder(), tokenizer, SETTINGS)
    missing = {one.name: one.missing(texts) for one in ALL if one.name not in OF_OTHERS and one.missing(texts)}
    assert missing == {"fill_mask": "the vocabulary has no [MASK]"}


def test_few_layers_leave_out_the_features_of_four(tokenizer):
    texts = TextEncoder(small_model.encoder(small_model.EVERY_HEAD, 2), tokenizer, SETTINGS)
    missing = {one.name: one.missing(texts) for one in ALL if one.name not in OF_OTHERS and one.missing(texts)}
    assert missing == dict.fromkeys(["features_sum_last_four", "features_concat_last_four"], "the model has 2 layers")
    outputs = answered(FEATURES[0], texts, ["the"], [""])
    assert set(outputs) == {"last", "second_to_last", "all", "tokens", "mask", "truncated"}


def test_the_vocabulary_must_fit_the_model(encoder):
    with pytest.raises(InputError, match=r"word embedding \(\d+ rows\)\. Received: \d+ tokens"):
        TextEncoder(encoder, BertTokenizer([*VOCAB, "more"]), SETTINGS)


@pytest.mark.parametrize("asked", ["hidden_states", "attentions"])
@pytest.mark.parametrize("parts", [1, 2])
def test_the_graph_computes_the_encoder_over_the_real_tokens(texts, encoder, asked, parts):
    packed = texts.pack(tf.constant(TEXTS))
    expected = encoder(packed.features, **{asked: True})
    stored = StoredEncoder(encoder, ExportSettings(parts=parts))
    outputs = tf.function(lambda: stored(packed.features, **{asked: True}))()
    real = packed.input_mask.numpy() > 0
    assert not real.all()
    assert set(outputs) == set(expected)
    np.testing.assert_allclose(outputs["pooled_output"], expected["pooled_output"], **TOLERANCE)
    np.testing.assert_allclose(outputs["sequence_output"][real], expected["sequence_output"][real], **TOLERANCE)
    assert np.isfinite(outputs["sequence_output"]).all()
    for ours, theirs in zip(outputs[asked], expected[asked], strict=True):
        rows = real if asked == "hidden_states" else np.broadcast_to(real[:, None], ours.shape[:3])
        np.testing.assert_allclose(ours.numpy()[rows], theirs.numpy()[rows], **TOLERANCE)


@pytest.mark.parametrize("several", [True, False])
@pytest.mark.parametrize("parts", [1, 2])
def test_the_last_layer_is_worked_out_for_some_tokens_alone(texts, encoder, several, parts):
    packed = texts.pack(tf.constant(TEXTS))
    real = np.flatnonzero(packed.input_mask)
    only = real[1::3] if several else real[:0]
    expected = tf.reshape(encoder(packed.features)["sequence_output"], [-1, encoder.settings.hidden_size])
    stored = StoredEncoder(encoder, ExportSettings(parts=parts))
    outputs = tf.function(lambda: stored(packed.features, only=tf.constant(only)))()
    assert set(outputs) == {"sequence_output"}
    np.testing.assert_allclose(outputs["sequence_output"], expected.numpy()[only], **TOLERANCE)


@pytest.mark.parametrize("weights", ["float32", "bfloat16"])
@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
def test_bfloat16_is_close(texts, encoder, tokenizer, weights, compute):
    settings = dataclasses.replace(SETTINGS, weights=weights, compute=compute)
    lower = TextEncoder(encoder, tokenizer, settings)
    stored = [variable.dtype for variable in lower.model.variables if len(variable.shape) > 1]
    assert set(stored) == {tf.as_dtype(weights)}
    for signature, asked in ((EMBEDDING, TEXTS[:1]), (FILL_MASK, ["the [MASK] of"])):
        expected = answered(signature, texts, asked)
        outputs = answered(signature, lower, asked)
        for key in {"embedding", "scores"} & set(outputs):
            difference = np.abs(outputs[key] - expected[key]).max()
            assert difference < 0.3
            assert (difference == 0) == (weights == compute == "float32")
