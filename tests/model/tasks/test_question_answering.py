from unittest import mock

import keras
import numpy as np
import pytest
import tensorflow as tf

from model.encoder import BertEncoder
from model.tasks.question_answering import QuestionAnswering
from preprocessing import features
from preprocessing.errors import InputError
from tests.model import small_examples

TASK = QuestionAnswering()
keras.utils.set_random_seed(0)
ENCODER = BertEncoder(small_examples.encoder_settings(initializer_range=1.0), TASK.heads)


def batch(*places):
    found = small_examples.batch(len(places))
    starts, ends = (tf.constant([[place] for place in column], tf.int32) for column in zip(*places, strict=True))
    return {name: found[name] for name in features.SEQUENCE_FEATURES} | {
        features.START_POSITIONS: starts,
        features.END_POSITIONS: ends,
    }


def log_softmax(logits):
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def test_the_loss_is_the_mean_of_both_cross_entropies():
    places = [(3, 5), (0, 0), (10, 10)]
    found = batch(*places)
    logits = ENCODER.span(ENCODER(found)["sequence_output"]).numpy().astype(float)
    expected = []
    for row, pair in enumerate(places):
        real = int(found[features.INPUT_MASK][row].numpy().sum())
        expected += [-log_softmax(logits[row, :real, end])[place] for end, place in enumerate(pair)]
    sums = TASK.sums(ENCODER, found)
    assert float(TASK.loss(sums, TASK.totals(found))) == pytest.approx(np.mean(expected), rel=1e-4)
    assert TASK.figures({name: float(value) for name, value in sums.items()})["cross_entropy"] == pytest.approx(
        np.mean(expected), rel=1e-4
    )


def test_figures_of_spans():
    """Of four windows, the model's own span, one whose end is another, one with none, and its own at [CLS]."""
    found = batch(*[(0, 0)] * 4)
    starts, ends = TASK.logits(ENCODER, found).numpy().argmax(1).T
    assert (starts[[0, 1]] > 0).all(), "choose other examples"
    places = [(starts[0], ends[0]), (starts[1], ends[1] + 1), (0, 0), (starts[3], ends[3])]
    found = batch(*places)
    right = [1, 0, float(starts[2] == ends[2] == 0), 1]
    figures = TASK.figures({name: value.numpy() for name, value in TASK.held_out(ENCODER, found).items()})
    has_answer = np.array([start > 0 for start, _ in places])
    assert figures["exact_answers"] == pytest.approx(np.mean(np.array(right)[has_answer]))
    assert figures["no_answer_share"] == pytest.approx(1 - np.mean(has_answer))


def test_exact_is_at_the_best_threshold_of_no_answer():
    """A bias at [CLS] moves all of its scores: the share that any threshold gives stays, that at zero does not."""
    found = batch(*[(0, 0)] * 4)
    logits = TASK.logits(ENCODER, found).numpy()
    starts, ends = (logits[:, 1:].argmax(1) + 1).T
    ahead = (logits[:, 1:].max(1) - logits[:, 0]).sum(1)
    found = batch(*[(starts[row], ends[row]) if row < 2 else (0, 0) for row in range(4)])
    most = max(sum((ahead[row] >= least) == (row < 2) for row in range(4)) for least in [*ahead, np.inf]) / 4
    for far in (-3, 0, 3):
        moved = logits.copy()
        moved[:, 0] += far
        with mock.patch.object(QuestionAnswering, "logits", lambda *_, moved=moved: tf.constant(moved)):
            figures = TASK.figures({name: value.numpy() for name, value in TASK.held_out(ENCODER, found).items()})
        assert figures["exact"] == most


def test_padding_is_no_answer():
    found = batch((1, 1), (2, 2))
    wide = {name: tf.pad(value, [[0, 0], [0, 0 if name.endswith("positions") else 3]]) for name, value in found.items()}
    encoder = BertEncoder(small_examples.encoder_settings(max_positions=19, initializer_range=1.0), TASK.heads)
    encoder.span.bias.assign([1.0, 2.0])
    padding = 1 - found[features.INPUT_MASK].numpy()
    logits = TASK.logits(encoder, wide, training=True).numpy()[:, : padding.shape[1]]
    assert (logits[padding > 0] < -1e8).all()
    for name, value in TASK.sums(encoder, wide, training=False).items():
        np.testing.assert_allclose(value, TASK.sums(encoder, found)[name], rtol=1e-5, err_msg=name)


def test_samples_show_question_answer_and_label():
    found = batch((9, 10), (0, 0))
    shown = TASK.samples(ENCODER, found, [f"t{number}" for number in range(small_examples.VOCAB)])["answers"]
    ids = found[features.INPUT_IDS][0].numpy()
    row = shown.splitlines()[2]
    assert row.startswith("| " + " ".join(f"t{number}" for number in ids[1:8]) + " | ")
    assert row.endswith(f" | t{ids[9]} t{ids[10]} |")


def test_what_is_watched():
    assert not TASK.lower_is_better
    assert QuestionAnswering("cross_entropy").lower_is_better
    with pytest.raises(InputError, match="watched must be exact or cross_entropy"):
        QuestionAnswering("f1")
