import numpy as np
import pytest
import scipy.special

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
