"""A training is there until it is known what came of it."""

from pipeline.history import trainings


def test_only_what_is_known_goes(tmp_path):
    for name in ("known", "unknown", "running"):
        (tmp_path / name / "checkpoints").mkdir(parents=True)
    trainings.end(tmp_path / "known", "/home/artifacts/Trainer/model_run/7")
    trainings.end(tmp_path / "unknown", "/home/artifacts/Trainer/model_run/8")
    trainings.remove_ended(tmp_path, ["/home/artifacts/Trainer/model_run/7/", "/home/artifacts/Trainer/model/7"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["running", "unknown"]
    trainings.remove_ended(tmp_path / "none", [])
