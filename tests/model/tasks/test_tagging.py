import dataclasses

import numpy as np
import pytest
import sklearn.metrics
import tensorflow as tf

from model.encoder import BertEncoder
from model.tasks import entities
from model.tasks.tagging import Tagging
from preprocessing import features, tags
from preprocessing.errors import InputError
from tests.model import small_examples
from tests.model.tasks.test_classification import filled, total

TAGS = ("B-LOC", "B-PER", "I-LOC", "I-PER", "O")
TASK = Tagging(TAGS)
ENCODER = BertEncoder(small_examples.encoder_settings(), TASK.heads)


def batch(count, seed=0):
    """Of which a third of the tokens begin no word, and one in ten has a tag that is none of them."""
    found, random = small_examples.batch(count, seed), np.random.default_rng(seed)
    shape = found[features.INPUT_IDS].shape
    numbers = random.integers(1, len(TAGS) + 1, shape) * (random.random(shape) < 0.7)
    numbers = np.where((numbers > 0) & (random.random(shape) < 0.1), len(TAGS) + 1, numbers)
    numbers *= found[features.INPUT_MASK].numpy()
    return {name: found[name] for name in features.SEQUENCE_FEATURES} | {
        features.TAG_IDS: tf.constant(numbers, tf.int32)
    }


def said(found):
    """(gold, answer) numbers of the words of each row; gold is that of no tag where it is none."""
    numbers, best = found[features.TAG_IDS].numpy(), TASK.logits(ENCODER, found).numpy().argmax(-1)
    return [(row[row > 0] - 1, answers[row > 0]) for row, answers in zip(numbers, best, strict=True)]


def test_the_loss_is_the_mean_cross_entropy_of_words():
    found = batch(4)
    logits = TASK.logits(ENCODER, found).numpy().astype(float)
    numbers = found[features.TAG_IDS].numpy()
    known = (numbers > 0) & (numbers <= len(TAGS))
    nll = np.log(np.exp(logits).sum(-1)) - np.take_along_axis(logits, np.clip(numbers - 1, 0, 4)[..., None], -1)[..., 0]
    sums = TASK.sums(ENCODER, found)
    assert float(TASK.loss(sums, TASK.totals(found))) == pytest.approx(nll[known].mean(), rel=1e-5)
    assert (numbers > 0).sum() > known.sum() == float(sums["words"]) == float(sums["weight"])
    figures = TASK.figures({name: float(value) for name, value in sums.items()})
    assert figures["cross_entropy"] == pytest.approx(nll[known].mean(), rel=1e-5)
    gold, answers = (np.concatenate(values) for values in zip(*said(found), strict=True))
    assert figures["accuracy"] == pytest.approx((gold == answers)[gold < len(TAGS)].mean())


def test_words_are_weighted_by_their_tag():
    found, weights = batch(4), (1.0, 2.0, 0.5, 4.0, 0.1)
    weighted = dataclasses.replace(TASK, class_weights=weights)
    logits, numbers = TASK.logits(ENCODER, found).numpy(), found[features.TAG_IDS].numpy()
    known = (numbers > 0) & (numbers <= len(TAGS))
    nll = tf.nn.sparse_softmax_cross_entropy_with_logits(numbers[known] - 1, logits[known]).numpy()
    expected = np.average(nll, weights=np.array(weights)[numbers[known] - 1])
    totals = weighted.totals(found)
    assert float(weighted.loss(weighted.sums(ENCODER, found), totals)) == pytest.approx(expected, rel=1e-5)
    held = {name: value.numpy() for name, value in weighted.held_out(ENCODER, found).items()}
    assert weighted.figures(held)["cross_entropy"] == pytest.approx(expected, rel=1e-5)
    with pytest.raises(InputError, match=r"a class weight, .* for each of the 5 labels\. Received: \(1\.0,\)"):
        dataclasses.replace(TASK, class_weights=(1.0,))


def test_dropout_is_a_function_of_the_seed():
    found, seed = batch(4), tf.constant([1, 2])
    first, again, other = (
        TASK.logits(ENCODER, found, training=True, seed=s).numpy() for s in (seed, seed, tf.constant([1, 3]))
    )
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-4
    only_head = BertEncoder(small_examples.encoder_settings(attention_dropout=0.0, dropout=0.5), TASK.heads)
    only_head.tagger.kernel.assign(np.eye(5, 16))
    assert (TASK.logits(only_head, found, training=True, seed=seed).numpy() == 0).any()


