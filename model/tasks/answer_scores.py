"""How good answers are, as SQuAD's official evaluation has it (Rajpurkar et al. 2016 and 2018), and from which score on
no answer is better than one."""

import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


class Score(NamedTuple):
    exact: float
    f1: float


def normalised(text: str) -> str:
    """Lower case, without ASCII punctuation, articles and superfluous blanks, in this order."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def score(answer: str, gold: Sequence[str], may_be_none: bool) -> Score:
    """The best over the gold answers, each from 0 to 1: whether they are equal, and F1 of their words.

    Args:
        answer: the empty one says that there is none.
        gold: empty where there is none.
        may_be_none: SQuAD 2.0's rules; else those of 1.1, where nothing but a common word has any F1.
    """
    said, right = normalised(answer), [normalised(text) for text in gold]
    if may_be_none:
        right = [text for text in right if text] or [""]
    exact = max((float(said == text) for text in right), default=0.0)
    return Score(exact, max((_f1(said.split(), text.split(), may_be_none) for text in right), default=0.0))


def _f1(said: list[str], gold: list[str], may_be_none: bool) -> float:
    if may_be_none and not (said and gold):
        return float(said == gold)
    common = sum((Counter(said) & Counter(gold)).values())
    return 2 * common / (len(said) + len(gold)) if common else 0.0


def threshold(no_answer: Sequence[float], answered: Sequence[float], silent: Sequence[float]) -> float:
    """That by which the mean score is best, if what scores higher as no answer is not answered; of equally good ones
    the one nearest to 0.

    Args:
        no_answer: of each question, by how much no answer scores better than the best one.
        answered, silent: how good the best answer, and none, would be.
    """
    order = np.argsort(no_answer, kind="stable")
    scores, gains = (
        np.asarray(no_answer, float)[order],
        (np.asarray(answered, float) - np.asarray(silent, float))[order],
    )
    # Between two neighbours, and beyond the ends; where neighbours are alike there is nothing between them.
    ends = np.concatenate([[scores[0] - 2], scores, [scores[-1] + 2]])
    between = (ends[1:] + ends[:-1]) / 2
    gained = np.concatenate([[0.0], np.cumsum(gains)])
    gained[1:-1][scores[1:] == scores[:-1]] = -np.inf
    best = np.flatnonzero(gained >= gained.max() - 1e-9)
    return float(between[best[np.abs(between[best]).argmin()]])
