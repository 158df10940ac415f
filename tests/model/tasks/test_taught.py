import keras
import numpy as np
import pytest
import scipy.special
import tensorflow as tf

from model.encoder import BertEncoder
from model.tasks.classification import Classification
from model.tasks.tagging import Tagging
from model.tasks.taught import Answers, Taught
from preprocessing import batches, features
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


TAGS = pytest.param(Tagging(("A", "B", "O")), id="tagging", marks=pytest.mark.long)


@pytest.mark.parametrize("task", [pytest.param(TASK, id="classification"), TAGS])
def test_answers_that_are_kept_are_those_that_are_asked(task, tmp_path):
    """Of each example its own, however its batch is cut; of one that stands twice, once."""
    keras.utils.set_random_seed(0)
    teacher = BertEncoder(small_examples.encoder_settings(initializer_range=0.5), task.heads)
    arrays = {
        name: values for name, values in small_examples.examples(21).items() if name in features.SEQUENCE_FEATURES
    }
    for place, length in enumerate(range(3, 10)):
        arrays[features.INPUT_MASK][place, length:] = 0
    arrays = {
        name: np.concatenate([values * arrays[features.INPUT_MASK], values[-1:]]) for name, values in arrays.items()
    }
    label = next(name for name in task.spec.features if name not in arrays)
    arrays[label] = np.ones_like(arrays[features.INPUT_IDS] if task is not TASK else np.zeros((22, 1), int))
    file = small_examples.write(tmp_path / "a.tfrecord", arrays)
    examples = batches.open_examples([file], task.spec, vocab_size=small_examples.VOCAB)
    answers = Answers.of(task, teacher, examples, (8,), 4)
    assert len(answers.keys) == 21
    asked, kept = Taught(task, teacher), Taught(task, teacher, answers=answers)
    assert asked.description == kept.description
    student = BertEncoder(small_examples.encoder_settings(), task.heads)
    sums = [tf.function(of.sums, autograph=False) for of in (asked, kept)]
    for batch in examples.batches(5, seed=3, buckets=(8, 12)).take(6):
        found = [of(student, batch) for of in sums]
        for name in found[0]:
            np.testing.assert_allclose(found[1][name], found[0][name], rtol=1e-4, err_msg=name)
    with pytest.raises(tf.errors.InvalidArgumentError):
        kept.sums(student, {name: tf.constant(values[:, ::-1] * 1) for name, values in batch.items()})


def test_another_teacher_is_another_task():
    descriptions = [Taught(TASK, encoder(seed)).description for seed in (0, 0, 1)]
    assert descriptions[0] == descriptions[1] != descriptions[2]
    assert descriptions[0]["kind"] == "classification"


@pytest.mark.parametrize("wrong", [{"temperature": 0.0}, {"soft": 1.5}, {"soft": -0.1}])
def test_bad_weights_are_refused(wrong):
    (name,) = wrong
    with pytest.raises(InputError, match=f"{name} must be"):
        Taught(TASK, encoder(0), **wrong)
