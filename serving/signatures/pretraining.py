"""What the pretraining heads are for: whether a sentence follows, and how good they are at held-out examples."""

import tensorflow as tf

from preprocessing import features
from serving.signatures import packing
from serving.signatures.base import (
    FIRST,
    GOLDEN_TEXTS,
    NATS,
    PRETRAINING,
    PROBABILITIES,
    SECOND,
    Inputs,
    Outputs,
    Signature,
    TextEncoder,
)

EXAMPLES = tf.TensorSpec([None], tf.string, name="examples")


def _next_sentence(encoder: TextEncoder, first, second) -> Outputs:
    """Whether the second text follows the first.

    Returns: `is_next` float32 [B], a probability; `truncated` bool [B].
    """
    packed = encoder.pack_pair(first, second, optional=False)
    logits = encoder.model.next_sentence(encoder.pooled(packed))
    return {"is_next": tf.nn.softmax(logits)[:, 0], "truncated": packed.truncated}


def _evaluate(encoder: TextEncoder, examples) -> Outputs:
    """Sums for each masked pair, to be added up and divided: `mlm_loss / mlm_weight` is the masked-language loss.

    Takes serialized tf.Examples as of `preprocessing.features`, whose tokens are at most as many as the export's
    `max_seq_length`; longer ones are an error, since cut ones would be other figures than those of the examples.

    Returns: float32 [B] each: `mlm_correct`, `mlm_loss` (negative log-likelihood in nats), `mlm_weight` (number of
    predictions), `nsp_correct`, `nsp_loss`, `nsp_weight` (1), as far as the checkpoint has the heads.
    """
    parsed = tf.io.parse_example(examples, _example_features(encoder.model.heads))
    inputs = {name: tf.cast(parsed[name], tf.int32) for name in features.SEQUENCE_FEATURES}
    tokens = tf.reduce_sum(inputs[features.INPUT_MASK], 1)
    with tf.control_dependencies([_fits(tokens, encoder.lengths[-1])]):
        real = packing.padded_length(tf.reduce_max(tokens), encoder.lengths)
    outputs = encoder.model({name: _wide(ids)[:, :real] for name, ids in inputs.items()})
    sums = {}
    if encoder.model.masked_lm is not None:
        weights = parsed[features.MASKED_LM_WEIGHTS]
        positions = tf.cast(parsed[features.MASKED_LM_POSITIONS], tf.int32)
        with tf.control_dependencies([_within(tokens, positions, weights)]):
            positions = tf.where(weights > 0, positions, 0)  # padding may point anywhere
        logits = encoder.model.masked_lm(outputs["sequence_output"], positions)
        correct, loss = _correct_and_loss(logits, parsed[features.MASKED_LM_IDS])
        sums["mlm_correct"] = tf.reduce_sum(correct * weights, 1)
        sums["mlm_loss"] = tf.reduce_sum(loss * weights, 1)
        sums["mlm_weight"] = tf.reduce_sum(weights, 1)
    if encoder.model.next_sentence is not None:
        logits = encoder.model.next_sentence(outputs["pooled_output"])
        labels = parsed[features.NEXT_SENTENCE_LABELS][:, 0]
        sums["nsp_correct"], sums["nsp_loss"] = _correct_and_loss(logits, labels)
        sums["nsp_weight"] = tf.ones_like(sums["nsp_loss"])
    return sums


def _fits(tokens, longest: int):
    fits = tf.reduce_all((tokens > 0) & (tokens <= longest))
    message = f"examples must have 1 to {longest} tokens, for which the model was exported (max_seq_length)"
    return tf.debugging.assert_equal(fits, True, message)


def _wide(ids):
    """At least one wide, also where there is no example."""
    return tf.pad(ids, [[0, 0], [0, tf.maximum(1 - tf.shape(ids)[1], 0)]])


def _within(tokens, positions, weights):
    """Else a prediction would be read from a neighbour's row."""
    own = (positions >= 0) & (positions < tokens[:, None]) | (weights <= 0)
    return tf.debugging.assert_equal(tf.reduce_all(own), True, "masked_lm_positions must lie within their example")


