import dataclasses
import functools
import json
from unittest.mock import ANY

import keras
import numpy as np
import pytest
import scipy.special
from click.testing import CliRunner

from model import checkpoints
from model.checkpoints import sentence_transformers
from model.checkpoints.sentence_transformers import Sentences
from pipeline import cli, speed
from pipeline.commands.distil import command
from pipeline.distillation import run as distillation
from preprocessing import features
from preprocessing.errors import InputError
from serving.export import exporting, golden
from serving.signatures import FILL_MASK
from serving.signatures.sentences import EMBEDDING
from tests.model import small_examples

SENTENCES = Sentences("mean", True, None, [], True)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for name, made in (("train", (200, 0)), ("held", (40, 1))):
        (folder / name).mkdir()
        small_examples.write(folder / name / "a.tfrecord", small_examples.examples(*made))
    keras.utils.set_random_seed(2)
    vocabulary = small_examples.write_vocabulary(folder / "vocab.txt")
    teacher = small_examples.encoder(initializer_range=0.5)  # so that it says something
    checkpoints.save(teacher, folder / "teacher", vocabulary, lower_case=False)
    sentence_transformers.write(folder / "teacher", SENTENCES, teacher.settings.hidden_size)
    (folder / "teacher" / sentence_transformers.PROMPTS).write_text('{"default_prompt_name": "query"}')
    return folder


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(speed, "SECONDS", 0.01)


def distil(data, output, *arguments, teacher="teacher", layers="1"):
    options = {"--teacher": data / teacher, "--examples": data / "train", "--held-out": data / "held"}
    options |= {"--layers": layers} if layers else {}
    options |= {"--output": output, "--steps": 12, "--batch-size": 8, "--learning-rate": 5e-3}
    options |= {"--evaluate-every": 4, "--checkpoint-every": 4}
    given = [str(part) for pair in options.items() for part in pair]
    return CliRunner().invoke(command, [*given, *arguments], catch_exceptions=False)


@pytest.fixture(scope="module")
def distilled(data, tmp_path_factory):
    output = tmp_path_factory.mktemp("distilled")
    patch = pytest.MonkeyPatch()
    patch.setattr(speed, "SECONDS", 0.01)
    result = distil(data, output)
    patch.undo()
    return output, result.output


