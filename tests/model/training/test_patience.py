"""A run that gets no better ends early, and alike whether it was interrupted or not."""

import dataclasses
import math
import shutil

import pytest

from model import training
from model.settings import TrainingSettings
from model.tasks.pretraining import Pretraining
from model.training.patience import Patience
from model.training.records import read_history
from preprocessing.errors import InputError
from tests.model import small_examples
from tests.model.tasks.upper import Upper

# Without a learning rate to speak of no evaluation is better than the first.
SETTINGS = TrainingSettings(
    steps=60, batch_size=8, learning_rate=1e-30, steps_per_call=2, report_every=4, evaluate_every=4, checkpoint_every=6,
    weight_decay=0.0, patience=3,
)  # fmt: skip


def rows(*losses):
    return [{"step": number, "kind": "held_out", Pretraining().watched: loss} for number, loss in enumerate(losses)]


def test_evaluations_since_the_best_are_counted():
    patience = Patience(2, Pretraining(), rows(3.0, 2.0, 2.0))
    assert (patience.waited, patience.over) == (1, False)
    patience.add(rows(math.nan)[0])
    assert patience.over
    patience.add(rows(1.0)[0])
    assert (patience.waited, patience.over) == (0, False)
    training_rows = [{"step": 1, "kind": "training", "loss": 9.0}]
    assert Patience(1, Pretraining(), training_rows).waited == 0
    assert not Patience(None, Pretraining(), rows(*[1.0] * 99)).over


def test_a_figure_may_be_better_the_higher():
    task = Upper()
    assert not task.lower_is_better
    found = [{"kind": "held_out", task.watched: figure} for figure in (0.1, 0.2, 0.1)]
    assert Patience(1, task, found).over
    assert not Patience(1, task, found[:2]).over


def train(examples, output, settings=SETTINGS):
    return training.train(
        small_examples.encoder_settings(num_layers=1),
        settings,
        task=Pretraining(),
        train_files=[examples],
        eval_files=[examples],
        output=str(output),
    )


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    return small_examples.write(tmp_path_factory.mktemp("examples") / "examples.tfrecord", small_examples.examples(32))


def test_a_run_ends_without_a_gain_and_goes_on_alike(examples, tmp_path):
    whole = train(examples, tmp_path / "whole")
    assert whole.steps == 4 * (1 + 3)
    history = read_history(str(tmp_path / "whole"))
    assert history[-1]["step"] == whole.steps
    assert {row["kind"] for row in history[-2:]} == {"training", "held_out"}
    # The schedule is that of all the steps.
    rates = {row["step"]: row["learning_rate"] for row in history if row["kind"] == "training"}
    unended = dataclasses.replace(SETTINGS, patience=None, steps=60)
    assert rates[12] > rates[16] > 0
    assert SETTINGS.warmup == unended.warmup == 6

    shutil.copytree(tmp_path / "whole", tmp_path / "killed")
    for path in (tmp_path / "killed" / "checkpoints").glob("ckpt-16.*"):
        path.unlink()
    (tmp_path / "killed" / "checkpoints" / "checkpoint").unlink()
    for name, output in (("killed", tmp_path / "killed"), ("done", tmp_path / "whole")):
        again = train(examples, output)
        assert again.steps == whole.steps, name
        assert again.metrics == whole.metrics
        assert read_history(str(output))[-1]["step"] == whole.steps
    weights = [(tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("whole", "killed")]
    assert weights[0] == weights[1]
    with pytest.raises(InputError, match="patience was 3, now 4"):
        train(examples, tmp_path / "whole", dataclasses.replace(SETTINGS, patience=4))
