"""A model that has learned nothing is told as such, whatever it is for."""

import numpy as np
import pytest

from pipeline.finetuning.kinds.multi_label import MULTI_LABEL
from pipeline.finetuning.kinds.regression import REGRESSION
from preprocessing.tasks.tables import Row


def notes(kind, rows, answers):
    judge = kind.judge()
    for row, answer in zip(rows, answers, strict=True):
        judge.add(row, answer)
    return list(judge.notes())


def labelled(*labels):
    names = np.array([b"dry", b"wet"], object)
    return {"names": names, "labels": np.array([*labels, b""], object), "probabilities": np.array([0.5, 0.5])}


@pytest.mark.parametrize(("said", "told"), [((), "no label"), ((b"wet",), "wet"), ((b"dry", b"wet"), "dry, wet")])
def test_the_same_labels_of_every_row(said, told):
    rows = [Row("a.tsv", line, "a", None, None, labels=labels) for line, labels in ((1, ("wet",)), (2, ("dry",)))]
    (note,) = notes(MULTI_LABEL, rows, [labelled(*said)] * 2)
    assert note.startswith(f"ALARM: the model says {told} of every row")
    assert not notes(MULTI_LABEL, rows, [labelled(*said), labelled() if said else labelled(b"wet")])
    assert not notes(MULTI_LABEL, rows[:1] * 2, [labelled(*said)] * 2)  # there is nothing to learn


def test_about_the_same_number_of_every_row():
    rows = [Row("a.tsv", line, "a", None, str(line)) for line in range(1, 5)]
    for spread in (0, 1e-3):
        answers = [{"score": np.float32(2.5 + spread * line), "truncated": False} for line in range(4)]
        (note,) = notes(REGRESSION, rows, answers)
        assert note.startswith("ALARM: the model says about 2.5 of every row")
    assert not notes(REGRESSION, rows, [{"score": np.float32(line), "truncated": False} for line in range(4)])
    assert not notes(REGRESSION, [], [])
