"""Training with a task that is none of the project's: labels of its own, a figure of which more is better."""

import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf

from model import training
from model.settings import TrainingSettings
from model.tasks.task import Curve
from model.training.optimizer import Optimizer
from model.training.state import State
from model.training.step import EXTRA, TrainingStep
from preprocessing import features
from preprocessing.errors import InputError
from tests.model import small_examples

LABEL = "halves_are_alike"
SETTINGS = TrainingSettings(
    steps=80,
    batch_size=16,
    accumulate=2,
    buckets=(8, 14),
    learning_rate=1e-2,
    bias_correction=True,
    evaluate_every=20,
    report_every=20,
)


@dataclasses.dataclass(frozen=True)
class Alike:
    """Whether both halves repeat one token, from the pooled output; rows are weighted."""

    smoothing: float = 0.0

    heads = ("next_sentence",)
    spec = features.Spec(
        features.SEQUENCE
        | {
            LABEL: features.Feature(1, "a label must be 0 or 1", below=2),
            "weight": features.Feature(1, "a weight must be a number", stored="float32"),
        },
        "the tests",
    )
    sum_names = ("nll", "right", "weight")
    watched, lower_is_better = "accuracy", False
    curves = (Curve("Accuracy", "accuracy", "commonest", "commonest label"),)

    @property
    def description(self):
        return {"kind": "alike", "smoothing": self.smoothing}

    def check(self, settings, examples, transform):
        if not examples.sums["weight"]:
            raise InputError("no weights")

    def totals(self, batch):
        return {"weight": tf.reduce_sum(batch["weight"] * tf.cast(batch[features.INPUT_MASK][:, :1], tf.float32))}

    def sums(self, encoder, batch, **options):
        logits = encoder.next_sentence(encoder(batch, **options)["pooled_output"])
        labels, weights = batch[LABEL][:, 0], batch["weight"][:, 0]
        nll = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        right = tf.cast(tf.argmax(logits, -1, tf.int32) == labels, tf.float32)
        sums = {"nll": tf.reduce_sum(weights * nll), "right": tf.reduce_sum(weights * right)}
        return sums | self.totals(batch)

    def loss(self, sums, totals):
        return sums["nll"] / totals["weight"]

    def held_out(self, encoder, batch):
        of_label = tf.math.unsorted_segment_sum(batch["weight"][:, 0], batch[LABEL][:, 0], 2)
        return self.sums(encoder, batch) | {"of_label": of_label}

    def figures(self, sums):
        figures = {"accuracy": float(sums["right"] / sums["weight"])}
        return (
            figures | {"commonest": float(max(sums["of_label"]) / sum(sums["of_label"]))}
            if "of_label" in sums
            else figures
        )

    def samples(self, encoder, batch, tokens):
        return {"rows": f"{len(tokens)} tokens, {batch[features.INPUT_IDS].shape[0]} rows"}


def write(path, count, seed):
    pairs = small_examples.examples(count, seed)
    arrays = {name: pairs[name] for name in features.SEQUENCE_FEATURES}
    arrays[features.INPUT_IDS][:, 1] = pairs[features.INPUT_IDS][:, 2] = 5  # what was masked is of no use here
    arrays[features.INPUT_MASK][::2, 14:] = 0
    weight = np.ones((count, 1), np.float32)
    return small_examples.write(path, arrays | {LABEL: 1 - pairs[features.NEXT_SENTENCE_LABELS], "weight": weight})


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alike")
    return {
        "train_files": [write(folder / "train.tfrecord", 300, 0)],
        "eval_files": [write(folder / "eval.tfrecord", 50, 1)],
        "vocab_path": small_examples.write_vocabulary(folder / "vocab.txt"),
    }


def train(options, output, task):
    return training.train(small_examples.encoder_settings(), SETTINGS, task=task, output=str(output), **options)


def test_it_is_trained_watched_and_shown(options, tmp_path):
    result = train(options, tmp_path, Alike())
    assert result.encoder.heads == ("next_sentence",)
    assert set(result.metrics) == {"accuracy", "commonest"}
    history = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in history if row["kind"] == "training"]
    assert losses[-1] < losses[0]
    assert {"accuracy", "learning_rate", "tokens_per_second"} <= set(history[0])
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert b"40 tokens, 4 rows" in b"".join(path.read_bytes() for path in (tmp_path / "logs").iterdir())
    held_out = [row["accuracy"] for row in history if row["kind"] == "held_out"]
    stored = tf.train.load_checkpoint(str(tmp_path / "checkpoints")).get_tensor("best_loss/.ATTRIBUTES/VARIABLE_VALUE")
    assert float(stored) in [pytest.approx(-value) for value in (max(held_out), max(held_out[:-1]))]
    with pytest.raises(InputError, match=r"task\.smoothing was 0\.0, now 0\.1"):
        train(options, tmp_path, Alike(smoothing=0.1))


def test_the_best_is_the_greatest_where_more_is_better(tmp_path):
    encoder = small_examples.encoder()
    state = State(str(tmp_path), encoder, Optimizer(SETTINGS, encoder.trainable_variables, 2), 1)
    assert [state.is_best(value, lower_is_better=False) for value in (0.5, 0.4, float("nan"), 0.6)] == [1, 0, 0, 1]
    state.best_loss.assign(np.inf)
    assert [state.is_best(value, lower_is_better=True) for value in (0.5, 0.4, float("nan"), 0.6)] == [1, 1, 0, 0]


def test_what_a_task_refuses_is_refused_before_training(options, tmp_path):
    arrays = {name: small_examples.examples(8)[name] for name in features.SEQUENCE_FEATURES}
    arrays |= {LABEL: np.ones((8, 1), int), "weight": np.zeros((8, 1), np.float32)}
    path = small_examples.write(tmp_path / "a.tfrecord", arrays)
    with pytest.raises(InputError, match="no weights"):
        train(options | {"train_files": [path]}, tmp_path / "run", Alike())
    assert not list((tmp_path / "run").glob("*"))  # it holds the folder while it looks, and leaves nothing


def test_sums_that_are_named_like_those_of_training():
    class Named(Alike):
        sum_names = ("nll", EXTRA[0])

    encoder = small_examples.encoder()
    with pytest.raises(InputError, match="each sum must have a name of its own"):
        TrainingStep(SETTINGS, Named(), encoder, Optimizer(SETTINGS, encoder.trainable_variables, 2), 1)
