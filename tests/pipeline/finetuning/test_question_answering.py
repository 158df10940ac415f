"""Figures of served answers; expected values are worked out by hand."""

import json

import numpy as np
import pytest

from pipeline.finetuning.kinds.question_answering import QUESTION_ANSWERING
from preprocessing.errors import InputError
from preprocessing.tasks.squad import Answer, Question
from preprocessing.tasks.tables import Columns

CONTEXT = "Ada wrote notes"


def question(*gold, name="a"):
    return Question("q.json", 1, name, "Who?", CONTEXT, tuple(Answer(text, 0) for text in gold))


def answer(best, no_answer, said=None, score=0.5):
    start = CONTEXT.find(best)
    return {
        "answer": np.array((best if said is None else said).encode(), object)[()],
        "answers": np.array([best.encode(), b""], object),
        "char_starts": np.array([start, 0]),
        "char_ends": np.array([start + len(best), 0]),
        "scores": np.array([score, 0.0]),
        "no_answer": np.float32(no_answer),
        "truncated": np.bool_(False),
    }


def judged(*pairs):
    judge = QUESTION_ANSWERING.judge()
    return judge, [judge.add(*pair) for pair in pairs]


def test_figures_of_the_first_version():
    judge, verdicts = judged(
        (question("Ada", "Ada wrote"), answer("Ada", -1)), (question("wrote notes"), answer("notes", 5, score=0.6))
    )
    assert judge.figures() == pytest.approx({"f1": (1 + 2 / 3) / 2, "exact_match": 0.5, "never_an_answer": 0})
    assert judge.details() == {}
    assert [verdict.cost for verdict in verdicts] == [None, pytest.approx(1 / 3 * 0.6)]
    assert (verdicts[1].gold, verdicts[1].answer, verdicts[1].more["span"]) == (["wrote notes"], "notes", [10, 15])
    assert verdicts[1].text == "Who? ||| Ada wrote notes"


def test_figures_of_the_second_version():
    """As served, by a threshold above 0, and at 0."""
    judge, verdicts = judged(
        (question("Ada"), answer("Ada", 0.5)),  # silent at 0
        (question(), answer("notes", 0.5)),  # wrongly answered, not at 0
        (question(), answer("notes", 3, said="")),
        (question("wrote notes"), answer("notes", -1)),
    )
    assert judge.figures() == pytest.approx({"f1": (1 + 0 + 1 + 2 / 3) / 4, "exact_match": 0.5, "never_an_answer": 0.5})
    assert judge.details() == pytest.approx(
        {
            "has_answer_f1": (1 + 2 / 3) / 2,
            "has_answer_exact_match": 0.5,
            "no_answer_f1": 0.5,
            "no_answer_exact_match": 0.5,
            "at_0_f1": (0 + 1 + 1 + 2 / 3) / 4,
            "at_0_exact_match": 0.5,
        }
    )
    assert [verdict.cost is None for verdict in verdicts] == [True, False, True, False]
    assert verdicts[2].more["span"] is None
    assert list(judge.notes()) == []


def test_a_model_that_never_answers_is_an_alarm():
    judge, _ = judged((question("Ada"), answer("Ada", 0.5, said="")), (question(), answer("Ada", 0.5, said="")))
    (note,) = judge.notes()
    assert note.startswith("ALARM: the model answers no question")


def test_the_threshold_is_chosen_where_there_are_questions_without_an_answer():
    class Prepared:
        class train:
            impossible = 1

    settings = QUESTION_ANSWERING.settings(Prepared, None, _options())
    assert settings.no_answer_threshold == 0
    found = QUESTION_ANSWERING.calibrated(
        settings,
        [(question("Ada"), answer("Ada", 1.0)), (question(), answer("Ada", 2.0)), (question("Ada"), answer("Ada", -1))],
    )
    assert found.settings.no_answer_threshold == found.chosen["no_answer_threshold"] == 1.5
    assert (found.before, found.after) == (
        pytest.approx({"f1": 2 / 3, "exact": 2 / 3}),
        pytest.approx({"f1": 1, "exact": 1}),
    )
    Prepared.train.impossible = 0
    always = QUESTION_ANSWERING.settings(Prepared, None, _options())
    assert QUESTION_ANSWERING.calibrated(always, iter([])).settings == always
    assert always.no_answer_threshold is None


def _options():
    from pipeline.finetuning.planning import Options

    return Options.of(QUESTION_ANSWERING)


def test_columns_are_for_tables(tmp_path):
    path = tmp_path / "q.jsonl"
    path.write_text(json.dumps({"question": "Who?", "context": CONTEXT}) + "\n")
    with pytest.raises(InputError, match=r"questions have no columns to choose; leave --label out\. Received: 'x'"):
        QUESTION_ANSWERING.source(str(path), Columns(label="x"))
    (row,) = QUESTION_ANSWERING.source(str(path), Columns(labelled=False)).rows(lambda line, reason: None)
    assert QUESTION_ANSWERING.said(row, answer("Ada", -1)) == {
        "answer": "Ada",
        "span": [0, 3],
        "score": 0.5,
        "no_answer": -1.0,
        "truncated": False,
    }


def test_a_question_on_the_command_line_comes_before_its_context():
    from pipeline.commands import predict

    inputs = predict._inputs("answer", ["context", "question"], ("Who?", CONTEXT, "What?", CONTEXT))
    assert inputs == {"question": ("Who?", "What?"), "context": (CONTEXT, CONTEXT)}
    rows = [answer("Ada", -1, score=0.75), answer("notes", 2, said="")]
    lines = list(predict._table(inputs, {name: np.array([row[name] for row in rows]) for name in rows[0]}))
    assert lines[0] == "Who?  Ada"
    assert lines[1].startswith("  Ada  75.00%  █")
    assert lines[2] == "What?  (no answer)"
    assert lines[3].startswith("  notes  50.00%  █")
