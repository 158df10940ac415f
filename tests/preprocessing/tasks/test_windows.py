import itertools

import numpy as np
import pytest
import tensorflow as tf

from model.settings import QuestionAnsweringSettings
from preprocessing.errors import InputError
from preprocessing.features import INPUT_IDS, INPUT_MASK, SEGMENT_IDS
from preprocessing.tasks import windows
from preprocessing.tasks.windows import WindowRules

RULES = [WindowRules(16, 4, 5), WindowRules(16, 100, 12), WindowRules(9, 1, 5), WindowRules(12, 7, 3), WindowRules()]
SPECIAL = (2, 3, 0)  # [CLS], [SEP], [PAD]


def google(question, context, rules):
    """run_squad.py's own loop: (start, length) of each part, and the tokens that are kept of the question."""
    question = min(question, rules.max_question)
    capacity = rules.max_seq_length - question - 3
    spans, start = [], 0
    while start < context:
        length = min(context - start, capacity)
        spans.append((start, length))
        if start + length == context:
            break
        start += min(length, rules.stride)
    return spans or [(0, 0)], question


def texts(seed, most):
    random = np.random.default_rng(seed)
    return [random.integers(5, 90, random.integers(0, most)).tolist() for _ in range(40)]


def flat(lists):
    lengths = np.array([len(one) for one in lists])
    return np.array([number for one in lists for number in one], np.int64), np.cumsum(lengths) - lengths, lengths


@pytest.mark.parametrize("rules", RULES, ids=str)
def test_windows_are_googles_and_every_token_is_in_one(rules):
    lengths = np.array(list(itertools.product(range(0, 80, 3), [*range(40), 500, 1000])))
    found = windows.cut(*lengths.T, rules)
    for row, (question, context) in enumerate(lengths.tolist()):
        mine = found.rows == row
        spans, kept = google(question, context, rules)
        assert list(zip(found.starts[mine], found.lengths[mine], strict=True)) == spans
        assert found.kept[row] == kept
        assert {place for start, length in spans for place in range(start, start + length)} == set(range(context))


@pytest.mark.parametrize("rules", RULES[:4], ids=str)
def test_what_stands_in_a_window(rules):
    questions, contexts = texts(0, 14), texts(1, 60)
    found = windows.cut(flat(questions)[2], flat(contexts)[2], rules)
    arrays = windows.pack(found, flat(questions)[:2], flat(contexts)[:2], rules.max_seq_length, SPECIAL)
    for row, start, length, *values in zip(
        found.rows, found.starts, found.lengths, *(arrays[name] for name in (INPUT_IDS, INPUT_MASK, SEGMENT_IDS)),
        strict=True,
    ):  # fmt: skip
        first = [2, *questions[row][: rules.max_question], 3]
        second = [*contexts[row][start : start + length], 3]
        rest = [0] * (rules.max_seq_length - len(first) - len(second))
        assert values[0].tolist() == first + second + rest
        assert values[1].tolist() == [1] * len(first + second) + rest
        assert values[2].tolist() == [0] * len(first) + [1] * len(second) + rest


@pytest.mark.parametrize("rules", RULES[:4], ids=str)
def test_a_served_model_makes_the_same(rules):
    from serving.signatures import packing
    from serving.signatures import windows as served

    questions, contexts = texts(2, 14), texts(3, 60)
    found = windows.cut(flat(questions)[2], flat(contexts)[2], rules)
    length = rules.max_seq_length
    arrays = windows.pack(found, flat(questions)[:2], flat(contexts)[:2], length, SPECIAL)
    asked, given = (
        packing.Rows(*(tf.constant(values, tf.int32) for values in flat(lists))) for lists in (questions, contexts)
    )
    task = QuestionAnsweringSettings(max_seq_length=length, stride=rules.stride, max_question=rules.max_question)
    cut = served.cut(asked, given, length, task)
    special = dict(zip(("cls_id", "sep_id", "pad_id"), SPECIAL, strict=True))
    part = served.part(cut, tf.range(len(found.rows)), asked, given, (length,), special)
    for name, values in part.packed.features.items():
        np.testing.assert_array_equal(values, arrays[name], name)
    np.testing.assert_array_equal(part.packed.truncated, (flat(questions)[2] > rules.max_question)[found.rows])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((67, 1, 64), "max_seq_length must hold a question and a token: at least 68. Received: 67"),
        ((384, 0, 64), "stride must be positive"),
        ((384, 1, 0), "max_question must be positive"),
    ],
)
def test_rules_that_leave_no_room(values, message):
    with pytest.raises(InputError, match=message):
        WindowRules(*values)
