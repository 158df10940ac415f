"""`bert finetune`, `bert export`, `bert evaluate` and `bert predict` on texts that a small model learns in a moment."""

import functools
import json
import pathlib
import shutil

import keras
import numpy as np
import pytest
import sklearn.metrics
from click.testing import CliRunner

from model import checkpoints
from model.encoder import BertEncoder
from model.encoder.heads import CLASSIFIER
from model.settings import ClassificationSettings, EncoderSettings
from pipeline import cli, speed
from preprocessing.errors import InputError
from serving.export import exporting, golden
from serving.signatures import TOKENIZE
from serving.signatures.classification import CLASSIFIERS
from tests.serving import small_model

FAST = ["--epochs", "12", "--batch-size", "16", "--learning-rate", "1e-2", "--max-seq-length", "16"]


def rows(count, seed):
    """Texts with "river" are wet, with "france" are dry."""
    random = np.random.default_rng(seed)
    for _ in range(count):
        words = random.choice("paris is the capital of it lies on a run here no".split(), 6).tolist()  # noqa: SIM905
        label = str(random.choice(["wet", "dry"]))
        words[random.integers(6)] = {"wet": "river", "dry": "france"}[label]
        yield " ".join(words), label


def write(path, texts):
    path.write_text("".join("\t".join(row) + "\n" for row in texts))
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    keras.utils.set_random_seed(0)
    settings = EncoderSettings(
        len(small_model.VOCAB), 16, 1, 2, 32, max_positions=48, initializer_range=0.1, dropout=0.0
    )
    checkpoints.save(BertEncoder(settings, ()), folder / "checkpoint", small_model.write_vocab(folder), True)
    write(folder / "train.tsv", rows(200, 0))
    write(folder / "dev.tsv", [*rows(40, 1), ("the river", "odd"), ("", "wet"), ("the river", "")])
    return folder


@pytest.fixture(scope="module")
def tuned(data, tmp_path_factory):
    output = tmp_path_factory.mktemp("tuned")
    return output, finetune(data, output)


def run(*arguments):
    return CliRunner().invoke(cli.bert, [*map(str, arguments)], catch_exceptions=False)


def finetune(data, output, *more, model=None, train=None):
    files = ("--train", train or data / "train.tsv", "--dev", data / "dev.tsv", "--output", output)
    result = run("finetune", "--task", "classification", "--model", model or data / "checkpoint", *files, *FAST, *more)
    assert result.exit_code == 0
    return result.stdout


def test_it_tells_what_it_will_do_and_what_came_of_it(data, tuned):
    _, told = tuned
    for words in (
        "1 layers, 16 hidden; new: classifier; unused: nothing",
        "train.tsv: text 1, label 2; the first line is taken for a row (--header if it is not)",
        "2 classes: ",
        "train: 200 rows, 0.0% cut at 16 tokens",
        f"dev: 1 rows cannot be used: {data}/dev.tsv:42 text (1) is empty",
        f"dev: 1 rows have no label and count as errors: {data}/dev.tsv:43",
        f"dev: 1 rows have a label that train does not have and count as errors: {data}/dev.tsv:41 'odd'",
        "is right in 0.",
        "1 x 150 updates of 16 rows, 12 epochs, 15 of them warm-up to the learning rate 0.01; about ",
        "  Accuracy: 0.9524",
        "  Accuracy of the commonest label: ",
    ):
        assert words in told
    assert "ALARM" not in told


def test_what_it_leaves(data, tuned):
    output, _ = tuned
    task = checkpoints.read_task(output / "model")
    assert task.labels == ("dry", "wet")
    assert (task.pair, task.max_seq_length, task.long) == (False, 16, "cut")
    assert 0 < task.temperature < 20
    assert checkpoints.load(output / "model").heads == ("classifier",)
    assert checkpoints.vocab_file(output / "model") is not None
    metrics = json.loads((output / "metrics.json").read_text())
    assert metrics["rows"] == 42
    answers = [json.loads(line) for line in (output / "predictions.jsonl").read_text().splitlines()]
    assert [answer["line"] for answer in answers] == [*range(1, 42), 43]
    right = [answer["gold"] == answer["answer"] for answer in answers]
    assert metrics["accuracy"] == pytest.approx(np.mean(right))
    assert metrics["seeds"] == {"12345": {name: metrics[name] for name in metrics["mean"]}}
    assert metrics["calibration"]["after"]["cross_entropy"] <= metrics["calibration"]["before"]["cross_entropy"]
    errors = (output / "errors.tsv").read_text().splitlines()
    assert len(errors) == 1 + right.count(False)
    assert {line.split("\t")[1] for line in errors[1:3]} == {"41", "43"}  # no answer could be right: the costliest
    for name in ("confusion.png", "curves.png"):
        assert (output / name).read_bytes().startswith(b"\x89PNG")
    report = (output / "report.md").read_text()
    assert "| Accuracy | 0.9524 |" in report
    assert f"{data}/dev.tsv:41 'odd'" in report
    limits = report.split("## Limits")[1].split("##")[0]
    for words in ("- Dev has 42 rows: an accuracy is known to within 0.151", "the vocabulary is uncased"):
        assert words in limits
    assert "Fewer than" not in limits