def _example_features(heads) -> dict:
    def numbers(dtype):  # of any number; shorter lists are padded with zeros
        return tf.io.FixedLenSequenceFeature([], dtype, allow_missing=True)

    parsed = {name: numbers(tf.int64) for name in features.SEQUENCE_FEATURES}
    if "masked_lm" in heads:
        parsed |= {name: numbers(tf.int64) for name in features.PREDICTION_FEATURES}
        parsed[features.MASKED_LM_WEIGHTS] = numbers(tf.float32)
    if "next_sentence" in heads:
        parsed[features.NEXT_SENTENCE_LABELS] = tf.io.FixedLenFeature([1], tf.int64)
    return parsed


def _correct_and_loss(logits, labels):
    """1.0 where the largest logit is the label's, and the negative log-likelihood; shapes of `labels`."""
    correct = tf.cast(tf.argmax(logits, -1, output_type=labels.dtype) == labels, tf.float32)
    return correct, tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)


def _example(ids: list[int], first: int) -> bytes:
    """A serialized masked example of these ids, in which `first` is to be predicted behind [CLS]."""
    found = tf.train.Example()
    for name, numbers in (
        (features.INPUT_IDS, ids),
        (features.INPUT_MASK, [1] * len(ids)),
        (features.SEGMENT_IDS, [0] * len(ids)),
        (features.MASKED_LM_POSITIONS, [1]),
        (features.MASKED_LM_IDS, [first]),
        (features.NEXT_SENTENCE_LABELS, [0]),
    ):
        found.features.feature[name].int64_list.value.extend(numbers)
    found.features.feature[features.MASKED_LM_WEIGHTS].float_list.value.append(1.0)
    return found.SerializeToString()


def _no_next_sentence(encoder: TextEncoder) -> str | None:
    return None if encoder.model.next_sentence else "the checkpoint has no next-sentence head"


def _no_head(encoder: TextEncoder) -> str | None:
    has_one = {"masked_lm", "next_sentence"} & set(encoder.model.heads)
    return None if has_one else "the checkpoint has no pretraining head"


def _pairs(encoder: TextEncoder) -> list[Inputs]:
    return [{FIRST.name: list(GOLDEN_TEXTS), SECOND.name: list(GOLDEN_TEXTS[::-1])}]


def _texts_as_examples(encoder: TextEncoder) -> list[Inputs]:
    """Each predicts its first token itself."""
    packed = encoder.pack(tf.constant(GOLDEN_TEXTS))
    rows = zip(packed.input_ids.numpy().tolist(), tf.reduce_sum(packed.input_mask, 1).numpy(), strict=True)
    return [{EXAMPLES.name: [_example(ids[:length], ids[1]) for ids, length in rows]}]


def _long_pair(encoder: TextEncoder, length: int) -> tuple[str, ...]:
    first = (length - 3) // 2
    return encoder.text_of(first), encoder.text_of(length - 3 - first)


def _long_example(encoder: TextEncoder, length: int) -> tuple[bytes, ...]:
    tokenizer = encoder.tokenizer
    ids = [tokenizer.cls_id, *[tokenizer.unk_id] * (length - 2), tokenizer.sep_id]
    return (_example(ids, tokenizer.unk_id),)


NEXT_SENTENCE = Signature(
    "next_sentence",
    (FIRST, SECOND),
    _next_sentence,
    rounded={"is_next": PROBABILITIES},
    missing=_no_next_sentence,
    kind=PRETRAINING,
    golden=_pairs,
    warm_up=_long_pair,
)
EVALUATE = Signature(
    "evaluate",
    (EXAMPLES,),
    _evaluate,
    rounded={"mlm_loss": NATS, "nsp_loss": NATS},
    missing=_no_head,
    kind=PRETRAINING,
    golden=_texts_as_examples,
    warm_up=_long_example,
)
