import dataclasses
import json

import pytest

from pipeline import settings
from preprocessing.errors import InputError


@pytest.mark.parametrize("preset", settings.PRESETS)
def test_a_preset_is_consistent_and_survives_json(preset):
    value = settings.PRESETS[preset]()
    value.check()
    assert settings.from_json(value.to_json()) == value


def test_training_phases_survive_json():
    text = '{"training": {"steps": 10, "phases": [{"steps": 9, "max_seq_length": 64}, {"steps": 1}]}}'
    value = settings.from_json(text)
    assert [phase.steps for phase in value.training.phases] == [9, 1]
    assert settings.from_json(value.to_json()) == value


def test_beam_options_of_steps_survive_json():
    value = settings.from_json('{"step_beam_args": {"CorpusGen": ["--runner=FlinkRunner", "--flink_master=h:8081"]}}')
    assert value.step_beam_args == {"CorpusGen": ("--runner=FlinkRunner", "--flink_master=h:8081")}
    assert settings.from_json(value.to_json()) == value


def test_parts_left_out_have_their_defaults():
    assert settings.from_json('{"examples": {"dupe_factor": 3}}').examples == dataclasses.replace(
        settings.PipelineSettings().examples, dupe_factor=3
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"exampels": {}}', "settings has no setting 'exampels'"),
        ('{"examples": {"dupe": 3}}', "settings.examples has no setting 'dupe'"),
        ('{"examples": 3}', "settings.examples must be a JSON object. Received: 3"),
        ('{"vocabulary": {"size": 5}}', "vocabulary size must exceed its 5 special tokens. Received: 5"),
        ('{"training": {"steps": "many"}}', "settings.training.steps must be of type int. Received: 'many'"),
        ('{"training": {"steps": 2.5}}', "settings.training.steps must be of type int. Received: 2.5"),
        ('{"training": {"bias_correction": "false"}}', "must be of type bool. Received: 'false'"),
        ('{"corpus": {"input": "a.txt"}}', "settings.corpus.input must be of type tuple[str, ...]. Received: 'a.txt'"),
        ('{"gate": {"max_loss_increase": NaN}}', "must be of type float. Received: nan"),
        ('{"step_beam_args": {"CorpusGen": "--a"}}', "step_beam_args.CorpusGen must be of type tuple[str, ...]"),
        ('{"step_beam_args": ["--a"]}', "settings.step_beam_args must be of type dict[str, tuple[str, ...]]"),
        ('{"training": {"phases": [{"step": 1}]}}', "settings.training.phases[0] has no setting 'step'"),
        ('{"name": null}', "settings.name must be of type str. Received: None"),
        ('{"init": "/none/such"}', "init must be a checkpoint. Received: '/none/such'"),
        ('{"eval_share": 1.0}', "eval_share must be between 0 and 1. Received: 1.0"),
        ('{"name": "../x"}', "name must be of A-Z a-z 0-9 . _ - and at most 63 characters. Received: '../x'"),
        ('{\n"name": \n}', "settings:3: not JSON"),
        (
            '{"export": {"max_seq_length": 64}}',
            "that of the examples (128), which the exported model is evaluated on. R",
        ),
        ('{"examples": {"masking": "none"}}', "masking must be token, whole-word, ngram or phrases"),
        ('{"examples": {"names": "model-garden"}}', "names must be google"),
        ('{"examples": {"pairs": "none"}}', "next_sentence must be false with examples.pairs none"),
        ('{"encoder": {"type_vocab_size": 1}}', "type_vocab_size must be at least 2 for the two segments"),
        (
            '{"training": {"steps": 3, "phases": [{"steps": 1}, {"steps": 2, "max_seq_length": 64}]}}',
            "a phase's max_seq_length must be that of the examples (128), or left out. Received: [None, 64]",
        ),
        ('{"vocabulary": {"file": "/none/vocab.txt"}}', "/none/vocab.txt: the vocabulary cannot be read"),
        ('{"export": {"layers": "1,12"}}', "layers must be of the checkpoint's, 0 to 11. Received: [1, 12]"),
        ('{"export": {"tokens_of": ["a.txt"]}}', "export.tokens_of must be left out: held-out examples have any token"),
        ('{"recipe": "long"}', "recipe must be paper or short. Received: 'long'"),
        ('{"recipe": ["short"]}', "settings.recipe must be of type str | None. Received: ('short',)"),
        ('{"recipe": "short", "training": 3}', "settings.training must be a JSON object. Received: 3"),
        ('{"recipe": "short", "training": {"steps": NaN}}', "settings.training.steps must be of type int. Received: n"),
        ('{"recipe": "short", "encoder": {"hidden": 3}}', "settings.encoder has no setting 'hidden'"),
        (
            '{"recipe": "paper", "training": {"steps": 9}}',
            "warmup_steps must be at least 0 and less than steps (9). Received: 10000",
        ),
    ],
)
def test_what_is_refused(text, message):
    with pytest.raises(InputError) as error:
        settings.from_json(text).check()
    assert message in str(error.value)