@pytest.mark.long
def test_several_seeds_weights_and_another_figure(data, tmp_path):
    told = finetune(
        data, tmp_path, "--seeds", 2, "--class-weights", "balanced", "--watch", "cross_entropy", "--epochs", 1
    )
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert list(metrics["seeds"]) == ["12345", "12346"]
    losses = {seed: figures["cross_entropy"] for seed, figures in metrics["seeds"].items()}
    assert metrics["cross_entropy"] == min(losses.values()) == losses[str(metrics["best_seed"])]
    assert metrics["mean"]["cross_entropy"] == pytest.approx(np.mean(list(losses.values())))
    assert metrics["spread"]["cross_entropy"] == pytest.approx(np.std(list(losses.values()), ddof=1))
    assert "the best of 2 seeds is " in told
    assert f"on average {metrics['mean']['accuracy']:.4f}, spread " in told
    weights = json.loads((tmp_path / "runs" / "12345" / "run.json").read_text())["task"]["class_weights"]
    counts = metrics["data"]["train"]["counts"]
    np.testing.assert_allclose(weights, [200 / 2 / count for count in counts])


@pytest.mark.long
def test_rates_are_tried_and_layers_treated_apart(data, tmp_path):
    more = ("--search", "--layer-decay", 0.9, "--head-rate", 2, "--reinit", 1, "--long", "windows", "--pooling", "mean")
    train = write(tmp_path / "train.tsv", [(f"{text} {'no ' * 20}", label) for text, label in rows(40, 0)])
    files = ("--train", train, "--dev", train, "--output", tmp_path, "--model", data / "checkpoint")
    told = run("finetune", "--task", "classification", *files, "--epochs", 1, "--max-seq-length", 16, *more).stdout
    assert "new: classifier, layer_0; unused: pooler" in told
    assert "train: 40 rows, 100.0% longer than 16 tokens: 80 windows" in told
    assert "of the learning rates 0.00015, 0.0003, 0.0006, 0.0012 the best with the first seed is taken" in told
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert list(metrics["search"]) == ["0.00015", "0.0003", "0.0006", "0.0012"]
    best = max(figures["accuracy"] for figures in metrics["search"].values())
    assert metrics["accuracy"] == best == metrics["search"][f"{metrics['training']['learning_rate']:g}"]["accuracy"]
    assert metrics["training"]["layer_decay"] == 0.9
    task = checkpoints.read_task(tmp_path / "model")
    assert (task.long, task.pooling) == ("windows", "mean")
    found = json.loads(run("evaluate", "--model", tmp_path / "model", "--data", train, "--json").stdout)
    assert (found["rows"], found["accuracy"]) == (40, metrics["accuracy"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--rank", 4), "--rank is that of --tune lora: leave it out. Received: 4"),
        (("--tune", "lora", "--rank", 17), r"--rank must be from 1 to the model's hidden size \(16\). Received: 17"),
        (("--tune", "lora", "--reinit", 1), "--reinit begins layers anew, which --tune lora would leave as they are"),
        (("--freeze", 1, "--reinit", 1), "layers that begin anew must not be frozen: reinit must be at most 0"),
    ],
)
def test_options_that_contradict(data, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        finetune(data, tmp_path, *options)


@pytest.fixture(scope="module")
def teacher(data, tmp_path_factory):
    """Two layers, tuned."""
    folder = tmp_path_factory.mktemp("teacher")
    keras.utils.set_random_seed(0)
    settings = EncoderSettings(
        len(small_model.VOCAB), 16, 2, 2, 32, max_positions=48, initializer_range=0.1, dropout=0.0
    )
    checkpoints.save(BertEncoder(settings, ()), folder / "start", small_model.write_vocab(folder), True)
    finetune(data, folder / "tuned", model=folder / "start")
    return folder / "tuned" / "model"


@pytest.mark.long
def test_a_student_is_taught_also_of_what_has_no_label(data, teacher, tmp_path, monkeypatch):
    monkeypatch.setattr(speed, "SECONDS", 0.01)
    labelled = [*rows(40, 0)]
    train = write(tmp_path / "train.tsv", [*labelled, *((text, "") for text, _ in rows(160, 3))])
    told = finetune(data, tmp_path, "--teacher", teacher, "--layers", "1", model=teacher, train=train)
    for words in (
        f"taught by {teacher}: 2 layers; the same runs follow without it",
        f"train: 160 rows have no label and are learned from the teacher alone: {train}:41; {train}:42; {train}:43",
        "2 x 150 updates",
        "the teacher answers the 200 examples of train once",
        "the teacher: accuracy ",
        "seed 12345 without the teacher: accuracy ",
    ):
        assert words in told
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert (metrics["layers"], metrics["teacher"]["layers"]) == (1, 2)
    assert checkpoints.load(tmp_path / "model").settings.num_layers == 1
    of_teacher = json.loads((teacher.parent / "metrics.json").read_text())
    assert metrics["teacher"]["accuracy"] == of_teacher["accuracy"]
    assert metrics["untaught"]["12345"].keys() == metrics["seeds"]["12345"].keys()
    described = [json.loads((tmp_path / "runs" / run / "run.json").read_text())["task"] for run in
                 ("12345", "untaught/12345")]  # fmt: skip
    assert described[0].items() > described[1].items()
    report = (tmp_path / "report.md").read_text()
    weights, rate = (metrics["teacher"][name] for name in ("weights", "rows_per_second"))
    assert f"| teacher, `{teacher}` | 2 | {weights:,} | {weights * 4e-6:,.1f} | {rate:,.0f} |" in report
    size = f"1 | {metrics['cost']['weights']:,} | "
    for title in ("student", "the student without its teacher, as many updates"):
        assert f"| {title} | {size}" in report
    assert metrics["rows_per_second"] > 0
    history = (tmp_path / "runs" / "12345" / "history.jsonl").read_text().splitlines()
    divergences = [row["divergence"] for row in map(json.loads, history) if row["kind"] == "training"]
    assert 0 < divergences[-1] < divergences[0]
    again = finetune(data, tmp_path, "--teacher", teacher, "--layers", "1", model=teacher, train=train)
    assert again.splitlines()[-1] == told.splitlines()[-1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--soft", 0.5), "--soft is that of --teacher: leave it out"),
        (("--layers", "2"), "there must be from 1 to 1 layers, the checkpoint's. Received: 2"),
        (("--layers", "0,3"), "layers must be of the checkpoint's, 0 to 0"),
        (("--teacher", "CHECKPOINT"), "a teacher must be fine-tuned for the same task. Received: an encoder without a"),
        (("--teacher", "TEACHER", "--labels", "wet,dry"), "the student must have its teacher's labels, in this order,"),
        (
            ("--teacher", "TEACHER", "--pooling", "mean"),
            "the student must have its teacher's pooling cls. Received: 'mean'",
        ),
        (("--teacher", "TEACHER", "--temperature", 0), "temperature must be positive"),
    ],
)
def test_a_teacher_that_does_not_fit(data, teacher, tmp_path, options, message):
    places = {"CHECKPOINT": data / "checkpoint", "TEACHER": teacher}
    with pytest.raises(InputError, match=message):
        finetune(data, tmp_path, *(places.get(option, option) for option in options))


