import types

import pytest

from model import training
from pipeline import settings, trainer
from pipeline.components.vocabulary import FILE
from preprocessing import vocabulary
from preprocessing.features import SPECIAL_TOKENS


@pytest.mark.parametrize("lower_case", [True, False])
def test_the_model_is_told_the_kind_of_vocabulary(monkeypatch, tmp_path, lower_case):
    given = {}

    def train(*_, **options):
        given.update(options)
        raise StopIteration

    run = settings.smoke()
    run = run.replace(vocabulary=settings.VocabularySettings(lower_case=lower_case))
    vocabulary.save(SPECIAL_TOKENS, tmp_path / FILE)
    monkeypatch.setattr(training, "train", train)
    custom = {"settings": run.to_json(), "work_folder": str(tmp_path), "fingerprint": "a"}
    with pytest.raises(StopIteration):
        trainer.run_fn(types.SimpleNamespace(custom_config=custom, train_files=[f"{tmp_path}/Split-train/*"]))
    assert given["lower_case"] is lower_case
