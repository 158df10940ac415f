"""What a run asks again and again of its held-out examples."""

import pytest

from model.encoder import BertEncoder
from model.tasks.pretraining import Pretraining
from model.training.evaluation import Evaluation
from preprocessing import batches, features
from tests.model import small_examples


def test_batches_are_built_once_for_as_many_as_are_asked(tmp_path, monkeypatch):
    path = small_examples.write(tmp_path / "a.tfrecord", small_examples.examples(40))
    examples = batches.open_examples([path], features.MASKED_PAIRS)
    encoder, tokens = BertEncoder(small_examples.encoder_settings()), ["t"] * small_examples.VOCAB
    expected = {limit: Evaluation(Pretraining(), encoder, examples, 8)(limit) for limit in (16, None)}
    assert expected[16] != pytest.approx(expected[None])
    built, build = [], batches.Examples.batches
    monkeypatch.setattr(batches.Examples, "batches", lambda *given, **more: built.append(1) or build(*given, **more))
    evaluation = Evaluation(Pretraining(), encoder, examples, 8)
    for limit in (16, 16, None, None, 16):
        assert evaluation(limit) == pytest.approx(expected[limit])
    assert len(built) == 3
    assert evaluation.samples(tokens) == evaluation.samples(tokens)
    assert len(built) == 4
