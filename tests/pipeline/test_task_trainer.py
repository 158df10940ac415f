"""The Trainer of the fine-tuning pipeline, on a small model and rows that it learns in a moment."""

import json
import types

import keras
import pytest
from tfx.types import standard_artifacts

from model import checkpoints
from model.encoder import BertEncoder
from model.settings import EncoderSettings
from pipeline import task_trainer
from pipeline.components import task_examples
from pipeline.finetuning import description, run
from pipeline.finetuning.settings import FinetuningSettings
from pipeline.keeping import PartialExport
from tests.pipeline.finetuning import test_every_kind
from tests.serving import small_model


@pytest.fixture
def arguments(tmp_path, monkeypatch):
    """What the Trainer is called with; exports are the checkpoints themselves."""
    keras.utils.set_random_seed(0)
    encoder = EncoderSettings(
        len(small_model.VOCAB), 16, 1, 2, 32, max_positions=48, initializer_range=0.1, dropout=0.0
    )
    checkpoints.save(BertEncoder(encoder, ()), tmp_path / "checkpoint", small_model.write_vocab(tmp_path), True)
    init = str(tmp_path / "checkpoint")
    train, held_out = map(str, test_every_kind.wet_or_dry(tmp_path))
    options = {"epochs": 4.0, "batch_size": 16, "learning_rate": 1e-2, "max_seq_length": 16}
    export = PartialExport(tokens_of=(train,))
    settings = FinetuningSettings(
        "classification", train=train, eval=held_out, options=options, init=init, export=export
    ).to_json()
    examples = standard_artifacts.Examples()
    examples.uri = str(tmp_path / "examples" / "7")
    task_examples.TaskExamplesGen.test_call(examples=examples, settings=settings, input_fingerprint="")

    def export_version(checkpoint, base, settings, kept):
        (tmp_path / "kept.json").write_text(json.dumps(kept.tokens))
        (base / "bert" / "1" / "assets.extra").mkdir(parents=True)
        return base / "bert" / "1"

    monkeypatch.setattr(task_trainer.exporting, "export_version", export_version)
    (tmp_path / "run").mkdir()
    return types.SimpleNamespace(
        custom_config={
            "settings": settings,
            "fingerprint": "abc",
            "work_folder": str(tmp_path / "work"),
        },
        train_files=[f"{examples.uri}/Split-train/*"],
        serving_model_dir=str(tmp_path / "served"),
        model_run_dir=str(tmp_path / "run"),
    )


def read(arguments, name):
    with open(f"{arguments.model_run_dir}/{name}", encoding="utf-8") as file:
        return json.load(file)


@pytest.mark.long
def test_a_pretrained_and_an_untrained_encoder_are_taught_the_same(arguments, tmp_path):
    task_trainer.run_fn(arguments)
    tuned, untrained = read(arguments, "metrics.json"), read(arguments, task_trainer.UNTRAINED)
    assert tuned["training"] == untrained["training"]
    assert tuned["data"]["train"]["rows"] == untrained["data"]["train"]["rows"]
    assert tuned["cross_entropy"] != untrained["cross_entropy"]
    found = description.read(arguments.serving_model_dir)
    assert (found.task, found.signature, found.labels) == ("classification", "classify", ["dry", "wet"])
    assert found.floor == max(untrained["accuracy"], tuned["majority_accuracy"])
    (training,) = (tmp_path / "work").iterdir()  # there until its results are known
    assert json.loads((training / "end.json").read_text()) == {"model_run": str(tmp_path / "run")}
    kept = json.loads((tmp_path / "kept.json").read_text())
    assert kept == list(range(len(small_model.VOCAB)))  # without letters nothing else spells a token
    for name in ("model/task.json", "report.md", "errors.tsv", "curves.png", "logs"):
        assert (tmp_path / "run" / name).exists()


@pytest.mark.long
def test_a_fine_tuned_model_may_be_the_teacher(arguments, tmp_path):
    task_trainer.run_fn(arguments)
    teacher, settings = f"{arguments.model_run_dir}/model", json.loads(arguments.custom_config["settings"])
    settings["options"] |= {"teacher": teacher, "untaught": False}
    arguments.custom_config |= {"settings": json.dumps(settings | {"untrained": False}), "fingerprint": "abd"}
    for name in ("model_run_dir", "serving_model_dir"):
        setattr(arguments, name, str(tmp_path / f"taught_{name}"))
    (tmp_path / "taught_model_run_dir").mkdir()
    task_trainer.run_fn(arguments)
    assert read(arguments, "metrics.json")["teacher"]["path"] == teacher


@pytest.mark.long
def test_what_was_killed_goes_on_where_it_was(arguments, tmp_path, monkeypatch):
    """The untrained encoder's figures are those that it had, although another random one would be made now."""
    whole, calls = run.run, []

    def killed(*given):
        if calls:
            raise KeyboardInterrupt
        calls.append(whole(*given))
        return calls[-1]

    monkeypatch.setattr(run, "run", killed)
    with pytest.raises(KeyboardInterrupt):
        task_trainer.run_fn(arguments)
    monkeypatch.undo()
    monkeypatch.setattr(task_trainer.exporting, "export_version", lambda *given, **more: pytest.fail("too soon"))
    monkeypatch.setattr(task_trainer, "Description", None)

    again = []

    def counted(*given):
        again.append(whole(*given))
        return again[-1]

    monkeypatch.setattr(run, "run", counted)
    with pytest.raises(BaseException, match="too soon"):
        task_trainer.run_fn(arguments)
    for metrics in (again[0], calls[0]):
        del metrics["cost"]["peak_memory"]  # of a process, not of a run: it only grows
    assert again[0] == calls[0]
