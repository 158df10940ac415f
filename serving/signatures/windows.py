"""Overlapping windows of questions and their contexts, inside the graph: those of `preprocessing.tasks.windows`, and in
which of them each token of a context counts (google-research/bert's `_check_is_max_context` in `run_squad.py`).

Shapes: B questions, W windows, w some of them, L padded length, N tokens of all contexts, T tokens of all windows.
"""

from typing import NamedTuple

import tensorflow as tf

from model.settings import QuestionAnsweringSettings
from preprocessing.tasks.windows import LEAST, SPECIALS
from serving.signatures import packing
from serving.signatures.packing import Packed, Rows


class Windows(NamedTuple):
    """int32 [W]: each window's question, where its part of the context begins in the flat vector of all contexts'
    tokens, and how long it is; `counts`, `kept` [B]: windows of each question, and how many of its tokens are kept;
    `best` [N]: the window in which a token has most context."""

    rows: tf.Tensor
    starts: tf.Tensor
    lengths: tf.Tensor
    counts: tf.Tensor
    kept: tf.Tensor
    best: tf.Tensor


def cut(questions: Rows, contexts: Rows, longest: int, task: QuestionAnsweringSettings) -> Windows:
    """`longest`: tokens of a window."""
    kept = tf.minimum(questions.lengths, min(task.max_question, longest - SPECIALS - LEAST))
    capacity = longest - SPECIALS - kept
    step = tf.minimum(task.stride, capacity)
    counts = 1 + tf.maximum(-((capacity - contexts.lengths) // step), 0)
    rows = tf.repeat(tf.range(tf.size(kept)), counts)
    number = tf.range(tf.size(rows)) - tf.gather(tf.cumsum(counts, exclusive=True), rows)
    offsets = number * tf.gather(step, rows)
    lengths = tf.minimum(tf.gather(capacity, rows), tf.gather(contexts.lengths, rows) - offsets)
    starts = tf.gather(contexts.starts, rows) + offsets
    return Windows(rows, starts, lengths, counts, kept, _best(starts, lengths, tf.size(contexts.values)))


def _best(starts, lengths, tokens):
    """Where the shorter of what stands before and behind is longest; then in the longer window, by google's 0.01 for
    each of its tokens; then in the first."""
    windows = tf.size(starts)
    window_T = tf.repeat(tf.range(windows), lengths)
    place_T = tf.range(tf.size(window_T)) - tf.gather(tf.cumsum(lengths, exclusive=True), window_T)
    length_T, token_T = tf.gather(lengths, window_T), tf.gather(starts, window_T) + place_T
    context_T = 100 * tf.minimum(place_T, length_T - 1 - place_T) + length_T
    most_N = tf.math.unsorted_segment_max(context_T, token_T, tokens)
    found_T = tf.where(context_T == tf.gather(most_N, token_T), window_T, windows)
    return tf.math.unsorted_segment_min(found_T, token_T, tokens)


class Part(NamedTuple):
    """Some windows as an encoder takes them. `tokens` int32 [w, L]: where each stands among all contexts' tokens, -1
    what is none; `best` bool [w, L]: whether it counts in this window."""

    packed: Packed
    tokens: tf.Tensor
    best: tf.Tensor


def part(
    windows: Windows,
    some: tf.Tensor,
    questions: Rows,
    contexts: Rows,
    lengths: tuple[int, ...],
    special: dict[str, int],
) -> Part:
    """The windows of the numbers `some` [w], padded to one of `lengths`. `special`: cls_id, sep_id, pad_id."""
    rows, starts, held = (tf.gather(values, some) for values in (windows.rows, windows.starts, windows.lengths))
    kept = tf.gather(windows.kept, rows)
    length = packing.padded_length(tf.reduce_max(kept + held) + SPECIALS, lengths)
    position = tf.range(length)[None, :]
    end = kept[:, None] + 1  # of the question, which begins at 1
    last = end + 1 + held[:, None]
    inside = (position > end) & (position < last)
    tokens = tf.where(inside, starts[:, None] + position - end - 1, -1)

    values = tf.concat(
        [contexts.values, questions.values, [special["cls_id"], special["sep_id"], special["pad_id"]]], 0
    )
    first_question = tf.size(contexts.values)
    cls = first_question + tf.size(questions.values)  # [SEP] and [PAD] follow it
    question = first_question + tf.gather(questions.starts, rows)[:, None] + position - 1
    index = tf.where(position < end, question, tf.where(position > last, cls + 2, cls + 1))
    index = tf.where(inside, tokens, tf.where(position == 0, cls, index))
    packed = Packed(
        input_ids=tf.gather(values, index),
        input_mask=tf.cast(position <= last, tf.int32),
        segment_ids=tf.cast((position > end) & (position <= last), tf.int32),
        truncated=tf.gather(questions.lengths, rows) > kept,
    )
    counts = tf.gather(tf.concat([windows.best, [-1]], 0), tf.where(inside, tokens, tf.size(windows.best)))
    return Part(packed, tokens, counts == some[:, None])
