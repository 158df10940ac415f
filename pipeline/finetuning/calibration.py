"""A temperature for a classifier's logits, so that its probabilities say how often it is right (Guo et al. 2017).

Shapes: N rows, C labels.
"""

import math

import numpy as np
import scipy.optimize
import scipy.special

LEAST, MOST = 0.05, 20.0
BINS = 10


def temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """By which the logits [N, C] are divided for the least cross entropy of the labels [N]; 1 without any."""
    if not len(labels):
        return 1.0
    found = scipy.optimize.minimize_scalar(
        lambda log: cross_entropy(logits / math.exp(log), labels),
        bounds=(math.log(LEAST), math.log(MOST)),
        method="bounded",
    )
    return float(math.exp(found.x))


def figures(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """How far the probabilities that the logits give can be believed."""
    return {
        "cross_entropy": cross_entropy(logits, labels),
        "calibration_error": calibration_error(*sureness(logits, labels)),
    }


def sureness(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(the probability of the likeliest label [N], whether that is right [N])"""
    probabilities = scipy.special.softmax(logits, -1)
    return probabilities.max(-1), probabilities.argmax(-1) == labels


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean, in nats."""
    return float(-scipy.special.log_softmax(logits, -1)[np.arange(len(labels)), labels].mean())


def calibration_error(sure: np.ndarray, right: np.ndarray) -> float:
    """The mean distance between the probability of an answer [N] and the share of right answers, in ten bins of
    probability, weighted by their rows."""
    counts, sums, rights = bins(sure, right)
    return float(np.abs(sums - rights).sum() / max(counts.sum(), 1))


def bins(sure: np.ndarray, right: np.ndarray) -> np.ndarray:
    """[3, BINS]: rows, the sum of their probabilities and the number that are right, by probability."""
    number = np.minimum((sure * BINS).astype(int), BINS - 1)
    return np.stack([np.bincount(number, weights, BINS) for weights in (None, sure, right.astype(float))])
