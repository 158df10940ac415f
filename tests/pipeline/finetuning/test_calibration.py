import numpy as np
import pytest
import scipy.special
import sklearn.metrics

from pipeline.finetuning import calibration


@pytest.mark.parametrize("by", [0.5, 1.0, 3.0])
def test_the_temperature_by_which_logits_are_too_large_is_found(by):
    random = np.random.default_rng(0)
    logits = random.normal(0, 2, (20_000, 4))
    labels = np.array([random.choice(4, p=shares) for shares in scipy.special.softmax(logits, -1)])
    found = calibration.temperature(logits * by, labels)
    assert found == pytest.approx(by, rel=0.05)
    before, after = (
        calibration.calibration_error(*calibration.sureness(logits * by / t, labels)) for t in (1.0, found)
    )
    assert after < 0.015
    assert after <= before
    assert calibration.cross_entropy(logits, labels) < calibration.cross_entropy(logits * 3, labels)


def test_without_rows_and_without_errors():
    assert calibration.temperature(np.zeros((0, 2)), np.zeros(0, int)) == 1.0
    sure = calibration.temperature(np.array([[5.0, 0.0]]), np.array([0]))
    assert calibration.LEAST <= sure < 0.2


def test_thresholds_have_the_best_f1():
    random = np.random.default_rng(0)
    there = random.random((400, 5)) < [0.5, 0.1, 0.02, 0.3, 0.0]
    probabilities = np.clip(random.random((400, 5)) * 0.6 + there * 0.3, 0, 1).round(2)  # many alike
    found = calibration.thresholds(probabilities, there)
    assert found[4] == 0.5

    def f1(thresholds):
        return sklearn.metrics.f1_score(there, probabilities >= thresholds, average=None, zero_division=0)

    best = np.max([f1(np.full(5, threshold)) for threshold in np.arange(-0.005, 1, 0.01)], 0)
    np.testing.assert_allclose(f1(found), best)


def test_the_nearest_to_a_half_of_thresholds_alike():
    found = calibration.thresholds(np.array([[0.9], [0.2]]), np.array([[True], [False]]))
    assert found[0] == pytest.approx(0.55)


@pytest.mark.parametrize("by", [0.5, 3.0])
def test_the_temperature_of_several_labels(by):
    random = np.random.default_rng(0)
    logits = random.normal(0, 2, (20_000, 3))
    there = random.random(logits.shape) < scipy.special.expit(logits)
    assert calibration.temperature_of_labels(logits * by, there) == pytest.approx(by, rel=0.05)
    probabilities = scipy.special.expit(logits)
    np.testing.assert_allclose(calibration.logits(probabilities), logits, atol=1e-6)