def test_figures_of_held_out_words():
    """Entities, counted row by row by the reading of tags as texts, whose rules are tested there."""
    parts = [batch(5), filled(batch(3, 1), 2)]
    figures = TASK.figures(total(TASK.held_out(ENCODER, part) for part in parts))
    names = (*TAGS, "I-(another)")
    rows = [
        ([names[i] for i in gold], [names[i] for i in answers]) for gold, answers in said(parts[0]) + said(parts[1])
    ]
    gold = {(row, *one) for row, (numbers, _) in enumerate(rows) for one in tags.entities(numbers)}
    answers = {(row, *one) for row, (_, numbers) in enumerate(rows) for one in tags.entities(numbers)}
    strict = {(row, *one) for row, (_, numbers) in enumerate(rows) for one in tags.strict(numbers)}
    assert gold & answers
    assert len(strict) < len(answers)
    assert figures["entity_precision"] == pytest.approx(len(gold & answers) / len(answers))
    assert figures["entity_recall"] == pytest.approx(len(gold & answers) / len(gold))
    assert figures["entity_f1"] == pytest.approx(2 * len(gold & answers) / (len(gold) + len(answers)))
    assert figures["entity_f1_strict"] == pytest.approx(2 * len(gold & strict) / (len(gold) + len(strict)))
    of_words = [word for row in rows for word in zip(*row, strict=True)]
    right, told = zip(*of_words, strict=True)
    assert figures["accuracy"] == pytest.approx(sklearn.metrics.accuracy_score(right, told))
    macro = sklearn.metrics.f1_score(right, told, labels=TAGS, average="macro", zero_division=0)
    assert figures["macro_f1"] == pytest.approx(macro)
    assert figures["majority_accuracy"] == max(right.count(tag) for tag in TAGS) / len(right)


@pytest.mark.parametrize("signs", ["BI", "BIES", "BILU"])
def test_entities_in_the_graph_are_those_of_the_texts(signs):
    names = ["O", *(f"{sign}-{kind}" for sign in signs for kind in ("A", "B"))]
    random, found = np.random.default_rng(0), tags.reading(names)
    rows = [random.integers(0, len(names), random.integers(1, 10)) for _ in range(1000)]
    is_first = np.concatenate([np.arange(len(row)) == 0 for row in rows])
    runs = entities.runs(found, tf.constant(np.concatenate(rows), tf.int32), tf.constant(is_first))
    expected, begin = [], 0
    for row in rows:
        expected += [(begin + one.start, begin + one.end, one.type) for one in tags.entities([names[i] for i in row])]
        begin += len(row)
    first = np.flatnonzero(runs.begins)
    got = [(int(i), int(runs.last[i]) + 1, found.types[runs.type[i]]) for i in first]
    assert got == expected


def test_tags_that_mark_no_entities_have_no_such_figures():
    task = Tagging(("NOUN", "VERB", "O", "X", "ADJ"))
    figures = task.figures(total([task.held_out(ENCODER, batch(3))]))
    assert set(figures) == {"cross_entropy", "accuracy", "macro_f1", "majority_accuracy"}
    with pytest.raises(InputError, match="entity_f1 needs tags that mark entities, like B-PER"):
        Tagging(("NOUN", "VERB"), "entity_f1")
    with pytest.raises(InputError, match="at least two tags"):
        Tagging(("NOUN",))


def test_figures_without_entities():
    nothing = TASK.figures(
        TASK.held_out(ENCODER, filled(batch(1), 0) | {features.TAG_IDS: tf.zeros([1, 16], tf.int32)})
    )
    assert nothing["entity_f1"] == nothing["entity_precision"] == 0
    assert np.isnan(nothing["accuracy"])


def test_samples_show_words_with_their_tags():
    tokens = [f"t{number}" if number % 3 else f"##t{number}" for number in range(small_examples.VOCAB)]
    lines = TASK.samples(ENCODER, batch(2), tokens)["answers"].split("\n\n")
    assert len(lines) == 2
    assert all("/" in word for word in lines[0].split())
