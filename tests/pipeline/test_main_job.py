"""What the main job asks at its end, and what it shows beside the answers."""

import subprocess

import numpy as np
import pytest

from pipeline import main_job
from pipeline.runs import process
from preprocessing.errors import InputError
from serving.client import Candidate


class Asked:
    """A client whose model always says the same."""

    def fill_mask(self, texts):
        return [[[Candidate(f"t{number}", 0.5, "") for number in range(10)]] for _ in texts]

    def next_sentence(self, first, second):
        return [0.75]

    def embed(self, texts):
        return np.zeros((1, 8))


@pytest.mark.parametrize("without", [{}, {"tokens": [["the", 0.0625], [",", 0.03125]], "follows": 0.625}])
def test_answers_stand_beside_those_of_no_model(capsys, without):
    metrics = {"next_sentence_accuracy": 0.6, "next_sentence_baseline": 0.58}
    main_job.ask(Asked(), {"without_a_model": without, "metrics": metrics})
    printed = capsys.readouterr().out
    assert all(text in printed for text in main_job.MASKED)
    assert printed.count("t0 0.500  t1 0.500") == len(main_job.MASKED)
    assert "with probability 0.750" in printed
    assert ("without a model   the 0.062  , 0.031" in printed) == bool(without)
    assert ("without a model   0.625" in printed) == bool(without)
    assert ("of held-out pairs it tells 0.600 rightly, without a model 0.580" in printed) == bool(without)


def test_each_question_has_one_mask():
    assert all(text.count("[MASK]") == 1 for text in main_job.MASKED)


@pytest.mark.parametrize("status", [process.REFUSED, process.BAD_INPUT, process.BUSY, -9])
def test_what_is_not_pushed_is_not_what_went_wrong(monkeypatch, status):
    ended = subprocess.CompletedProcess([], status)
    monkeypatch.setattr(main_job.subprocess, "run", lambda *command, **options: ended)
    with pytest.raises(InputError, match="above") as caught:
        main_job.tfx(["run", "create"])
    assert isinstance(caught.value, process.Refused) == (status == process.REFUSED)
    assert (str(status) in str(caught.value)) == (status != process.REFUSED)
