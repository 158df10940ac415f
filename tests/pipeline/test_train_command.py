import json

import numpy as np
import pytest
from click.testing import CliRunner

from model import checkpoints, settings
from model.checkpoints import configs
from model.encoder import BertEncoder
from pipeline.commands.train import command
from preprocessing import features
from preprocessing.errors import InputError
from tests.model import small_examples


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder of examples with its vocabulary and the settings of a model."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "examples").mkdir()
    small_examples.write(folder / "examples" / "examples-00000-of-00001.tfrecord", small_examples.examples(64))
    small_examples.write_vocabulary(folder / "vocab.txt")
    config = {
        "vocab_size": small_examples.VOCAB,
        "hidden_size": 8,
        "num_layers": 1,
        "num_heads": 1,
        "intermediate_size": 16,
        "max_positions": 16,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def run(data, output, *arguments, config=None, examples=None):
    options = {
        "--examples": examples or data / "examples",
        "--vocab": data / "vocab.txt",
        "--config": config or data / "config.json",
        "--output": output,
    }
    given = [str(part) for pair in options.items() for part in pair]
    return CliRunner().invoke(
        command, [*given, "--steps", "6", "--batch-size", "8", *arguments], catch_exceptions=False
    )


def test_it_leaves_a_model_that_loads(data, tmp_path):
    result = run(data, tmp_path, "--held-out", str(data / "examples"), "--learning-rate", "1e-3", "--cased")
    assert result.exit_code == 0
    for words in ("masked lm loss", "unigram loss", "commonest token accuracy", str(tmp_path / "model")):
        assert words in result.output
    encoder = checkpoints.load(tmp_path / "model")
    assert encoder.settings.hidden_size == 8
    assert checkpoints.vocab_file(tmp_path / "model") is not None
    assert json.loads((tmp_path / "model" / "config.json").read_text())["lower_case"] is False
    again = run(data, tmp_path / "again", "--init", str(tmp_path / "model"), "--optimizer", "lamb", "--phase", "16:6")
    assert again.exit_code == 0


def test_without_the_next_sentence_loss(data, tmp_path):
    assert run(data, tmp_path, "--no-next-sentence", "--held-out", str(data / "examples")).exit_code == 0
    assert json.loads((tmp_path / "run.json").read_text())["task"] == {"kind": "pretraining", "next_sentence": False}
    assert "next_sentence" not in (tmp_path / "history.jsonl").read_text()
    with pytest.raises(InputError, match=r"task\.next_sentence was False, now True"):
        run(data, tmp_path, "--held-out", str(data / "examples"))


def test_the_case_is_that_of_the_examples(data, tmp_path):
    (tmp_path / "examples").mkdir()
    path = small_examples.write(tmp_path / "examples" / "tf_examples.tf_record_000", small_examples.examples(32))
    report = tmp_path / "examples" / "report.json"
    for lower_case in (True, False):
        report.write_text(json.dumps({"lower_case": lower_case}))
        output = tmp_path / str(lower_case)
        assert run(data, output, examples=tmp_path / "examples").exit_code == 0
        assert checkpoints.lower_case(output / "model") is lower_case
    with pytest.raises(
        InputError, match=r"report\.json: .*Received: examples of text in its own case; train with --cased"
    ):
        run(data, tmp_path / "run", "--lower-case", examples=path)
    other = small_examples.write(data / "examples" / "b.tfrecord", small_examples.examples(8))
    assert run(data, tmp_path / "both", "--examples", str(other), examples=path).exit_code == 0  # that has no report
    report.write_text("[]")
    assert run(data, tmp_path / "odd", examples=path).exit_code == 0


def test_single_sentences_with_the_next_sentence_loss(data, tmp_path):
    arrays = small_examples.examples(32)
    for name in (features.SEGMENT_IDS, features.NEXT_SENTENCE_LABELS):  # as --pairs none writes them
        arrays[name] = np.zeros_like(arrays[name])
    path = small_examples.write(tmp_path / "a.tfrecord", arrays)
    with pytest.raises(InputError, match=r"a\.tfrecord: .*must be pairs of sentences.*train with --no-next-sentence"):
        run(data, tmp_path / "run", examples=path)
    assert run(data, tmp_path / "run", "--no-next-sentence", examples=path).exit_code == 0


def test_masking_at_training_time(data, tmp_path):
    arrays = small_examples.examples(32)
    for name in features.PREDICTION_FEATURES:
        arrays[name] = np.zeros_like(arrays[name])
    path = small_examples.write(tmp_path / "a.tfrecord", arrays)
    with pytest.raises(InputError, match="must have masked tokens"):
        run(data, tmp_path / "run", examples=path)
    assert run(data, tmp_path / "run", "--masking", "whole-word", examples=path).exit_code == 0
    with pytest.raises(InputError, match="masking was 'whole-word', now 'ngram'"):
        run(data, tmp_path / "run", "--masking", "ngram", examples=path)


def test_a_recipe_says_what_is_not_given(data, tmp_path):
    more = ("--recipe", "short", "--warmup-steps", "1", "--phase", "16:3:8", "--phase", "16:3:4", "--beta-2", "0.98")
    assert run(data, tmp_path, *more, "--schedule", "one-cycle", "--learning-rate", "1e-3").exit_code == 0
    made = json.loads((tmp_path / "run.json").read_text())
    wanted = {"learning_rate": 1e-3, "bias_correction": True, "beta_2": 0.98, "schedule": "one-cycle", "batch_size": 8}
    assert {name: made["training"][name] for name in wanted} == wanted
    assert [phase["batch_size"] for phase in made["training"]["phases"]] == [8, 4]
    assert made["encoder"]["dropout"] == 0.0
    assert made["encoder"]["initializer_range"] == pytest.approx(0.68 / 8**0.5)
    assert settings.EncoderSettings().dropout > 0


def test_a_recipe_warms_up_for_a_share_of_the_steps(data, tmp_path):
    assert run(data, tmp_path, "--recipe", "short", "--steps", "12").exit_code == 0
    made = json.loads((tmp_path / "run.json").read_text())["training"]
    assert (made["steps"], made["warmup_steps"], made["schedule"]) == (12, 3, "one-cycle")
    assert made["learning_rate"] == pytest.approx(0.512 / 8)  # the model is 8 wide
    assert made["initial_weights"] == "informed"


def test_informed_weights_are_for_a_model_without_a_checkpoint(data, tmp_path):
    checkpoints.save(BertEncoder(configs.settings_in(data / "config.json")), tmp_path / "model")
    init = ("--init", str(tmp_path / "model"))
    with pytest.raises(InputError, match="--initial-weights informed is for a model without --init"):
        run(data, tmp_path / "run", *init, "--initial-weights", "informed")
    assert "not with the recipe's informed ones" in run(data, tmp_path / "run", *init, "--recipe", "short").output


def test_a_share_masked_at_training_time(data, tmp_path):
    arrays = small_examples.examples(32)
    for name in features.PREDICTION_FEATURES:
        arrays[name] = np.zeros_like(arrays[name])
    path = small_examples.write(tmp_path / "a.tfrecord", arrays)
    arguments = ("--masking", "token", "--masked-lm-prob")
    assert run(data, tmp_path / "run", *arguments, "0.1", examples=path).exit_code == 0
    with pytest.raises(InputError, match=r"masking was 'token 0\.1', now 'token 0\.2'"):
        run(data, tmp_path / "run", *arguments, "0.2", examples=path)


def test_phrases_are_masked_at_training_time(data, tmp_path):
    arrays = small_examples.examples(32)
    for name in features.PREDICTION_FEATURES:
        arrays[name] = np.zeros_like(arrays[name])
    path = small_examples.write(tmp_path / "a.tfrecord", arrays)
    words = (data / "vocab.txt").read_text().split()[-2:]
    (tmp_path / "phrases.txt").write_text(f"{' '.join(words)}\nno such words\n")
    arguments = ("--masking", "phrases", "--phrases", str(tmp_path / "phrases.txt"))
    result = run(data, tmp_path / "run", *arguments, examples=path)
    assert "phrases.txt:2: a word of it is [UNK]" in result.output
    (tmp_path / "phrases.txt").write_text(words[0])
    with pytest.raises(InputError, match=r"masking was 'phrases \w{16}', now 'phrases \w{16}'"):
        run(data, tmp_path / "run", *arguments, examples=path)
    with pytest.raises(InputError, match="need each other"):
        run(data, tmp_path / "run", *arguments[2:], examples=path)


@pytest.mark.parametrize(
    ("arguments", "config", "message"),
    [
        (["--phase", "²:4"], None, "phase must be LENGTH:STEPS"),
        (["--seed", "-1"], None, "seed must be 0 or more"),
        (["--phase", "16"], None, "phase must be LENGTH:STEPS"),
        (["--phase", "16:3:8:1"], None, "phase must be LENGTH:STEPS or LENGTH:STEPS:BATCH"),
        (["--recipe", "old"], None, "--recipe must be paper or short. Received: 'old'"),
        (["--masked-lm-prob", "0.4"], None, "--masked-lm-prob needs --masking"),
        (["--masked-lm-prob", "2", "--masking", "token"], None, "must be above 0 and at most 1"),
        (["--masked-lm-prob", "0.9", "--masking", "token"], None, "--masked-lm-prob 0.9 needs room for 14 predictions"),
        (["--accumulate", "3"], None, "batch_size must be a multiple of accumulate"),
        (["--held-out", "/none/*"], None, "/none/.*: no example files"),
        (["--init", "/none"], None, "/none: no such checkpoint"),
        ([], "enormous", "config must be tiny, mini, small, medium, base, large or a JSON file"),
    ],
)
def test_bad_input(data, tmp_path, arguments, config, message):
    with pytest.raises(InputError, match=message):
        run(data, tmp_path, *arguments, config=config)


def test_a_config_for_another_vocabulary(data, tmp_path):
    config = json.loads((data / "config.json").read_text()) | {"vocab_size": 41}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"vocab_size must be the vocabulary's \(40\). Received: 41"):
        run(data, tmp_path / "run", config=tmp_path / "config.json")


def test_help_names_the_sizes():
    text = CliRunner().invoke(command, ["--help"]).output
    assert all(name in text for name in settings.NAMED)
