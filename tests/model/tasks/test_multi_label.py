import numpy as np
import pytest

from model.encoder import BertEncoder
from model.tasks.classification import pooled_logits
from model.tasks.multi_label import MultiLabel, balanced
from preprocessing.errors import InputError
from tests.model import small_examples
from tests.model.tasks.test_every_task import several


def test_a_weight_is_of_a_presence_alone():
    batch, weights = several(4, 0), np.array([1.0, 3.0, 0.5])
    task = MultiLabel(3, tuple(weights.tolist()))
    encoder = BertEncoder(small_examples.encoder_settings(), task.heads)
    logits, there = pooled_logits(encoder, batch).numpy().astype(float), batch["label_ids"]
    nats = there * weights * np.log1p(np.exp(-logits)) + (1 - there) * np.log1p(np.exp(logits))
    assert task.sums(encoder, batch)["nll"].numpy() == pytest.approx(nats.mean(1).sum(), rel=1e-5)
    assert 0 < there.sum() < there.size


def test_balanced_weights_let_presence_count_as_much_as_absence():
    there = [1, 5, 0, 10]
    weights = balanced(10, there)
    assert weights == (9.0, 1.0, 1.0, 1.0)
    assert weights[0] * there[0] == 10 - there[0]


def test_settings_are_checked():
    with pytest.raises(InputError, match=r"a class weight, .* for each of the 3 labels"):
        MultiLabel(3, (1.0, 2.0))
