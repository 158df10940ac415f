import math

import numpy as np
import pytest
import scipy.stats

from pipeline.features import judging
from preprocessing.errors import InputError


def blobs(count, seed=0):
    """Two labels, which the first number tells apart; the second is the same in all rows, the third nearly so."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 2, count)
    vectors = random.normal(0, 1, (count, 5))
    vectors[:, 0] += 6 * labels
    vectors[:, 1], vectors[:, 2] = 3.0, 1.0 + 1e-9 * random.normal(0, 1, count)
    return vectors.astype(np.float32), labels


def test_a_logistic_regression_learns_what_can_be_learned():
    found = judging.logistic(*blobs(200), *blobs(100, 1), seed=0)
    assert found.figures["accuracy"] > 0.97
    assert found.chosen_on > 0.97
    assert found.strength in judging.STRENGTHS
    assert found.converged
    assert found.confusion.sum() == 100
    assert judging.logistic(*blobs(200), *blobs(100, 1), seed=0).figures == found.figures


def test_a_label_that_train_does_not_have_is_an_error():
    names, train, test = judging.numbered(["b", "a", "b"], ["a", "c", None])
    assert (names, train.tolist(), test.tolist()) == (["a", "b"], [1, 0, 1], [0, 2, 2])
    vectors, labels = blobs(100)
    found = judging.logistic(vectors, labels, vectors, np.full(100, 2), seed=0)
    assert found.figures["accuracy"] == 0
    assert found.confusion[2].sum() == 100
    with pytest.raises(InputError, match=r"needs two labels. Received: a"):
        judging.numbered(["a", "a"], ["a"])


def test_numbers_that_are_the_same_everywhere_stay_small():
    vectors, _ = blobs(50)
    train, test = judging.scaled(vectors, vectors + 1e-3)
    assert np.isfinite(train).all()
    assert np.abs(test).max() < 10
    assert train[:, 0].std() == pytest.approx(1)
    assert not judging.scaled(np.ones((3, 2)), np.ones((1, 2)))[1].any()


def test_each_label_gives_its_share_and_the_seed_decides_which_rows():
    labels = np.array([0] * 40 + [1] * 8 + [2] * 3)
    rest, out = judging.parted(labels, 4, seed=1)
    assert sorted([*rest, *out]) == list(range(51))
    assert np.bincount(labels[out]).tolist() == [10, 2]
    assert np.array_equal(judging.parted(labels, 4, seed=1)[1], out)
    assert not np.array_equal(judging.parted(labels, 4, seed=2)[1], out)


def test_too_few_rows_to_choose():
    vectors, labels = np.eye(4, dtype=np.float32), np.array([0, 1, 0, 1])
    found = judging.logistic(vectors, labels, vectors, labels, seed=0)
    assert math.isnan(found.chosen_on)
    assert found.strength == judging.STRENGTHS[4]


def test_agreement():
    scores, gold = np.random.default_rng(0).normal(0, 1, (2, 30))
    found = judging.agreement(scores, gold)
    assert found["pearson"] == pytest.approx(np.corrcoef(scores, gold)[0, 1])
    assert found["spearman"] == pytest.approx(scipy.stats.spearmanr(scores, gold)[0])
    for nothing in (judging.agreement(scores, np.ones(30)), judging.agreement(scores[:1], gold[:1])):
        assert all(map(math.isnan, nothing.values()))
