"""The fine-tuning pipeline on its smallest settings, after the one that pretrains, in one home."""

import pathlib

import pytest

from pipeline import settings
from serving.client import Client
from tests.pipeline.test_end_to_end import finish, report, steps

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("home") / "bert"
    finish(home)
    return home


@pytest.fixture(scope="module")
def tuned(home):
    return finish(home, settings.load("classification-smoke"))


def test_what_was_pretrained_is_fine_tuned_judged_and_pushed(home, tuned):
    assert "Pretraining is worth " in tuned
    found = report(home)
    assert found["state"] == "done"
    assert found["task"] == "classification"
    assert found["blessed"]
    version = pathlib.Path(found["pushed_to"])
    assert version.parent == home / "serving" / "packages-smoke"
    assert found["metrics"]["accuracy"] == pytest.approx(found["tuned"]["accuracy"])
    assert found["floor"] == max(found["untrained"]["accuracy"], found["tuned"]["majority_accuracy"])
    assert found["metrics"]["gain"] == pytest.approx(found["metrics"]["accuracy"] - found["floor"])
    assert found["untrained"]["training"] == found["tuned"]["training"]
    assert len(found["samples"]) == 3
    assert (home / "reports" / "report.md").is_file()
    with Client(version) as client:
        answer = client.predict("classify", text=[found["samples"][0]["text"]])
    assert answer["label"][0].decode() in found["tuned"]["f1"]
    assert not list((home / "training").iterdir())


def test_a_second_run_is_all_cached_and_another_evaluates_against_the_first(home, tuned):
    pushed = report(home)["pushed_to"]
    run = settings.load("classification-smoke")
    ends = steps(finish(home, run))
    assert len(ends) == 11
    assert set(ends.values()) == {"cached"}
    assert report(home)["pushed_to"] == pushed
    assert not report(home)["compared"]

    ends = steps(finish(home, run.replace(options={**run.options, "seed": 7})))
    assert {name for name, end in ends.items() if end == "cached"} == {
        "TaskExamplesGen", "TaskStatistics", "TaskSchema", "TaskValidator", "TaskGate", "DriftGate",
    }  # fmt: skip
    assert report(home)["compared"]


def test_the_pretraining_run_is_as_it_was(home, tuned):
    ends = steps(finish(home))
    assert len(ends) == 15
    assert set(ends.values()) == {"cached"}
    assert "task" not in report(home)
    assert not (home / "reports" / "report.md").exists()
