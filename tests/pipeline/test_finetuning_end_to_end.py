"""The fine-tuning pipeline on its smallest settings, after the one that pretrains, in one home."""

import pathlib
import shutil

import keras
import pytest

from model import checkpoints
from model.encoder import BertEncoder
from model.settings import EncoderSettings
from pipeline import settings
from pipeline.finetuning.settings import FinetuningSettings, TuningGate
from pipeline.keeping import PartialExport
from serving.client import Client
from tests.pipeline.finetuning.test_every_kind import CASES
from tests.pipeline.test_end_to_end import finish, report, steps
from tests.serving import small_model

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


@pytest.mark.parametrize("case", CASES[1:], ids=lambda case: case.name)
def test_every_other_kind_goes_the_same_way(case, tmp_path):
    keras.utils.set_random_seed(0)
    encoder = EncoderSettings(
        len(small_model.VOCAB), 16, 1, 2, 32, max_positions=48, initializer_range=0.1, dropout=0.0
    )
    checkpoints.save(BertEncoder(encoder, ()), tmp_path / "checkpoint", small_model.write_vocab(tmp_path), True)
    train, _ = case.files(tmp_path)
    more = {
        name.strip("-").replace("-", "_"): int(value) for name, value in zip(*[iter(case.options)] * 2, strict=True)
    }
    run = FinetuningSettings(
        case.kind.name,
        columns=dict(case.columns),
        train=str(train),
        eval=str(shutil.copy(train, tmp_path / f"held-out{train.suffix}")),
        init=str(tmp_path / "checkpoint"),
        untrained=False,
        options={"epochs": 8.0, "batch_size": 16, "learning_rate": 1e-2, "max_seq_length": 16, **more},
        export=PartialExport(max_seq_length=32, warmup_lengths=(16,), warmup_batches=(1,)),
        gate=TuningGate(min_gain=0.0),
    )
    output = finish(tmp_path / "home", run)
    found, first = report(tmp_path / "home"), next(iter(case.kind.figures))
    assert found["blessed"]
    assert found["metrics"][first] == pytest.approx(found["tuned"][first], abs=1e-3)  # rounding may change a rank
    assert found["metrics"][first] > case.least
    assert case.kind.figures[first] in output
