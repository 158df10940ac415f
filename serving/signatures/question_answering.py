"""What in a context answers a question: google-research/bert's `run_squad.py`, with spans of the original text.

A context of any length is read in overlapping windows, a few at a time, so that memory does not grow with it. Unlike
there every span is looked at, not those of the 20 best starts and ends alone.

Shapes: B batch, W windows of all of it, w some of them, L padded length, K best spans, A tokens of the longest answer.
"""

import tensorflow as tf

from model.settings import QuestionAnsweringSettings
from preprocessing.tasks.windows import LEAST, SPECIALS
from serving.signatures import packing, windows
from serving.signatures.base import DISTRIBUTIONS, GOLDEN_TEXTS, Inputs, Outputs, Signature, TextEncoder

QUESTION = tf.TensorSpec([None], tf.string, name="question")
CONTEXT = tf.TensorSpec([None], tf.string, name="context")
AT_ONCE = 16  # windows that are encoded together
NEVER = -1e9  # the score of what is no span
# Scores that are as near as this count as equal, and the first comes first: a context that repeats itself has windows
# that are alike but for rounding, which would choose by what stands beside them in a batch.
ALIKE = 1e-3


def _answer(encoder: TextEncoder, question, context) -> Outputs:
    """The spans of the context that answer the question best.

    Returns: `answer` string [B], the best span's text, empty where there is none or no answer scores better by more
    than the task's threshold; `no_answer` float32 [B], by how much no answer scores better than the best span, in nats
    (of a context without tokens, its own score). Of the K best spans, the best first: `answers` string; `scores`
    float32, probabilities among these and, if the model may say that there is none, no answer; `byte_starts`,
    `byte_ends`, `char_starts`, `char_ends` int32, where they stand in the context: all [B, K], and empty or 0 where
    there are fewer. `truncated` bool [B]: the question was cut; contexts never are.
    """
    task = _task(encoder)
    spans = encoder.tokenizer.tokenize_with_offsets(context)
    questions = packing.rows(encoder.tokenizer.tokenize(question))
    contexts = packing.rows(spans.ids)
    longest = min(task.max_seq_length, encoder.lengths[-1])
    found = windows.cut(questions, contexts, longest, task)
    scores_WK, firsts_WK, lasts_WK, none_W = _of_windows(encoder, found, questions, contexts, longest, task)

    # A question's candidates follow each other: their numbers need not be made dense, too.
    count = encoder.settings.top_k
    by_question = tf.RaggedTensor.from_row_lengths(scores_WK, found.counts, validate=False).to_tensor(NEVER)
    batch, most, _ = tf.unstack(tf.shape(by_question))
    best_BK, place_BK = _top(tf.reshape(by_question, [batch, most * count]), count)
    is_span_BK = best_BK > NEVER / 2
    place_BK += (tf.cumsum(found.counts, exclusive=True) * count)[:, None]
    first_BK, last_BK = (_at(tf.reshape(values, [-1]), is_span_BK, place_BK) for values in (firsts_WK, lasts_WK))
    places = {
        "byte_starts": _at(spans.byte_starts.values, is_span_BK, first_BK),
        "byte_ends": _at(spans.byte_ends.values, is_span_BK, last_BK),
        "char_starts": _at(spans.char_starts.values, is_span_BK, first_BK),
        "char_ends": _at(spans.char_ends.values, is_span_BK, last_BK),
    }
    texts_BK = tf.strings.substr(
        tf.repeat(context[:, None], count, 1), places["byte_starts"], places["byte_ends"] - places["byte_starts"]
    )
    none_B = tf.math.segment_min(none_W, found.rows)
    no_answer = none_B - tf.where(is_span_BK, best_BK, 0.0)[:, 0]
    answers = is_span_BK[:, 0]
    candidates = best_BK
    if task.no_answer_threshold is not None:
        answers &= no_answer <= task.no_answer_threshold
        candidates = tf.concat([best_BK, none_B[:, None]], 1)
    return {
        "answer": tf.where(answers, texts_BK[:, 0], ""),
        "no_answer": no_answer,
        "answers": texts_BK,
        "scores": tf.where(is_span_BK, tf.nn.softmax(candidates)[:, :count], 0.0),
        **places,
        "truncated": questions.lengths > found.kept,
    }


