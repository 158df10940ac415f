"""What training asks of a task, whatever it is; with one that is none of the project's."""

import numpy as np
import pytest

from model import training
from model.settings import TrainingSettings
from model.training.optimizer import Optimizer
from model.training.state import State
from model.training.step import EXTRA, TrainingStep
from preprocessing.errors import InputError
from tests.model import small_examples
from tests.model.tasks.upper import Upper, examples

SETTINGS = TrainingSettings(steps=8, batch_size=8)


def test_the_best_is_the_greatest_where_more_is_better(tmp_path):
    encoder = small_examples.encoder()
    state = State(str(tmp_path), encoder, Optimizer(SETTINGS, encoder.trainable_variables, 2), 1)
    assert [state.is_best(value, lower_is_better=False) for value in (0.5, 0.4, float("nan"), 0.6)] == [1, 0, 0, 1]
    state.best_loss.assign(np.inf)
    assert [state.is_best(value, lower_is_better=True) for value in (0.5, 0.4, float("nan"), 0.6)] == [1, 1, 0, 0]


def test_what_a_task_refuses_is_refused_before_training(tmp_path):
    arrays = examples(8) | {"weight": np.zeros((8, 1), np.float32)}
    path = small_examples.write(tmp_path / "a.tfrecord", arrays)
    with pytest.raises(InputError, match="no weights"):
        training.train(
            small_examples.encoder_settings(), SETTINGS, task=Upper(), train_files=[path], output=str(tmp_path / "run")
        )
    assert not list((tmp_path / "run").glob("*"))  # it holds the folder while it looks, and leaves nothing


def test_sums_that_are_named_like_those_of_training():
    class Named(Upper):
        sum_names = ("nll", EXTRA[0])

    encoder = small_examples.encoder()
    with pytest.raises(InputError, match="each sum must have a name of its own"):
        TrainingStep(SETTINGS, Named(), encoder, Optimizer(SETTINGS, encoder.trainable_variables, 2), 1)
