"""What is left of a model's answers for people."""

import json
import tracemalloc

import numpy as np
import pytest

from pipeline.finetuning import judging
from pipeline.finetuning.kinds.classification import CLASSIFICATION
from pipeline.finetuning.kinds.multi_label import MULTI_LABEL
from preprocessing.tasks.tables import Row
from tests.pipeline.finetuning.answers import classified

LABELS = ("dry", "wet")


def row(line, label="wet"):
    return Row("dev.tsv", line, f"a\ttext {line}", None, label)


def test_wrong_answers_stand_by_their_cost_and_answers_in_order(tmp_path):
    shares = {1: 0.6, 2: 0.9, 3: 0.75, 4: 0.9}
    answered = [(row(line), classified("dry", LABELS, share)) for line, share in shares.items()]
    answered.append((row(5), classified("wet", LABELS)))
    judge, rows = judging.judged(CLASSIFICATION, answered, tmp_path)
    assert (rows, judge.figures()["accuracy"]) == (5, 0.2)
    head, *errors = (tmp_path / "errors.tsv").read_text().splitlines()
    assert head == "file\tline\tgold\tanswer\tcost\ttext"
    assert [error.split("\t")[1] for error in errors] == ["2", "4", "3", "1"]
    assert errors[0] == "dev.tsv\t2\twet\tdry\t2.3026\ta text 2"
    lines = (tmp_path / "predictions.jsonl").read_text().splitlines()
    assert [json.loads(line)["line"] for line in lines] == [1, 2, 3, 4, 5]
    assert {path.name for path in tmp_path.iterdir()} == {"errors.tsv", "predictions.jsonl", "confusion.png"}


def test_what_chosen_thresholds_are_worth():
    judge = MULTI_LABEL.judge()
    for line, shares in ((1, (0.9, 0.3)), (2, (0.6, 0.2))):  # "wet" from 0.25 on is right once, from 0.5 on never
        said = [b"dry", *([b"wet"] if shares[1] > 0.25 else []), b""]
        answer = {"names": np.array([b"dry", b"wet"]), "labels": np.array(said), "probabilities": np.array(shares)}
        judge.add(Row("dev.tsv", line, "a", None, None, labels=("dry", "wet")[: 3 - line]), answer)
    assert judge.figures()["macro_f1"] == 1
    assert judge.details()["macro_f1_at_half"] == 0.5
    assert next(judge.lines()) == "macro F1, were every threshold 0.5: 0.5000"


def test_memory_does_not_grow_with_the_rows(tmp_path):
    """But by the cost and the place of each mistake, here all rows: a row is some 500 bytes, its answer as many."""

    def most(rows):
        tracemalloc.start()
        answered = ((row(line), classified("dry", LABELS)) for line in range(1, rows + 1))
        judging.judged(CLASSIFICATION, answered, tmp_path)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    most(10)  # what is imported
    assert most(12_000) - most(4000) < 8000 * 200


def test_answers_are_written_as_they_come(tmp_path):
    """None of them is held; what breaks off leaves nothing half written."""
    sizes = []

    def answered():
        for line in range(1, 3001):
            yield row(line), classified("dry", LABELS)
            if line % 1000 == 0:
                (scratch,) = tmp_path.glob(".predictions*")
                sizes.append(scratch.stat().st_size)
        raise OSError("the server has gone")

    with pytest.raises(OSError, match="the server has gone"):
        judging.judged(CLASSIFICATION, answered(), tmp_path)
    assert sizes[0] > 0
    assert sizes == sorted(set(sizes))
    assert list(tmp_path.iterdir()) == []
