"""The answers of no model, from example files."""

import numpy as np
import pytest

from pipeline.evaluation import unigram
from preprocessing import features
from tests.model import small_examples


@pytest.mark.parametrize("name", ["a.tfrecord", "a.tfrecord.gz"])
def test_the_commonest_tokens_and_the_share_that_follows(tmp_path, name):
    (tmp_path / "examples").mkdir()
    arrays = small_examples.examples(8)
    arrays[features.MASKED_LM_IDS] = np.tile(np.array([[7, 8, 9]]), (8, 1))
    arrays[features.MASKED_LM_IDS][0] = [7, 7, 7]
    arrays[features.MASKED_LM_WEIGHTS] = np.ones((8, 3), np.float32)
    arrays[features.MASKED_LM_WEIGHTS][1:5, 2] = 0
    arrays[features.NEXT_SENTENCE_LABELS] = np.array([[0], [0], [1], [0], [0], [1], [0], [0]])
    small_examples.write(tmp_path / "examples" / name, arrays)
    small_examples.write_vocabulary(tmp_path / "vocab.txt")
    found = unigram.read(str(tmp_path / "examples"), str(tmp_path / "vocab.txt"))
    assert found == {"tokens": [["t7", 10 / 20], ["t8", 7 / 20], ["t9", 3 / 20]], "follows": 6 / 8}


def test_nothing_masked(tmp_path):
    assert unigram.read(str(tmp_path), str(tmp_path / "vocab.txt")) == {}