def test_one_class_alone_is_an_alarm(data, tmp_path):
    told = finetune(data, tmp_path, "--learning-rate", "1e-9", "--epochs", "0.1")
    assert "ALARM: the model says '" in told


@pytest.mark.long
def test_a_classifier_of_other_labels_begins_anew(data, tuned, tmp_path):
    output, _ = tuned
    renamed = write(tmp_path / "train.tsv", [(text, {"wet": "damp"}.get(label, label)) for text, label in rows(200, 0)])
    told = finetune(data, tmp_path / "other", "--epochs", "0.1", model=output / "model", train=renamed)
    assert "new: classifier" in told
    told = finetune(data, tmp_path / "same", "--epochs", "0.1", model=output / "model")
    assert "new: nothing" in told
    assert "ALARM" not in told  # it goes on from what it had learned


@pytest.fixture(scope="module")
def served(tuned, tmp_path_factory):
    """An export of few signatures, whose golden requests are answered in this process."""
    base, patch = tmp_path_factory.mktemp("served"), pytest.MonkeyPatch()
    few = functools.partial(exporting.export_version, signatures=(TOKENIZE, *CLASSIFIERS))
    patch.setattr(exporting, "export_version", few)
    patch.setattr(exporting, "_answer_elsewhere", lambda folder: golden.answer(str(folder)))
    result = run("export", "--model", tuned[0] / "model", "--output", base)
    patch.undo()
    assert result.exit_code == 0
    assert "left out classify_pair: the classifier judges single texts" in result.output
    return base / "bert"


