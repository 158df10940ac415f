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
    probabilities = scipy.special.softmax(logits, -1)
    return {
        "cross_entropy": cross_entropy(logits, labels),
        "calibration_error": calibration_error(probabilities, labels),
    }


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean, in nats."""
    return float(-scipy.special.log_softmax(logits, -1)[np.arange(len(labels)), labels].mean())


def calibration_error(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The mean distance between the probability of the answer and the share of right answers, in ten bins of
    probability, weighted by their rows."""
    sure, right = probabilities.max(-1), probabilities.argmax(-1) == labels
    bins = np.minimum((sure * BINS).astype(int), BINS - 1)
    counts, sums, rights = (np.bincount(bins, weights, BINS) for weights in (None, sure, right.astype(float)))
    return float(np.abs(sums - rights).sum() / max(counts.sum(), 1))
