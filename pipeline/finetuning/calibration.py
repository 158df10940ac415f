"""A temperature for a classifier's logits, so that its probabilities say how often it is right (Guo et al. 2017).

Shapes: N rows, C labels.
"""

import math
from collections.abc import Callable

import numpy as np
import scipy.optimize
import scipy.special

LEAST, MOST = 0.05, 20.0
BINS = 10
TINY = 1e-7  # nearer to 0 or 1 a float32 probability says nothing


def temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """By which the logits [N, C] are divided for the least cross entropy of the labels [N]; 1 without any."""
    return _best(lambda by: cross_entropy(logits / by, labels)) if len(labels) else 1.0


def temperature_of_labels(logits: np.ndarray, there: np.ndarray) -> float:
    """The same where each of the labels may be there or not, bool [N, C]."""
    return _best(lambda by: cross_entropy_of_labels(sigmoid(logits / by), there)) if len(there) else 1.0


def _best(loss: Callable[[float], float]) -> float:
    found = scipy.optimize.minimize_scalar(
        lambda log: loss(math.exp(log)), bounds=(math.log(LEAST), math.log(MOST)), method="bounded"
    )
    return float(math.exp(found.x))


def thresholds(probabilities: np.ndarray, there: np.ndarray) -> np.ndarray:
    """[C], from which probability each label is best said: with the greatest F1 on these rows [N, C]; where several
    are alike, the nearest to 0.5, which it also is for a label that is not there."""
    chosen = np.full(there.shape[1], 0.5)
    for label in np.flatnonzero(there.any(0)):
        order = np.argsort(-probabilities[:, label], kind="stable")
        shares, hits = probabilities[order, label], np.cumsum(there[order, label])
        f1 = 2 * hits / (np.arange(1, len(order) + 1) + hits[-1])
        between = (shares + np.append(shares[1:], 0.0)) / 2
        f1[shares == np.append(shares[1:], -1.0)] = 0  # rows alike cannot be told apart
        best = np.flatnonzero(f1 == f1.max())
        chosen[label] = between[best[np.abs(between[best] - 0.5).argmin()]]
    return chosen


def logits(probabilities: np.ndarray) -> np.ndarray:
    """Whose sigmoid they are; float64."""
    shares = np.clip(probabilities.astype(float), TINY, 1 - TINY)
    return np.log(shares) - np.log1p(-shares)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    return scipy.special.expit(logits)


def cross_entropy_of_labels(probabilities: np.ndarray, there: np.ndarray) -> float:
    """Mean over rows and labels, in nats."""
    shares = np.clip(probabilities.astype(float), TINY, 1 - TINY)
    return float(-np.where(there, np.log(shares), np.log1p(-shares)).mean())


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
