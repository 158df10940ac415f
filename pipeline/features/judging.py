"""How much vectors tell: logistic regression on top of them, and the agreement of similarities with a score.

Shapes: N rows, D numbers of a vector.
"""

import dataclasses
import math
import warnings
from collections.abc import Sequence

import numpy as np
import scipy.stats
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from model.tasks import classification
from preprocessing.errors import InputError

# Inverse strengths of the regularisation (scikit-learn's C), of which one is chosen; the middle one without a choice.
STRENGTHS = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
# Some numbers are the same in all vectors: none is divided by less than this share of the mean standard deviation.
FLOOR = 0.01
CHOSEN_ON, TESTED_ON = 5, 4  # one row in so many, of each label, chooses C; tests, where there are no other rows
ITERATIONS = 1000


@dataclasses.dataclass(frozen=True)
class Judged:
    """Attributes:
    strength: the C chosen.
    chosen_on: the accuracy on the rows of train that chose it; nan without any.
    confusion: of the test rows, as `classification.scores` takes it.
    figures: accuracy, macro F1, Matthews' coefficient, accuracy of the commonest label.
    converged: whether the regression came to its end.
    """

    strength: float
    chosen_on: float
    confusion: np.ndarray
    figures: dict[str, float]
    converged: bool


def numbered(train: Sequence[str], test: Sequence[str | None]) -> tuple[list[str], np.ndarray, np.ndarray]:
    """(labels of train, sorted; their numbers [N] in train and in test, where others have the number after the last).
    Raises InputError where train has only one."""
    labels = sorted(set(train))
    if len(labels) < 2:
        raise InputError(f"a logistic regression needs two labels. Received: {', '.join(labels) or 'none'}")
    numbers = {label: number for number, label in enumerate(labels)}
    others = [len(labels) if label is None else numbers.get(label, len(labels)) for label in test]
    return labels, np.array([numbers[label] for label in train]), np.array(others)


def parted(labels: np.ndarray, share: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Places of [N], and of those that are taken out by chance: one in `share` of each label, rounded down."""
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    taken = [of[: len(of) // share] for of in (shuffled[labels[shuffled] == label] for label in np.unique(labels))]
    out = np.sort(np.concatenate(taken))
    return np.setdiff1d(np.arange(len(labels)), out), out


def logistic(
    train: np.ndarray, train_labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray, seed: int
) -> Judged:
    """Trained on [N, D] with numbers of labels [N], C chosen on a part of them; judged on the test rows."""
    count = int(train_labels.max()) + 1
    train, test = scaled(train, test)
    rest, chooses = parted(train_labels, CHOSEN_ON, seed)
    strength, chosen_on = STRENGTHS[len(STRENGTHS) // 2], math.nan
    if len(chooses):
        # From the strongest regularisation on, each begins where the one before ended.
        model, accuracies = LogisticRegression(max_iter=ITERATIONS, warm_start=True), []
        for C in STRENGTHS:
            _fit(model.set_params(C=C), train[rest], train_labels[rest])
            accuracies.append(model.score(train[chooses], train_labels[chooses]))
        best = int(np.argmax(accuracies))  # of equals, the strongest regularisation
        strength, chosen_on = STRENGTHS[best], accuracies[best]
    model = _fit(LogisticRegression(C=strength, max_iter=ITERATIONS), train, train_labels)
    confusion = np.zeros((count + 1, count))
    np.add.at(confusion, (test_labels, model.predict(test)), 1)
    converged = bool((model.n_iter_ < ITERATIONS).all())
    return Judged(strength, float(chosen_on), confusion, classification.scores(confusion), converged)


def _fit(model: LogisticRegression, vectors: np.ndarray, labels: np.ndarray) -> LogisticRegression:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # `Judged.converged` tells
        return model.fit(vectors, labels)


def scaled(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both [N, D], each number less its mean and over its standard deviation in train, or the FLOOR."""
    train, test = train.astype(float), test.astype(float)
    deviation = train.std(0)
    deviation = np.maximum(deviation, FLOOR * deviation.mean())
    deviation[deviation == 0] = 1  # all vectors are one and the same
    mean = train.mean(0)
    return (train - mean) / deviation, (test - mean) / deviation


def agreement(scores: np.ndarray, gold: np.ndarray) -> dict[str, float]:
    """Pearson's and Spearman's correlation of [N] with [N]; nan where either is the same in all rows."""
    if len(gold) < 2 or min(np.ptp(scores), np.ptp(gold)) == 0:
        return {"pearson": math.nan, "spearman": math.nan}
    pearson, spearman = scipy.stats.pearsonr(scores, gold), scipy.stats.spearmanr(scores, gold)
    return {"pearson": float(pearson.statistic), "spearman": float(spearman.statistic)}
