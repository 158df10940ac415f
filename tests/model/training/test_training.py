import dataclasses
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys

import numpy as np
import pytest

from model import checkpoints, training
from model.encoder import BertEncoder
from model.settings import Phase, TrainingSettings
from model.tasks.pretraining import Pretraining
from model.training import devices
from model.training import run as training_run
from model.training.records import read_vocabulary
from model.training.state import claim
from preprocessing import features, storage
from preprocessing.errors import InputError
from tests.data import ROOT
from tests.model import small_examples
from tests.model.tasks import test_every_task

GOLDEN = ROOT / "tests" / "golden" / "training_curve.json"
SETTINGS = TrainingSettings(
    steps=120,
    batch_size=16,
    learning_rate=3e-3,
    steps_per_call=7,
    report_every=20,
    evaluate_every=60,
    checkpoint_every=40,
)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_files(tmp_path_factory.mktemp("examples"))


def write_files(folder):
    return {
        "train_files": [small_examples.write(folder / "train.tfrecord.gz", small_examples.examples(400))],
        "eval_files": [small_examples.write(folder / "eval.tfrecord", small_examples.examples(70, seed=1))],
        "vocab_path": small_examples.write_vocabulary(folder / "vocab.txt"),
    }


def settings(**values):
    return dataclasses.replace(SETTINGS, **values)


def train(files, output, training_settings=SETTINGS, encoder_settings=None, **options):
    return training.train(
        encoder_settings or small_examples.encoder_settings(),
        training_settings,
        output=str(output),
        **({"task": Pretraining(next_sentence=training_settings.next_sentence)} | files | options),
    )


@pytest.fixture(scope="module")
def run(files, tmp_path_factory):
    """One run that several tests look at: (output, result, what was reported)."""
    output, reported = tmp_path_factory.mktemp("run"), []
    result = train(files, output, report=lambda *report: reported.append(report))
    return output, result, reported


def test_it_learns(run):
    found = run[1].metrics
    assert found["masked_lm_loss"] < 0.6 * found["unigram_loss"]
    assert found["masked_lm_accuracy"] > 2 * found["commonest_token_accuracy"]


def curve(reported):
    return [figures["loss"] for _, _, figures in reported]


def test_the_curve_is_the_stored_one(run):
    """A change in numbers must be meant: `python -m tests.golden.make_training_curve`, and look at the difference."""
    stored = json.loads(GOLDEN.read_text())["loss"]
    np.testing.assert_allclose(curve(run[2]), stored, rtol=0.01)


def test_it_reports(run):
    steps = [(step, total) for step, total, _ in run[2]]
    assert steps == [(step, 120) for step in range(20, 121, 20)]
    figures = run[2][-1][2]
    assert {"loss", "masked_lm_accuracy", "next_sentence_accuracy", "learning_rate", "tokens_per_second"} <= set(
        figures
    )
    assert 0 <= figures["input_wait_share"] <= 1


