"""Parts of the held-out predictions add up to all of them."""

import keras
import pytest

from model.tasks.pretraining import Pretraining
from model.training.evaluation import Evaluation
from pipeline.evaluation import slices
from preprocessing import batches, features
from tests.model import small_examples


def test_parts_add_up(tmp_path):
    keras.utils.set_random_seed(0)
    encoder = small_examples.encoder(dropout=0.0)
    files = {
        f"span {span}": [small_examples.write(tmp_path / f"{span}.gz", small_examples.examples(count, seed=span))]
        for span, count in ((1, 40), (2, 20))
    }
    found = slices.of(encoder, files)
    assert set(found) == {"length", "position", "token frequency", "source"}
    whole = batches.open_examples([path for paths in files.values() for path in paths], features.MASKED_PAIRS)
    figures = Evaluation(Pretraining(), encoder, whole, 60)()
    for parts in found.values():
        total = sum(part["predictions"] for part in parts.values())
        assert total == whole.sums[features.MASKED_LM_WEIGHTS]
        for name in ("masked_lm_loss", "masked_lm_accuracy"):
            mean = sum(part["predictions"] * part[name] for part in parts.values()) / total
            assert mean == pytest.approx(figures[name], rel=1e-5)
    assert list(found["length"]) == ["1 to 32 tokens"]
    assert list(found["position"]) == ["first quarter", "second quarter", "third quarter", "last quarter"]
    assert list(found["token frequency"]) == ["the 10 commonest tokens", "the next 90"]
    assert list(found["source"]) == list(files)
    common = found["token frequency"]["the 10 commonest tokens"]["predictions"]
    assert common / 10 > found["token frequency"]["the next 90"]["predictions"] / 25
    few = slices.of(encoder, files, limit=32)  # of each source
    assert few["source"]["span 1"]["predictions"] < found["source"]["span 1"]["predictions"]
    assert few["source"]["span 2"] == found["source"]["span 2"]
