import numpy as np
import pytest
import scipy.special
import tensorflow as tf

from model.tasks import relations

LENGTH, REAL = 5, 3


def projections(heads: int, size: int, seed: int) -> list[tf.Tensor]:
    random = np.random.default_rng(seed)
    return [tf.constant(random.normal(size=(2, heads, LENGTH, size)), tf.float32) for _ in range(3)]


def test_it_is_what_the_paper_says():
    """Of a text without padding and one with, from 6 numbers a token in 2 heads to 12 in 4, by 3 relation heads."""
    ours, theirs = projections(2, 3, 0), projections(4, 3, 1)
    found = relations.divergence(ours, theirs, tf.constant([[1] * LENGTH, [1] * REAL + [0] * (LENGTH - REAL)]), 3)
    assert np.isfinite(found).all()
    for text, real in enumerate((LENGTH, REAL)):
        expected = np.zeros(real)
        for pair in zip(ours, theirs, strict=True):
            side_by_side = [np.concatenate(list(values[text, :, :real].numpy()), -1) for values in pair]
            student, teacher = (
                scipy.special.log_softmax(of @ of.transpose(0, 2, 1) / of.shape[-1] ** 0.5, -1)
                for of in (np.stack(np.split(rows, 3, -1)) for rows in side_by_side)
            )
            expected += (np.exp(teacher) * (teacher - student)).sum(-1).mean(0)
        np.testing.assert_allclose(found[text, :real], expected, rtol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_layer_is_not_apart_from_itself(dtype):
    layer = [tf.cast(values, dtype) for values in projections(2, 4, 2)]
    found = relations.divergence(layer, layer, tf.ones([2, LENGTH], tf.int32), 4)
    assert found.dtype == tf.float32
    np.testing.assert_allclose(found, 0, atol=1e-6)