def test_it_leaves_its_records(run):
    output = run[0]
    assert (output / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert list((output / "logs").glob("events*"))
    history = [json.loads(line) for line in (output / "history.jsonl").read_text().splitlines()]
    assert [row["step"] for row in history if row["kind"] == "held_out"] == [60, 120]
    assert b"filled_masks" in b"".join(path.read_bytes() for path in (output / "logs").iterdir())


def test_it_leaves_the_newest_checkpoints_and_the_best(run):
    names = {path.name for path in (run[0] / "checkpoints").rglob("*.index")}
    assert names == {"ckpt-80.index", "ckpt-120.index"}
    best = checkpoints.load(run[0] / "best")
    for weight, expected in zip(best.weights, run[1].encoder.weights, strict=True):
        np.testing.assert_array_equal(weight.numpy(), expected.numpy())


def test_the_model_it_leaves_is_the_result(run):
    loaded = checkpoints.load(run[0] / "model")
    for weight, expected in zip(loaded.weights, run[1].encoder.weights, strict=True):
        np.testing.assert_array_equal(weight.numpy(), expected.numpy())


def test_another_call_does_not_train_again(run, files):
    reported = []
    result = train(files, run[0], report=lambda *report: reported.append(report))
    assert not reported
    assert result.metrics == run[1].metrics
    assert (run[0] / "history.jsonl").read_text().count('"held_out"') == 2


def test_other_settings_in_the_same_folder_are_refused(run, files, tmp_path):
    with pytest.raises(InputError, match=r"training.learning_rate was 0\.003, now 0\.02"):
        train(files, run[0], settings(learning_rate=0.02))
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text(pathlib.Path(files["vocab_path"]).read_text().replace("t39", "t40"))
    others = {"vocab_path": str(vocabulary), "eval_files": [], "lower_case": True, "masking": "ngram"}
    with pytest.raises(InputError, match=r"eval_files was .*lower_case was .*masking was .*vocabulary was"):
        train(files | others, run[0])


def test_a_run_begun_before_these_were_noted_goes_on(tmp_path):
    claim(str(tmp_path), training={"steps": 1})
    claim(str(tmp_path), training={"steps": 1}, masking="ngram")
    with pytest.raises(InputError, match="masking was 'ngram', now 'token'"):
        claim(str(tmp_path), training={"steps": 1}, masking="token")


def test_a_run_described_by_fewer_settings_goes_on(run, files, tmp_path):
    """At any depth: of the training, of the encoder, of a phase."""
    shutil.copytree(run[0], tmp_path / "run")
    path = tmp_path / "run" / "run.json"
    described = json.loads(path.read_text())
    del described["training"]["recompute"], described["encoder"]["initializer_range"], described["lower_case"]
    path.write_text(json.dumps(described))
    assert train(files, tmp_path / "run").metrics == run[1].metrics
    phases = [{"steps": 1, "batch_size": 8}, {"steps": 2, "batch_size": 8}]
    claim(str(tmp_path / "phases"), training={"phases": phases})
    claim(str(tmp_path / "phases"), training={"phases": [phase | {"max_seq_length": 16} for phase in phases]})
    phases[1]["max_seq_length"] = 24
    with pytest.raises(InputError, match=r"training\.phases\[1\]\.max_seq_length was 16, now 24"):
        claim(str(tmp_path / "phases"), training={"phases": phases})


def test_a_setting_that_is_no_more_is_told(run, files, tmp_path):
    shutil.copytree(run[0], tmp_path / "run")
    path = tmp_path / "run" / "run.json"
    described = json.loads(path.read_text())
    described["training"]["rate"] = 0.003
    path.write_text(json.dumps(described))
    with pytest.raises(InputError, match=r"training\.rate was 0\.003, which no run has any more"):
        train(files, tmp_path / "run")


@pytest.mark.parametrize("content", ["[]", "{", "1"])
def test_a_description_that_is_none(tmp_path, content):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(InputError, match=r"run\.json: not a description of a run"):
        claim(str(tmp_path), training={"steps": 1})


@pytest.mark.parametrize("precision", ["bfloat16", pytest.param("float16", marks=pytest.mark.long)])
def test_precisions_learn(files, tmp_path, precision):
    found = train(files, tmp_path, settings(precision=precision)).metrics
    assert found["masked_lm_loss"] < 0.9 * found["unigram_loss"]


@pytest.mark.parametrize(
    ("accumulate", "xla"), [(2, False), *(pytest.param(count, True, marks=pytest.mark.long) for count in (1, 2))]
)
def test_phases_buckets_lamb_and_xla(files, tmp_path, accumulate, xla):
    """What does not change the loop's shape, together: two lengths, buckets, another optimizer, compiled or not."""
    longer = small_examples.write(tmp_path / "longer.tfrecord", small_examples.examples(100, length=24))
    result = train(
        files | {"train_files": [*files["train_files"], longer], "eval_files": []},
        tmp_path / "run",
        settings(
            phases=(Phase(14, 16), Phase(6, 24, batch_size=8)),
            steps=20,
            report_every=10,
            optimizer="lamb",
            xla=xla,
            buckets=(8,),
            accumulate=accumulate,
            layer_decay=0.9,
        ),
        small_examples.encoder_settings(max_positions=24),
    )
    assert result.metrics == {}
    history = [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]
    assert [row["step"] for row in history] == [10, 20]


def test_init_takes_over_weights_and_extends_positions(run, files, tmp_path):
    encoder = BertEncoder(small_examples.encoder_settings(max_positions=40))
    training_run.start_from(encoder, str(run[0] / "model"))
    source = run[1].encoder
    np.testing.assert_array_equal(encoder.embeddings.word.numpy(), source.embeddings.word.numpy())
    positions = source.embeddings.position.numpy()
    np.testing.assert_array_equal(
        encoder.embeddings.position.numpy(), np.concatenate([positions, positions, positions[:8]])
    )
    with pytest.raises(InputError, match="embeddings/word must have the shape"):
        training_run.start_from(BertEncoder(small_examples.encoder_settings(vocab_size=50)), str(run[0] / "model"))


def test_init_from_another_vocabulary_is_refused(run, files, tmp_path):
    """Of the same size, it would train on other words; what a checkpoint left unused may become any word."""
    model, tokens = str(run[0] / "model"), pathlib.Path(files["vocab_path"]).read_text().split()
    other = tmp_path / "vocab.txt"
    other.write_text("\n".join([*tokens[:10], "dog", *tokens[11:]]) + "\n")
    with pytest.raises(InputError, match=r"run's vocabulary.*Received: line 11 is 't10' there, 'dog' here"):
        train(files | {"vocab_path": str(other)}, tmp_path / "run", settings(steps=2), init=model)
    shutil.copytree(model, tmp_path / "model")
    (tmp_path / "model" / "vocab.txt").write_text("\n".join([*tokens[:10], "[unused7]", *tokens[11:]]) + "\n")
    init = str(tmp_path / "model")
    train(files | {"vocab_path": str(other)}, tmp_path / "again", settings(steps=2), init=init)


def test_init_from_another_architecture_is_refused(run):
    other = small_examples.encoder_settings(num_layers=1, num_heads=4, activation="gelu", layer_norm_epsilon=1e-6)
    with pytest.raises(
        InputError,
        match=r"must have the run's num_layers 1, num_heads 4, activation 'gelu', layer_norm_epsilon 1e-06\. "
        r"Received: num_layers 2, num_heads 2, activation 'gelu_tanh', layer_norm_epsilon 1e-12",
    ):
        training_run.start_from(BertEncoder(other), str(run[0] / "model"))


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_loss_that_is_not_finite_ends_the_run_before_it_harms(files, tmp_path, precision):
    """With float16 when its scale cannot be lowered any more."""
    diverging = settings(learning_rate=1e30, clip_norm=0.0, optimizer="sgd", warmup_steps=0, precision=precision)
    with pytest.raises(InputError, match=r"not finite at step \d+ \(batch \d+\).*/before_failure, with which"):
        train(files, tmp_path, diverging)
    for weight in checkpoints.load(tmp_path / "before_failure").weights:
        assert np.isfinite(weight.numpy()).all(), weight.path


class TestBadInput:
    def test_vocabulary_of_another_size(self, files, tmp_path):
        with pytest.raises(
            InputError, match=r"vocab\.txt: the vocabulary must have as many tokens as the model \(50\)"
        ):
            train(files, tmp_path, encoder_settings=small_examples.encoder_settings(vocab_size=50))

    def test_vocabulary_of_another_system(self, tmp_path):
        (tmp_path / "vocab.txt").write_bytes(b"\xef\xbb\xbf[PAD]\r\n[UNK]\r\n\r\n")
        assert read_vocabulary(str(tmp_path / "vocab.txt"), 2) == ["[PAD]", "[UNK]"]

    def test_token_outside_the_vocabulary(self, files, tmp_path):
        small = small_examples.encoder_settings(vocab_size=20)
        with pytest.raises(InputError, match=r"train\.tfrecord\.gz: example \d+: a token id must lie inside"):
            train(files | {"vocab_path": None}, tmp_path, encoder_settings=small)

    def test_examples_longer_than_the_model(self, files, tmp_path):
        with pytest.raises(InputError, match=r"train\.tfrecord\.gz: the examples' length must not exceed"):
            train(files, tmp_path, encoder_settings=small_examples.encoder_settings(max_positions=8))

    def test_a_gpu_that_is_not_there(self, files, tmp_path):
        with pytest.raises(InputError, match="gpus must not exceed those of this machine"):
            train(files, tmp_path, settings(gpus=99))

    def test_unmasked_examples(self, files, tmp_path):
        arrays = small_examples.examples(20)
        arrays[features.MASKED_LM_WEIGHTS][:] = 0
        path = small_examples.write(tmp_path / "a.tfrecord", arrays)
        for part in ("train_files", "eval_files"):
            with pytest.raises(InputError, match=r"a\.tfrecord: .*must have masked tokens to predict"):
                train(files | {part: [path]}, tmp_path / "run")

    def test_a_task_other_than_the_settings_say(self, files, tmp_path):
        with pytest.raises(InputError, match=r"next_sentence must be the training settings' \(True\). Received: False"):
            train(files, tmp_path, task=Pretraining(next_sentence=False))

    def test_a_phase_without_examples(self, files, tmp_path):
        with pytest.raises(
            InputError, match=r"a phase's max_seq_length must be that of examples \(16\). Received: 512"
        ):
            train(files, tmp_path, settings(phases=(Phase(120, 512),)))

    def test_held_out_examples_of_another_length(self, files, tmp_path):
        path = small_examples.write(tmp_path / "a.tfrecord", small_examples.examples(20, length=24))
        with pytest.raises(InputError, match="held-out examples must have the length"):
            train(files | {"eval_files": [path]}, tmp_path / "run")

    def test_output_that_is_a_file(self, files, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(InputError, match="output folder must be writable"):
            train(files, tmp_path / "file" / "run")

    def test_a_folder_where_another_run_is_at_work(self, files, tmp_path):
        with (
            storage.alone(str(tmp_path / ".lock"), "x"),
            pytest.raises(InputError, match="one run at a time may write"),
        ):
            train(files, tmp_path)
        assert not (tmp_path / "run.json").exists()

    @pytest.mark.parametrize("name", ["checkpoints", "logs"])
    def test_a_file_where_a_folder_of_the_run_belongs(self, files, tmp_path, name):
        (tmp_path / name).touch()
        with pytest.raises(InputError, match=f"output folder must be writable.*{name}"):
            train(files, tmp_path)

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"steps": 0}, "steps must be positive"),
            ({"accumulate": 5}, "batch_size must be a multiple of accumulate"),
            ({"warmup_steps": 120}, "warmup_steps must be at least 0 and less than steps"),
            ({"end_learning_rate": 1.0}, "end_learning_rate must be between"),
            ({"schedule_power": 2.0}, "schedule_power needs schedule polynomial"),
            ({"phases": (Phase(10, 16),)}, "phases' steps must add up to steps"),
            ({"precision": "int8"}, "precision must be"),
            ({"buckets": (16, 8)}, "buckets must be positive and ascending"),
            ({"seed": -1}, "seed must be 0 or more"),
        ],
    )
    def test_settings_that_contradict(self, values, message):
        with pytest.raises(InputError, match=message):
            settings(**values)