def _of_windows(encoder, found: windows.Windows, questions, contexts, longest, task):
    """The best spans of each window: scores float32 [W, K], first and last token int32 [W, K] among the tokens of all
    contexts; and the score of no answer float32 [W]."""
    lengths = (*(length for length in encoder.lengths if length < longest), longest)
    count, total = encoder.settings.top_k, tf.size(found.rows)
    parts = tf.maximum((total + AT_ONCE - 1) // AT_ONCE, 1)
    kept = [
        tf.TensorArray(dtype, parts, infer_shape=False, element_shape=shape)
        for dtype, shape in ((tf.float32, [None, count]), *[(tf.int32, [None, count])] * 2, (tf.float32, [None]))
    ]

    def body(number, *kept):
        some = tf.range(number * AT_ONCE, tf.minimum((number + 1) * AT_ONCE, total))
        part = windows.part(found, some, questions, contexts, lengths, encoder.special)
        logits_wL2 = encoder.model.span(encoder.encode(part.packed)["sequence_output"])
        values = (*_best_spans(part, logits_wL2, task.max_answer, count), tf.reduce_sum(logits_wL2[:, 0], -1))
        return number + 1, *(array.write(number, value) for array, value in zip(kept, values, strict=True))

    _, *kept = tf.while_loop(lambda number, *_: number < parts, body, [0, *kept], parallel_iterations=1)
    return [array.concat() for array in kept]


def _best_spans(part: windows.Part, logits_wL2, longest: int, count: int):
    """(scores, first tokens, last tokens) [w, K]: a span begins where its token counts, and lies in the context."""
    batch, length = tf.unstack(tf.shape(part.tokens))
    starts_wL = tf.where(part.best, logits_wL2[:, :, 0], NEVER)
    ends_wL = tf.pad(tf.where(part.tokens >= 0, logits_wL2[:, :, 1], NEVER), [[0, 0], [0, longest - 1]],
                     constant_values=NEVER)  # fmt: skip
    band_LA = tf.range(length)[:, None] + tf.range(longest)
    scores_wLA = starts_wL[:, :, None] + tf.gather(ends_wL, band_LA, axis=1)
    scores_wK, place_wK = _top(tf.reshape(scores_wLA, [batch, length * longest]), count)
    is_span_wK = scores_wK > NEVER / 2
    first_wK = tf.gather(part.tokens, tf.where(is_span_wK, place_wK // longest, 0), batch_dims=1)
    return tf.where(is_span_wK, scores_wK, NEVER), first_wK, first_wK + place_wK % longest


def _top(scores, count: int):
    """(scores, places) of the best `count` of each row, with others that are NEVER where there are fewer."""
    scores = tf.pad(scores, [[0, 0], [0, count]], constant_values=NEVER)
    _, places = tf.math.top_k(tf.round(scores / ALIKE), count)
    return tf.gather(scores, places, batch_dims=1), places


def _at(values, is_span, place):
    """int32: the values at these places, 0 where there is no span."""
    values = tf.concat([tf.cast(values, tf.int32), [0]], 0)
    return tf.gather(values, tf.where(is_span, place, tf.size(values) - 1))


def _task(encoder: TextEncoder) -> QuestionAnsweringSettings:
    """google's, of a checkpoint that says nothing."""
    return encoder.task if isinstance(encoder.task, QuestionAnsweringSettings) else QuestionAnsweringSettings()


def _missing(encoder: TextEncoder) -> str | None:
    if encoder.model.span is None:
        return "the checkpoint has no head for spans"
    if encoder.tokenizer.added:
        return "the places of its answers are not known where the tokenizer has added tokens"
    return None


def _questions(encoder: TextEncoder) -> list[Inputs]:
    """Also of a context that has several windows, none of which is like another."""
    texts = list(GOLDEN_TEXTS)
    words = encoder.text_of(2)
    long = " ".join(f"{texts[0]} {words} {number} {texts[-1]}" for number in range(encoder.lengths[-1] // 30))
    return [{QUESTION.name: [*texts[::-1], texts[0]], CONTEXT.name: [*texts, long]}]


def _long_context(encoder: TextEncoder, length: int) -> tuple[str, ...]:
    return encoder.text_of(LEAST), encoder.text_of(length - SPECIALS - LEAST)


# Rounding may change which of two spans that are about as good comes first.
_PLACES = ("answer", "answers", "byte_starts", "byte_ends", "char_starts", "char_ends")
ANSWER = Signature(
    "answer",
    (QUESTION, CONTEXT),
    _answer,
    rounded={"scores": DISTRIBUTIONS, "no_answer": {"numbers": 0.1}, **dict.fromkeys(_PLACES)},
    missing=_missing,
    golden=_questions,
    warm_up=_long_context,
    kind="question-answering",
    often=True,
)
