from pipeline.runs import task_summary


def test_it_says_how_far_pretraining_helped_and_what_was_set_aside(capsys):
    figures = {"accuracy": 0.8, "macro_f1": 0.7}
    split = {"rows": 1500, "set_aside": 0}
    report = {
        "task": "classification",
        "first": "accuracy",
        "metrics": {**figures, "gain": 0.05},
        "tuned": {**figures, "training": {"steps": 600}},
        "untrained": {"accuracy": 0.75, "macro_f1": 0.6},
        "data": {"train": split, "eval": {**split, "set_aside": 2}},
    }
    task_summary.show(report)
    told = capsys.readouterr().out
    assert "1,500 rows to learn from, 1,500 that the model has not seen; 2 could not be used (set_aside.tsv)" in told
    assert "Accuracy" in told
    assert "0.800    without pretraining   0.750" in told
    assert "Pretraining is worth +0.050 in accuracy: an untrained encoder was taught the same rows in" in told

    task_summary.show({**report, "untrained": None})
    told = capsys.readouterr().out
    assert "pretraining" not in told.lower()