def test_the_export_answers_as_training_saw_it(data, tuned, served):
    output, _ = tuned
    report = json.loads((served / "1" / exporting.REPORT).read_text())
    assert report["task"]["labels"] == ["dry", "wet"]
    metrics = json.loads((output / "metrics.json").read_text())
    for model in (served, served / "1", output / "model"):
        found = json.loads(run("evaluate", "--model", model, "--data", data / "dev.tsv", "--json").stdout)
        for name in ("rows", "accuracy", "macro_f1", "matthews", "f1", "majority_accuracy"):
            assert found[name] == pytest.approx(metrics[name])
        assert (found["unknown"], found["set_aside"]) == (2, 1)
    answers = [json.loads(line) for line in (output / "predictions.jsonl").read_text().splitlines()]
    ask = functools.partial(run, "predict", "--model", served, "--signature", "classify")
    asked = json.loads(ask("--json", *(text for text, _ in rows(40, 1))).stdout)
    assert asked["label"] == [answer["answer"] for answer in answers[:40]]
    assert np.max(asked["probabilities"], 1) == pytest.approx([a["probability"] for a in answers[:40]], abs=1e-5)
    assert asked["labels"][0] == ["dry", "wet"]
    lines = ask("the river").stdout.splitlines()
    assert lines[0] == "the river"
    assert [line.split()[0] for line in lines[1:]] == ["wet", "dry"]
    assert lines[1].split()[1].endswith("%")


def test_figures_are_those_of_scikit_learn(data, tuned, tmp_path):
    table = write(tmp_path / "test.tsv", [*rows(50, 2), *((text, "wet") for text, _ in rows(20, 3))])
    result = run("evaluate", "--model", tuned[0] / "model", "--data", table, "--json")
    found = json.loads(result.stdout)
    gold = [line.split("\t")[1] for line in table.read_text().splitlines()]
    texts = [line.split("\t")[0] for line in table.read_text().splitlines()]
    said = ["wet" if "river" in text else "dry" for text in texts]
    assert found["accuracy"] == pytest.approx(sklearn.metrics.accuracy_score(gold, said))
    assert found["macro_f1"] == pytest.approx(sklearn.metrics.f1_score(gold, said, average="macro"))
    assert found["matthews"] == pytest.approx(sklearn.metrics.matthews_corrcoef(gold, said))
    each = sklearn.metrics.f1_score(gold, said, labels=["dry", "wet"], average=None)
    assert list(found["f1"].values()) == pytest.approx(each.tolist())
    people = run("evaluate", "--model", tuned[0] / "model", "--data", table).stdout
    assert f"accuracy             {found['accuracy']:.4f}" in people


def test_pairs_from_table_to_answer(data, tmp_path):
    train = write(tmp_path / "train.tsv", [(text, "it is here", label) for text, label in rows(60, 0)])
    pair = ("--text", "1", "--second", "2", "--label", "3", "--long", "head-tail", "--epochs", "1")
    files = ("--train", train, "--dev", train, "--output", tmp_path / "out", *FAST)
    assert run("finetune", "--task", "classification", "--model", data / "checkpoint", *files, *pair).exit_code == 0
    model = tmp_path / "out" / "model"
    assert checkpoints.read_task(model).pair is True
    found = json.loads(run("evaluate", "--model", model, "--data", train, *pair[:6], "--json").stdout)
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert found["accuracy"] == pytest.approx(metrics["accuracy"])
    with pytest.raises(InputError, match="the classifier judges pairs"):
        run("evaluate", "--model", model, "--data", train, "--text", "1", "--label", "3")


