"""Expected values are worked out by hand from the official evaluation's rules."""

import numpy as np
import pytest

from model.tasks import answer_scores
from model.tasks.answer_scores import score


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The  Cat's-paw, a THE!", "catspaw"),
        ("an apple and a theory", "apple and theory"),
        ("U.S.A.", "usa"),
        ("“Zoë”—the one", "“zoë”— one"),  # only ASCII's punctuation goes; the article is a word of its own there
        (" \n", ""),
    ],
)
def test_normalised(text, expected):
    assert answer_scores.normalised(text) == expected


@pytest.mark.parametrize(
    ("answer", "gold", "exact", "f1"),
    [
        ("Denver Broncos", ["the Denver Broncos!"], 1, 1),
        ("Broncos", ["Denver Broncos"], 0, 2 / 3),  # precision 1, recall 1/2
        ("the the big red dog", ["a red dog", "dog"], 0, 0.8),  # precision 2/3, recall 1
        ("red red dog", ["red dog dog"], 0, 2 / 3),  # two words in common, each counted as often as in both
        ("cat", ["dog"], 0, 0),
        ("", ["dog"], 0, 0),
    ],
)
def test_alike_by_both_rules(answer, gold, exact, f1):
    for may_be_none in (False, True):
        assert score(answer, gold, may_be_none) == pytest.approx((exact, f1))


@pytest.mark.parametrize(
    ("answer", "gold", "first", "second"),
    [
        ("", [], (0, 0), (1, 1)),
        ("dog", [], (0, 0), (0, 0)),
        ("the", [], (0, 0), (1, 1)),  # it is nothing when it is normalised
        ("", ["the", "dog"], (1, 0), (0, 0)),  # 2.0 leaves out golds of which nothing stays
        ("an", ["the"], (1, 0), (1, 1)),
    ],
)
def test_where_the_rules_differ(answer, gold, first, second):
    assert score(answer, gold, False) == first
    assert score(answer, gold, True) == second


def by_hand(limit, no_answer, answered, silent):
    return np.mean([yes if value <= limit else no for value, yes, no in zip(no_answer, answered, silent, strict=True)])


@pytest.mark.parametrize("seed", range(20))
def test_no_threshold_is_better_than_the_chosen_one(seed):
    random = np.random.default_rng(seed)
    no_answer = np.round(random.normal(size=30), random.integers(0, 3))
    answered, silent = random.random(30), random.integers(0, 2, 30)
    chosen = answer_scores.threshold(no_answer, answered, silent)
    others = [by_hand(limit, no_answer, answered, silent) for limit in np.arange(-5, 5, 0.005)]
    assert by_hand(chosen, no_answer, answered, silent) == pytest.approx(max(others))


def test_of_equally_good_thresholds_the_one_nearest_to_none():
    assert answer_scores.threshold([-3.0, 1.0, 4.0], [1, 1, 0], [0, 0, 1]) == 2.5
    assert answer_scores.threshold([-3.0, 4.0], [1, 1], [1, 1]) == 0.5
    assert answer_scores.threshold([2.0], [1], [0]) == 3.0
    assert answer_scores.threshold([2.0], [0], [1]) == 1.0
