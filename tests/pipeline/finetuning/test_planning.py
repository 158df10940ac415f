"""What a fine-tuning does where nobody says it."""

import types

import pytest

from model.settings import EncoderSettings
from pipeline.finetuning import planning
from pipeline.finetuning.kinds.classification import CLASSIFICATION
from pipeline.finetuning.kinds.regression import REGRESSION
from pipeline.finetuning.planning import Options, Plan, Start
from preprocessing.tasks.examples import Prepared, TableSplit

SOURCE = types.SimpleNamespace(pair=False)


def plan(kind, rows, classes, hidden=32, **options) -> Plan:
    encoder = EncoderSettings(100, hidden, 1, 2, 2 * hidden, max_positions=128)
    start = Start("checkpoint", encoder, (), None, None, None)
    split = TableSplit("file", "told", rows=rows, tokens=10 * rows)
    prepared = Prepared([str(label) for label in range(classes)], split, split, 0, [])
    return Plan.of(kind, start, prepared, SOURCE, Options.of(kind, **options))


@pytest.mark.parametrize(
    ("kind", "rows", "classes", "steps"),
    [
        (CLASSIFICATION, 64_000, 2, 6000),  # three epochs
        (CLASSIFICATION, 6400, 2, 1000),
        (CLASSIFICATION, 320, 2, 200),  # twenty epochs
        (CLASSIFICATION, 9000, 77, 1925),
        (REGRESSION, 6400, 1, 1000),
    ],
)
def test_few_rows_are_seen_more_often_and_those_of_many_classes_too(kind, rows, classes, steps):
    assert plan(kind, rows, classes).training.steps == pytest.approx(steps, abs=1)


def test_what_is_said_is_done():
    made = plan(CLASSIFICATION, 9000, 77, epochs=1.0, learning_rate=1e-5, head_rate=10.0)
    assert (made.training.steps, made.training.learning_rate, made.training.head_rate) == (282, 1e-5, 10.0)


@pytest.mark.parametrize(("hidden", "rate"), [(768, 3e-5), (384, 1e-4), (32, 3e-4)])
def test_the_learning_rate_is_that_of_the_models_size(hidden, rate):
    assert plan(CLASSIFICATION, 100, 2, hidden).training.learning_rate == rate


def test_the_time_told_is_that_of_the_precision_in_which_it_trains(monkeypatch):
    asked = []
    monkeypatch.setattr(planning, "_speed", lambda encoder, precision: asked.append(precision) or 1e9)
    made = [plan(CLASSIFICATION, 100, 2, precision=precision) for precision in ("float32", "bfloat16")]
    assert made[0].seconds() == made[1].seconds() > 0
    assert asked == ["float32", "bfloat16"]


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_every_precision_has_a_speed(precision):
    assert planning._speed(EncoderSettings(100, 32, 1, 2, 64), precision) > 1e6
