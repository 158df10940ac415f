import keras
import numpy as np
import pytest
import scipy.special
import tensorflow as tf

from model.encoder import BertEncoder
from model.tasks.classification import Classification
from model.tasks.taught import Taught
from preprocessing import features
from preprocessing.errors import InputError
from tests.model import small_examples


def encoder(seed):
    keras.utils.set_random_seed(seed)
    return BertEncoder(small_examples.encoder_settings(initializer_range=0.5), TASK.heads)


TASK = Classification(3)


def test_the_loss_is_of_soft_answers_and_of_labels_where_there_are_any():
    teacher, student = encoder(0), encoder(1)
    found = small_examples.batch(4, 0)
    found = {name: found[name] for name in features.SEQUENCE_FEATURES}
    found[features.LABEL_IDS] = tf.constant([[0], [2], [3], [1]], tf.int32)  # the third has none
    theirs, ours = (TASK.logits(of, found).numpy().astype(float) for of in (teacher, student))
    for temperature, soft in ((2.0, 0.25), (1.0, 1.0), (3.0, 0.0)):
        task = Taught(TASK, teacher, temperature, soft)
        softened = [scipy.special.log_softmax(logits / temperature, -1) for logits in (theirs, ours)]
        divergence = (np.exp(softened[0]) * (softened[0] - softened[1])).sum(-1).mean()
        nll = -scipy.special.log_softmax(ours, -1)[[0, 1, 3], [0, 2, 1]].mean()
        sums = task.sums(student, found)
        expected = soft * temperature**2 * divergence + (1 - soft) * nll
        assert float(task.loss(sums, task.totals(found))) == pytest.approx(expected, rel=1e-4)
        figures = task.figures({name: float(value) for name, value in sums.items()})
        assert figures["divergence"] == pytest.approx(divergence, rel=1e-4)
        assert figures["cross_entropy"] == pytest.approx(nll, rel=1e-4)


def test_no_gradient_reaches_the_teacher():
    teacher, student = encoder(0), encoder(1)
    found = small_examples.batch(4, 0)
    found = {name: found[name] for name in features.SEQUENCE_FEATURES} | {
        features.LABEL_IDS: tf.constant([[0], [2], [3], [1]], tf.int32)
    }
    task = Taught(TASK, teacher)
    with tf.GradientTape(persistent=True) as tape:
        loss = task.loss(task.sums(student, found), task.totals(found))
    assert all(gradient is None for gradient in tape.gradient(loss, teacher.trainable_variables))
    assert any(gradient is not None for gradient in tape.gradient(loss, student.trainable_variables))


def test_another_teacher_is_another_task():
    descriptions = [Taught(TASK, encoder(seed)).description for seed in (0, 0, 1)]
    assert descriptions[0] == descriptions[1] != descriptions[2]
    assert descriptions[0]["kind"] == "classification"


@pytest.mark.parametrize("wrong", [{"temperature": 0.0}, {"soft": 1.5}, {"soft": -0.1}])
def test_bad_weights_are_refused(wrong):
    (name,) = wrong
    with pytest.raises(InputError, match=f"{name} must be"):
        Taught(TASK, encoder(0), **wrong)
