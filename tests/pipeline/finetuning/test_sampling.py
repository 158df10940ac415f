"""Part of a dev, always the same, and runs that end when they get no better on it."""

import json

import keras
import pytest
from click.testing import CliRunner

from model import checkpoints
from model.encoder import BertEncoder
from model.settings import EncoderSettings
from pipeline import cli
from pipeline.finetuning import sampling
from preprocessing import tfrecord
from preprocessing.errors import InputError
from tests.serving import small_model


def records(path):
    with open(path, "rb") as stream:
        return list(tfrecord.records(stream))


def test_a_sample_depends_on_the_examples_alone(tmp_path):
    examples = [str(number % 90).encode() for number in range(100)]  # some twice
    (tmp_path / "dev.tfrecord").write_bytes(tfrecord.frame(examples))
    (tmp_path / "turned.tfrecord").write_bytes(tfrecord.frame(examples[::-1]))
    found, turned = (records(sampling.sampled(str(tmp_path / f"{name}.tfrecord"), 30)) for name in ("dev", "turned"))
    assert len(found) == 30
    places = [examples.index(record) for record in found]
    assert max(places) > 50  # not the first ones
    assert sorted(found) == sorted(turned)
    assert sorted(path.name for path in tmp_path.glob("*-*")) == ["dev-30.tfrecord", "turned-30.tfrecord"]
    assert set(records(sampling.sampled(str(tmp_path / "dev.tfrecord"), 10))) <= set(found)


@pytest.fixture(scope="module")
def finetuned(tmp_path_factory):
    """(folder of a run without a learning rate to speak of, what was told)"""
    folder = tmp_path_factory.mktemp("patience")
    keras.utils.set_random_seed(0)
    settings = EncoderSettings(len(small_model.VOCAB), 16, 1, 2, 32, max_positions=16)
    checkpoints.save(BertEncoder(settings, ()), folder / "model", small_model.write_vocab(folder), True)
    (folder / "rows.tsv").write_text(
        "".join(f"paris {'river ' * (i % 7)}\t{'wet' if i % 7 else 'dry'}\n" for i in range(80))
    )
    words = f"--task classification --train {folder}/rows.tsv --dev {folder}/rows.tsv --model {folder}/model".split()
    words += f"--output {folder}/out --max-seq-length 16 --batch-size 8 --epochs 4 --learning-rate 1e-30".split()
    words += ["--patience", "2", "--dev-rows", "20"]
    result = CliRunner().invoke(cli.bert, ["finetune", *words], catch_exceptions=False)
    assert result.exit_code == 0
    return folder / "out", words, result.stdout


def test_what_ended_a_run_is_told(finetuned):
    output, _, told = finetuned
    metrics, report = json.loads((output / "metrics.json").read_text()), (output / "report.md").read_text()
    assert metrics["training"]["steps"] == 40
    assert metrics["ended"] == {"12345": {"step": 4 * (1 + 2), "by": "patience 2"}}
    assert "a run ends after 2 evaluations, of ten, without a better accuracy" in told
    assert "seed 12345 ended after 12 of 40 updates: patience 2" in told
    assert "Seed 12345 ended after 12 updates: 2 evaluations on dev without a better accuracy." in report
    assert "- patience: 2" in report


def test_figures_are_of_the_whole_dev(finetuned):
    output, _, told = finetuned
    metrics, report = json.loads((output / "metrics.json").read_text()), (output / "report.md").read_text()
    assert metrics["rows"] == 80
    assert "the best model is chosen on 20 of dev's 80 examples, always the same ones" in told
    assert "The best model was chosen on 20 of dev's 80 examples; the figures are of all rows." in report
    described = json.loads((output / "runs" / "12345" / "run.json").read_text())
    assert next(name for name, _ in described["eval_files"]).endswith("-dev-20.tfrecord")


def test_another_sample_is_another_run(finetuned):
    _, words, _ = finetuned
    with pytest.raises(InputError, match="eval_files was"):
        CliRunner().invoke(cli.bert, ["finetune", *words[:-1], "30"], catch_exceptions=False)
