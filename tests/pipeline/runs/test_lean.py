import sys

from pipeline.runs import lean


def test_components_are_found_by_their_full_names_and_none_is_imported_beside(monkeypatch):
    monkeypatch.delitem(sys.modules, "tfx.components", raising=False)
    lean.without_all_components()
    stands = sys.modules["tfx.components"]
    assert not hasattr(stands, "Trainer")
    from tfx.components.trainer.component import Trainer

    assert Trainer.EXECUTOR_SPEC
    lean.without_all_components()
    assert sys.modules["tfx.components"] is stands
