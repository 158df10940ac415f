"""The search over recipes: its trials are settings that hold; its rounds keep the better and go on after a stop."""

import argparse
import collections
import json

import pytest

from tests.benchmarks import recipes
from tests.benchmarks.recipes import TRIALS, Search, Trial


@pytest.mark.parametrize("name", TRIALS)
def test_each_trial_is_a_run_that_could_be_made(name):
    trial = Trial(name, TRIALS[name], 900, 7)
    settings = trial.settings
    assert settings.training.steps == 900
    assert settings.training.seed == 7
    assert 0 < settings.training.warmup < 300
    assert settings.encoder.vocab_size == settings.vocabulary.size
    assert settings == Trial("demo", {}, 900, 7).settings or name != "demo"
    assert trial.examples_a_step > 0


def test_a_shorter_length_counts_by_its_tokens():
    assert Trial("", TRIALS["length 32, then 128"], 900, 0).examples_a_step == 32
    assert Trial("", TRIALS["batch 16, then 64"], 900, 0).examples_a_step == 40


class Pretended(Search):
    """The loss of a trial is what it changes the rate to, a cost of a step is told, nothing is trained."""

    def __init__(self, folder, **options):
        defaults = {"core_seconds": None, "examples": None, "rounds": 2, "finalists": 2, "seeds": 3, "corpus": None}
        changes = {
            str(rate): {"training": {"learning_rate": rate}} for rate in (1e-3, 2e-3, 3e-3, 4e-3, 5e-3, 6e-3, 7e-3)
        }
        super().__init__(argparse.Namespace(output=str(folder), **defaults | options), changes)
        self.trained = collections.Counter()

    def _process(self, trial):
        self.trained[trial.name, trial.steps, trial.seed] += 1
        loss = 5 + trial.change["training"]["learning_rate"]
        figures = {"masked_lm_loss": loss, "unigram_loss": 6.0, "masked_lm_accuracy": 0.1, "nats_a_byte": loss}
        return {"step_cost": 0.5, **figures}


def test_the_better_third_goes_on_and_nothing_is_trained_twice(tmp_path, capsys):
    search = Pretended(tmp_path, examples=32 * 300)
    search.search()
    first = {(str(rate / 1000), 100, 0) for rate in range(1, 8)}
    second = {(name, 300, 0) for name in ("0.001", "0.002", "0.003")}
    seeds = {(name, 300, seed) for name in ("0.001", "0.002") for seed in (1, 2)}
    assert search.trained == dict.fromkeys(first | second | seeds, 1)
    assert "3 seeds" in capsys.readouterr().out
    path = tmp_path / "results.jsonl"
    lines = path.read_text().splitlines()
    assert len(lines) == 14
    # A run that was killed as it wrote a line.
    path.write_text("\n".join([*lines[:3], lines[3][:20]]))
    again = Pretended(tmp_path, examples=32 * 300)
    again.search()
    assert sum(again.trained.values()) == 11
    keys = [sorted(json.loads(line)["key"] for line in found) for found in (lines, path.read_text().splitlines())]
    assert keys[0] == keys[1]


def test_a_budget_of_processor_time_holds_so_many_steps(tmp_path):
    search = Pretended(tmp_path, core_seconds=150.0, rounds=1, finalists=1, seeds=1)
    search.search()
    assert {steps for _, steps, _ in search.trained} == {recipes.CALIBRATION, 300}
    assert max(search.trained.values()) == 1