def test_what_agrees_is_taken():
    settings.from_json('{"examples": {"pairs": "none"}, "training": {"next_sentence": false}}').check()
    settings.from_json('{"examples": {"pairs": "sentence-order"}}').check()
    settings.from_json('{"training": {"steps": 3, "phases": [{"steps": 3, "max_seq_length": 128}]}}').check()


def test_a_vocabulary_file_is_checked_as_every_vocabulary_is(tmp_path):
    path = tmp_path / "vocab.txt"
    value = settings.PipelineSettings(vocabulary=settings.VocabularySettings(file=str(path)))
    path.write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n")
    with pytest.raises(InputError, match=r"vocab\.txt: a vocabulary to pretrain with must have \[MASK\]"):
        value.check()
    path.write_text("[PAD]\n[CLS]\n[SEP]\n")
    with pytest.raises(InputError, match=r"vocab\.txt: .*Missing: \[UNK\]"):
        value.check()
    path.write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nParis\n")
    with pytest.raises(InputError, match=r"vocab\.txt: vocabulary\.lower_case must be false.*capitals"):
        value.check()


def test_examples_longer_than_the_models_positions_are_refused():
    value = settings.demo()
    value = value.replace(examples=dataclasses.replace(value.examples, max_seq_length=513))
    with pytest.raises(InputError, match=r"must not exceed the model's max_positions \(512\). Received: 513"):
        value.check()


def test_recipes_go_by_the_steps_and_the_width():
    short, paper = settings.RECIPES["short"], settings.RECIPES["paper"]
    assert short.steps(200, 128)["warmup_steps"] == 50
    assert short.steps(200, 128)["learning_rate"] == 2 * short.steps(200, 256)["learning_rate"]
    assert paper.steps(200, 128)["learning_rate"] == paper.steps(200, 256)["learning_rate"]
    narrow, wide = (short.encoder(settings.EncoderSettings(hidden_size=size, num_heads=2)) for size in (32, 128))
    assert narrow.initializer_range == pytest.approx(2 * wide.initializer_range)
    assert (wide.dropout, wide.attention_dropout) == (0.0, 0.0)
    assert paper.encoder(settings.EncoderSettings()) == settings.EncoderSettings()
    assert settings.base().training.warmup == 10_000
    assert settings.demo().training.warmup == settings.demo().training.steps // 4


def test_a_recipe_fills_in_what_a_file_does_not_say():
    sizes = {"hidden_size": 256, "num_heads": 4, "attention_dropout": 0.1}
    file = {"recipe": "short", "encoder": sizes, "training": {"steps": 2e4, "beta_2": 0.999, "schedule": "linear"}}
    value, short = settings.from_json(json.dumps(file)), settings.RECIPES["short"]
    wanted = short.steps(20_000, 256) | {"beta_2": 0.999, "schedule": "linear"}
    assert value.training == settings.TrainingSettings(**wanted)
    assert value.encoder == dataclasses.replace(
        short.encoder(settings.EncoderSettings(hidden_size=256, num_heads=4)), attention_dropout=0.1
    )
    assert settings.from_json(value.to_json()) == value
    paper, base = settings.from_json('{"recipe": "paper"}'), settings.base()
    assert (paper.recipe, paper.training) == ("paper", dataclasses.replace(base.training, precision="float32"))


def test_settings_from_a_file(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"name": "mine"}))
    assert settings.load(str(path)).name == "mine"
    assert settings.from_json('{"training": {"steps": 2e4}}').training.steps == 20_000
    (tmp_path / "latin.json").write_bytes(b'{"name": "\xe9"}')
    with pytest.raises(InputError, match=r"latin\.json: not UTF-8"):
        settings.load(str(tmp_path / "latin.json"))
    with pytest.raises(InputError, match=r"must be demo, smoke, base, classification, .* or a JSON file"):
        settings.load(str(tmp_path / "none.json"))
