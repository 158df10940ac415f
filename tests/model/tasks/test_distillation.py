import keras
import numpy as np
import pytest
import scipy.special
import tensorflow as tf

from model.encoder.heads import MASKED_LM
from model.encoder.smaller import Kept, smaller
from model.tasks import relations
from model.tasks.distillation import Distillation
from preprocessing import features
from preprocessing.errors import InputError
from tests.model import small_examples


@pytest.fixture(scope="module")
def teacher():
    keras.utils.set_random_seed(1)
    return small_examples.encoder((MASKED_LM,), num_layers=4)


def test_sums_are_what_the_paper_says(teacher):
    student, batch = smaller(teacher, Kept([1, 3])), small_examples.batch(6)
    task = Distillation(teacher, temperature=3.0, soft=2.0, masked=0.5, cosine=4.0, pooled=3.0, relations=0.25)
    found = {name: float(value) for name, value in task.sums(student, batch).items()}
    weights, labels = batch[features.MASKED_LM_WEIGHTS].numpy(), batch[features.MASKED_LM_IDS].numpy()
    both, positions = (teacher, student), batch[features.MASKED_LM_POSITIONS]
    states = [of(batch)["sequence_output"] for of in both]
    logits = [of.masked_lm(x_BLH, positions).numpy().astype(float) for of, x_BLH in zip(both, states, strict=True)]
    theirs, ours = (scipy.special.log_softmax(values / 3.0, -1) for values in logits)
    assert found["divergence"] == pytest.approx((weights * (np.exp(theirs) * (theirs - ours)).sum(-1)).sum(), rel=1e-4)
    nll = -np.take_along_axis(scipy.special.log_softmax(logits[1], -1), labels[..., None], -1)[..., 0]
    assert found["masked_lm_loss"] == pytest.approx((weights * nll).sum(), rel=1e-4)
    assert found["masked_lm_accuracy"] == (weights * (logits[1].argmax(-1) == labels)).sum()
    a, b = (x.numpy() / np.linalg.norm(x, axis=-1, keepdims=True) for x in states)
    mask = batch[features.INPUT_MASK].numpy()
    assert found["cosine"] == pytest.approx(((a * b).sum(-1) * mask).sum(), rel=1e-4)
    first, second = ((x * mask[..., None]).sum(1) for x in map(np.asarray, states))
    pooled = (first * second).sum(-1) / np.linalg.norm(first, axis=-1) / np.linalg.norm(second, axis=-1)
    assert found["pooled"] == pytest.approx(pooled.sum(), rel=1e-4)
    layers = [of(batch, projections=True)["projections"][-1] for of in (student, teacher)]
    apart = (relations.divergence(*layers, mask, 2).numpy() * mask).sum()
    assert found["relations"] == pytest.approx(apart, rel=1e-4)
    assert (found["predictions"], found["compared"], found["texts"]) == (weights.sum(), mask.sum(), 6)
    loss = (2.0 * 9 * found["divergence"] + 0.5 * found["masked_lm_loss"]) / weights.sum()
    loss += 4.0 * (1 - found["cosine"] / mask.sum()) + 3.0 * (1 - pooled.mean()) + 0.25 * apart / mask.sum()
    sums = task.sums(student, batch)
    assert float(task.loss(sums, task.totals(batch))) == pytest.approx(loss, rel=1e-4)


def test_a_student_that_is_its_teacher_has_nothing_to_learn_but_the_tokens(teacher):
    student, batch = smaller(teacher, Kept(range(4))), small_examples.batch(6)
    task = Distillation(teacher, masked=0.0, pooled=1.0, relations=1.0)
    with tf.GradientTape() as tape:
        loss = task.loss(task.sums(student, batch), task.totals(batch))
    assert float(loss) == pytest.approx(0, abs=1e-5)
    gradients = tape.gradient(loss, [*student.trainable_variables, *teacher.trainable_variables])
    assert all(float(tf.norm(tf.convert_to_tensor(of))) < 1e-4 for of in gradients if of is not None)
    assert not any(of is not None for of in gradients[len(student.trainable_variables) :])
    held_out = {name: value.numpy() for name, value in task.held_out(student, batch).items()}
    figures = task.figures(held_out)
    assert (figures["cosine"], figures["pooled"], figures["relations"]) == pytest.approx((1, 1, 0), abs=1e-5)
    assert figures["masked_lm_loss"] == pytest.approx(figures["teacher_masked_lm_loss"], rel=1e-5)


def test_another_teacher_is_another_task(teacher):
    other = small_examples.encoder((MASKED_LM,), num_layers=4)
    said = [Distillation(of).description["teacher"] for of in (teacher, teacher, other)]
    assert said[0] == said[1] != said[2]


@pytest.mark.parametrize("values", [{"temperature": 0.0}, {"soft": -1.0}, {"cosine": float("nan")}])
def test_settings_are_checked(teacher, values):
    with pytest.raises(InputError, match=f"{next(iter(values))} must be"):
        Distillation(teacher, **values)


def test_a_layer_of_the_teacher_is_chosen(teacher):
    student, batch = smaller(teacher, Kept([0, 1])), small_examples.batch(4)
    found = [Distillation(teacher, relations=1.0, relation_layer=layer).sums(student, batch) for layer in (1, -1)]
    assert float(found[0]["relations"]) == pytest.approx(0, abs=1e-5) != float(found[1]["relations"])


def test_there_is_something_to_learn_at_another_width():
    headless = small_examples.encoder((), num_heads=4)
    task = Distillation(headless, cosine=0.0, relations=1.0, hidden_size=6)
    assert (task.watched, task.lower_is_better) == ("relations", True)
    for values, message in (
        ({}, r"the weight cosine must be 0 for a student of another width .*\(16\).*Received: 1\.0"),
        ({"cosine": 0.0, "pooled": 1.0}, "the weight pooled must be 0"),
        ({"cosine": 0.0}, "the weight relations must be above 0"),
        (
            {"cosine": 0.0, "relations": 1.0, "relation_heads": 4},
            r"relation_heads must divide the widths .*\(6, 16\)\. Received: 4",
        ),
        ({"cosine": 0.0, "relations": 1.0, "relation_layer": 2}, "relation_layer must be one of"),
    ):
        with pytest.raises(InputError, match=message):
            Distillation(headless, **values, hidden_size=6)