def test_a_hugging_face_classifier_answers_with_its_labels(data, tmp_path):
    checkpoints.save_huggingface(
        small_model.encoder((CLASSIFIER.with_labels(2),), 1), tmp_path, small_model.write_vocab(tmp_path), True
    )
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"id2label": {"0": "wet", "1": "dry"}}))
    found = json.loads(run("evaluate", "--model", tmp_path, "--data", data / "dev.tsv", "--json").stdout)
    assert list(found["f1"]) == ["wet", "dry"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", "0"], "epochs must be positive"),
        (["--batch-size", "0"], "batch_size must be positive"),
        (["--max-seq-length", "64"], r"max_seq_length must not exceed the model's positions \(48\). Received: 64"),
        (["--freeze", "2"], "freeze must be a number of the model's layers, 0 to 1. Received: 2"),
        (["--search"], "--search finds the learning rate: leave out"),
        (["--max-seq-length", "4"], "max_seq_length must be at least 8"),
        (["--model", "/none"], "/none: no such checkpoint"),
        (["--train", "/none.tsv"], "/none.tsv: no such table"),
        (["--labels", "wet"], "train.tsv:.*a label must be one of those declared"),
        (["--labels", "wet,wet"], "--labels must be texts that differ"),
        (["--class-weights", "none"], "class weights must be balanced or a file"),
        (["--label", "3"], "no column '3' for the label"),
        (["--dev", "DEV"], "dev must have rows with labels of train"),
    ],
)
def test_bad_input(data, tmp_path, arguments, message):
    other = write(tmp_path / "dev.tsv", [("the river", "odd")])
    with pytest.raises(InputError, match=message):
        finetune(data, tmp_path / "run", *(str(other) if value == "DEV" else value for value in arguments))
    assert not (tmp_path / "run" / "runs").exists()


def test_class_weights_of_a_file(data, tmp_path):
    path = write(tmp_path / "weights.tsv", [("wet", "2"), ("dry", "heavy")])
    with pytest.raises(InputError, match=r"weights.tsv:2: a line must be `label TAB weight`. Received: 'dry\\theavy'"):
        finetune(data, tmp_path / "run", "--class-weights", str(path))
    write(path, [("wet", "2"), ("damp", "1")])
    with pytest.raises(InputError, match=r"weights.tsv:2: a weight must be of one of the labels. Received: 'damp'"):
        finetune(data, tmp_path / "run", "--class-weights", str(path))
    write(path, [("wet", "2")])
    with pytest.raises(InputError, match=r"weights.tsv: each label needs a weight. Received: \['dry'\]"):
        finetune(data, tmp_path / "run", "--class-weights", str(path))


def test_a_file_of_labels_that_is_no_text(data, tmp_path):
    path = tmp_path / "labels.txt"
    path.write_bytes(b"wet\xff\n")
    for option in ("--labels", "--class-weights"):
        with pytest.raises(InputError, match=r"labels.txt: cannot be read as UTF-8 text"):
            finetune(data, tmp_path / "run", option, path)


def test_labels_go_with_a_converted_model(tuned, tmp_path):
    assert (
        run("convert", "--input", tuned[0] / "model", "--output", tmp_path / "hf", "--to", "huggingface").exit_code == 0
    )
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert config["id2label"] == {"0": "dry", "1": "wet"}
    assert config["architectures"] == ["BertForSequenceClassification"]
    assert checkpoints.read_task(tmp_path / "hf") == checkpoints.read_task(tuned[0] / "model")


def test_labels_of_another_model(data, tuned, tmp_path):
    shutil.copytree(tuned[0] / "model", tmp_path / "model")
    checkpoints.write_task(tmp_path / "model", ClassificationSettings(("a", "b", "c")))
    with pytest.raises(InputError, match=r"the labels must be as many as those of the classifier \(2\).*Received: 3"):
        run("evaluate", "--model", tmp_path / "model", "--data", data / "dev.tsv")


def test_evaluate_of_what_is_no_classifier(data, tmp_path):
    with pytest.raises(InputError, match="the checkpoint has no classifier"):
        run("evaluate", "--model", data / "checkpoint", "--data", data / "dev.tsv")
    with pytest.raises(InputError, match="no such checkpoint"):
        run("evaluate", "--model", pathlib.Path("/none"), "--data", data / "dev.tsv")
