import numpy as np
import pytest
import sklearn.metrics
import sklearn.utils.class_weight
import tensorflow as tf

from model.encoder import BertEncoder
from model.tasks import classification
from model.tasks.classification import Classification, pooled_logits
from preprocessing import features
from preprocessing.errors import InputError
from tests.model import small_examples

TASK = Classification(3)
ENCODER = BertEncoder(small_examples.encoder_settings(), TASK.heads)


def batch(labels, seed=0):
    found = small_examples.batch(len(labels), seed)
    return {name: found[name] for name in features.SEQUENCE_FEATURES} | {
        features.LABEL_IDS: tf.constant(np.reshape(labels, (-1, 1)), tf.int32)
    }


def filled(found, rows):
    return {name: tf.pad(value, [[0, rows], [0, 0]]) for name, value in found.items()}


def total(parts):
    sums = {}
    for part in parts:
        for name, value in part.items():
            sums[name] = sums.get(name, 0) + value.numpy().astype(float)
    return sums


def test_the_loss_is_the_mean_cross_entropy_of_labelled_rows():
    found = batch([0, 2, 1, 3])  # the last has none of the labels
    logits = pooled_logits(ENCODER, found).numpy().astype(float)
    nll = np.log(np.exp(logits).sum(1)) - logits[np.arange(4), [0, 2, 1, 0]]
    sums = TASK.sums(ENCODER, found)
    assert float(TASK.loss(sums, TASK.totals(found))) == pytest.approx(nll[:3].mean(), rel=1e-5)
    assert float(sums["rows"]) == 3
    weighted = Classification(3, (1.0, 2.0, 0.5))
    sums = weighted.sums(ENCODER, found)
    expected = (nll[:3] * [1, 0.5, 2]).sum() / 3.5
    assert float(weighted.loss(sums, weighted.totals(found))) == pytest.approx(expected, rel=1e-5)
    assert weighted.figures({name: float(value) for name, value in sums.items()})["cross_entropy"] == pytest.approx(
        expected, rel=1e-5
    )


def test_a_row_that_fills_the_batch_counts_nowhere():
    found = batch([0, 2, 1, 3])
    for compute in (TASK.sums, TASK.held_out):
        for name, value in compute(ENCODER, filled(found, 3)).items():
            np.testing.assert_allclose(value, compute(ENCODER, found)[name], rtol=1e-5, err_msg=name)


def test_dropout_is_a_function_of_the_seed():
    found, seed = batch([0, 1, 2, 1]), tf.constant([1, 2])
    first, again, other = (
        pooled_logits(ENCODER, found, training=True, seed=s).numpy() for s in (seed, seed, tf.constant([1, 3]))
    )
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-4
    # Its own, before the head: the pooled output has zeros.
    only_head = BertEncoder(small_examples.encoder_settings(attention_dropout=0.0, dropout=0.5), TASK.heads)
    only_head.classifier.kernel.assign(np.eye(3, 16))
    assert (pooled_logits(only_head, found, training=True, seed=seed).numpy() == 0).any()


def test_the_last_layer_at_the_first_token_is_enough():
    found = batch([0, 1, 2])
    expected = ENCODER.classifier(ENCODER(found)["pooled_output"])
    np.testing.assert_allclose(pooled_logits(ENCODER, found), expected, atol=1e-6)


@pytest.mark.parametrize("unknown", [0.0, 0.1])
def test_figures_are_those_of_scikit_learn(unknown):
    random = np.random.default_rng(1)
    gold, said = random.integers(0, 4, 500), random.integers(0, 4, 500)
    said = np.where(random.random(500) < 0.5, gold, said)
    gold = np.where(random.random(500) < unknown, 5, gold)  # label 4 is never seen nor said
    said = np.where(said == 5, 0, said)
    confusion = np.zeros((6, 5))
    np.add.at(confusion, (gold, said), 1)
    found = classification.scores(confusion)
    assert found["accuracy"] == pytest.approx(sklearn.metrics.accuracy_score(gold, said))
    each = sklearn.metrics.f1_score(gold, said, labels=range(5), average=None, zero_division=0)
    np.testing.assert_allclose(classification.f1(confusion), each)
    assert found["macro_f1"] == pytest.approx(each.mean())
    assert found["matthews"] == pytest.approx(sklearn.metrics.matthews_corrcoef(gold, said))
    assert found["majority_accuracy"] == pytest.approx(np.bincount(gold)[:5].max() / 500)


def test_figures_without_variance_and_without_rows():
    assert classification.scores(np.array([[5.0, 0], [3, 0], [0, 0]]))["matthews"] == 0
    assert all(np.isnan(value) for value in classification.scores(np.zeros((3, 2))).values())
    assert all(np.isnan(value) for value in TASK.figures(dict.fromkeys(TASK.sum_names, 0.0)).values())


def test_held_out_batches_add_up():
    parts = [batch([0, 2, 1, 3]), filled(batch([1, 1], 1), 2)]
    sums = total(TASK.held_out(ENCODER, part) for part in parts)
    figures = TASK.figures(sums)
    gold = [0, 2, 1, 3, 1, 1]
    said = np.concatenate([pooled_logits(ENCODER, part).numpy().argmax(1) for part in parts])[:6]
    assert figures["accuracy"] == pytest.approx(np.mean(gold == said))
    assert figures["majority_accuracy"] == pytest.approx(3 / 6)
    assert set(figures) == {"cross_entropy", "accuracy", "macro_f1", "matthews", "majority_accuracy"}


def test_balanced_weights_are_those_of_scikit_learn():
    labels = np.repeat([0, 1, 3], [10, 30, 5])
    expected = sklearn.utils.class_weight.compute_class_weight("balanced", classes=np.array([0, 1, 3]), y=labels)
    np.testing.assert_allclose(classification.balanced(np.bincount(labels)), np.insert(expected, 2, 1.0))


def test_samples_are_a_table():
    tokens = [f"t{number}" for number in range(small_examples.VOCAB)]
    lines = TASK.samples(ENCODER, batch([0, 1]), tokens)["answers"].splitlines()
    assert len(lines) == 4
    assert lines[2].startswith("| 0 | ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": 1}, "at least two labels. Received: 1"),
        ({"labels": 2, "watched": "f2"}, "watched must be accuracy"),
        ({"labels": 2, "class_weights": (1.0,)}, "a class weight, .* for each of the 2 labels"),
        ({"labels": 2, "class_weights": (1.0, 0.0)}, "a finite number above 0"),
    ],
)
def test_settings_are_checked(options, message):
    with pytest.raises(InputError, match=message):
        Classification(**options)