@pytest.mark.parametrize(
    ("cluster", "task", "chief"),
    [
        ({"worker": ["a:1", "b:1"]}, ("worker", 0), True),
        ({"worker": ["a:1", "b:1"]}, ("worker", 1), False),
        ({"chief": ["a:1"], "worker": ["b:1"]}, ("chief", 0), True),
        ({"chief": ["a:1"], "worker": ["b:1"]}, ("worker", 0), False),
    ],
)
def test_one_worker_is_the_chief(monkeypatch, cluster, task, chief):
    task = dict(zip(("type", "index"), task, strict=True))
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": task}))
    assert devices.is_chief() == chief


@pytest.mark.parametrize("text", ["{", "[]", '{"cluster": {"worker": ["a:1", "b:1"]}}', '{"cluster": 1}'])
def test_a_malformed_tf_config(monkeypatch, text):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(InputError, match="TF_CONFIG must be like"):
        devices.is_chief()


@pytest.mark.long
def test_two_workers_give_the_weights_of_one(tmp_path):
    """Two processes that find each other by TF_CONFIG; the first one writes."""
    ports = []
    for _ in range(2):
        with socket.socket() as free:
            free.bind(("localhost", 0))
            ports.append(f"localhost:{free.getsockname()[1]}")
    call = f"train_few_steps(pathlib.Path({str(tmp_path / 'two')!r}))"
    script = f"import pathlib; from tests.model.tasks import test_every_task; test_every_task.{call}"
    workers = []
    for index in range(2):
        cluster = {"cluster": {"worker": ports}, "task": {"type": "worker", "index": index}}
        with open(tmp_path / f"worker{index}.log", "wb") as log:
            environment = os.environ | {"TF_CONFIG": json.dumps(cluster)}
            workers.append(
                subprocess.Popen([sys.executable, "-c", script], cwd=GOLDEN.parents[2], env=environment, stderr=log)
            )
    test_every_task.train_few_steps(tmp_path / "one")
    try:
        for index, worker in enumerate(workers):
            assert worker.wait(240) == 0, (tmp_path / f"worker{index}.log").read_text()[-3000:]
    finally:
        for worker in workers:
            worker.kill()
    test_every_task.assert_same_few_steps(tmp_path / "one", tmp_path / "two")