def test_it_leaves_a_student_and_compares_it(distilled):
    output, told = distilled
    assert checkpoints.load(output / "model").settings.num_layers == 1
    said = checkpoints.tokenizer(output / "model")
    assert (len(said.tokens), said.lower_case) == (small_examples.VOCAB, False)
    assert checkpoints.sentences(output / "model") == SENTENCES
    assert "its prompt 'query' is not put before a text" in told
    found = {one["model"]: one for one in json.loads((output / "report.json").read_text())}
    assert list(found) == ["teacher", "student", "untaught student", "before training"]
    assert found["teacher"]["cosine"] == pytest.approx(1)
    assert found["student"]["divergence"] < found["before training"]["divergence"]
    assert found["student"]["cosine"] > found["untaught student"]["cosine"]
    assert found["student"]["parameters"] == found["untaught student"]["parameters"] < found["teacher"]["parameters"]
    assert all(one["examples_per_second"] > 0 for one in found.values())
    assert {one["megabytes"] / one["parameters"] for one in found.values()} == {4e-6}
    report = (output / "report.md").read_text()
    assert "A student of 1 layers, from those numbered 0 (from 0)" in report
    for words in (report, told):
        assert all(name in words for name in ("untaught student", "divergence", "masked accuracy"))
    assert (output / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_a_student_is_exported_and_answers(distilled, tmp_path, monkeypatch):
    few = functools.partial(exporting.export_version, signatures=(EMBEDDING, FILL_MASK))
    monkeypatch.setattr(exporting, "export_version", few)
    monkeypatch.setattr(exporting, "_answer_elsewhere", lambda folder: golden.answer(str(folder)))
    model = distilled[0] / "model"

    def bert(*arguments):
        return CliRunner().invoke(cli.bert, [str(one) for one in arguments], catch_exceptions=False).stdout

    bert("export", "--model", model, "--output", tmp_path)
    asked = ("--signature", "fill_mask", "--json", "t7 t7 [MASK] t7")
    answered = json.loads(bert("predict", "--model", tmp_path / "bert", *asked))
    student, ids = checkpoints.load(model), np.array([[2, 7, 7, small_examples.MASK_ID, 7, 3]], np.int32)
    batch = {features.INPUT_IDS: ids, features.INPUT_MASK: np.ones_like(ids), features.SEGMENT_IDS: np.zeros_like(ids)}
    (logits,) = student.masked_lm(student(batch)["sequence_output"], np.array([[3]])).numpy()[0]
    best = np.argsort(-logits)[:10]
    assert answered["tokens"][0][0] == [f"t{number}" if number > 4 else ANY for number in best]
    assert answered["scores"][0][0] == pytest.approx(scipy.special.softmax(logits)[best], abs=1e-5)


@pytest.mark.long
def test_it_goes_on_where_it_was_interrupted(data, distilled, tmp_path, monkeypatch):
    train = distillation.training.train

    def interrupted(*args, report, **options):
        def until(step, *rest):
            report(step, *rest)
            raise RuntimeError("killed")

        return train(*args, report=until, **options)

    monkeypatch.setattr(distillation.training, "train", interrupted)
    with pytest.raises(RuntimeError, match="killed"):
        distil(data, tmp_path)
    monkeypatch.undo()
    monkeypatch.setattr(speed, "SECONDS", 0.01)
    assert distil(data, tmp_path).exit_code == 0
    for name in ("model", "taught/model", "untaught/model"):
        weights = [checkpoints.read(folder / name).arrays for folder in (distilled[0], tmp_path)]
        assert all(np.array_equal(weights[0][of], weights[1][of]) for of in weights[0])
    with pytest.raises(InputError, match=r"task\.temperature was 2\.0, now 3\.0"):
        distil(data, tmp_path, "--temperature", "3")
    with pytest.raises(InputError, match=r"init was '.*start-0', now '.*start-0-1'"):
        distil(data, tmp_path, layers="0,1")


@pytest.mark.long
def test_a_teacher_without_a_head_and_examples_without_masks(data, tmp_path):
    checkpoints.save(small_examples.encoder(()), tmp_path / "teacher", str(data / "vocab.txt"), False)
    arrays = small_examples.examples(50)
    for name in features.PREDICTION_FEATURES:
        arrays[name] = np.zeros_like(arrays[name])
    small_examples.write(tmp_path / "a.tfrecord", arrays)
    more = ("--examples", str(tmp_path / "a.tfrecord"), "--no-untaught")
    result = distil(data, tmp_path / "out", *more, teacher=tmp_path / "teacher", layers="1")
    assert "has no masked-language head: its hidden states alone are taught" in result.output
    assert not (tmp_path / "out" / "untaught").exists()
    found = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [one["model"] for one in found] == ["teacher", "student", "before training"]
    assert "divergence" not in found[0]
    assert found[1]["pooled"] > found[2]["pooled"]
    assert "from those numbered 0" in (tmp_path / "out" / "report.md").read_text()


@pytest.fixture
def narrow(tmp_path):
    size = dataclasses.asdict(small_examples.encoder_settings(hidden_size=8, num_layers=1, dropout=0.2))
    (tmp_path / "narrow.json").write_text(json.dumps(size))
    return "--config", str(tmp_path / "narrow.json"), "--no-untaught"


def test_hidden_states_of_two_widths_have_no_cosine(data, tmp_path, narrow):
    with pytest.raises(InputError, match="the weight cosine must be 0 for a student of another width"):
        distil(data, tmp_path, *narrow, "--cosine", "1", layers=None)


@pytest.mark.long
def test_a_student_of_another_width(data, tmp_path, narrow):
    """Of fresh weights and a size of its own; it keeps its dropout for later."""
    distil(data, tmp_path, *narrow, layers=None)
    student = checkpoints.load(tmp_path / "model")
    assert (student.settings.hidden_size, student.settings.dropout, student.heads) == (8, 0.2, ("masked_lm",))
    found = {one["model"]: one for one in json.loads((tmp_path / "report.json").read_text())}
    assert found["student"]["relations"] < found["before training"]["relations"]
    assert found["student"]["divergence"] < found["before training"]["divergence"]
    assert "cosine" not in found["student"]
    assert "1 layers 8 wide, of fresh weights" in (tmp_path / "report.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--layers", "two"], "--layers must be a number, or numbers with commas"),
        (["--layers", "5"], "there must be from 1 to 2 layers"),
        (["--layers", "0,4"], "layers must be of the checkpoint's, 0 to 1"),
        (["--config", "tiny"], "give either --layers or --config"),
        (["--dropout", "1"], r"--dropout must be in \[0, 1\)"),
        (["--temperature", "0"], "temperature must be positive"),
        (["--teacher", "/none"], "/none: no such checkpoint"),
        (["--held-out", "/none"], "/none: no example files"),
    ],
)
def test_bad_input(data, tmp_path, arguments, message):
    with pytest.raises(InputError, match=message):
        distil(data, tmp_path, *arguments)
