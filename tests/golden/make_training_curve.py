"""Writes `training_curve.json` beside itself: the losses that the run of `test_training.py` reports.

    python -m tests.golden.make_training_curve

Only after a change in numbers that is meant; the difference is to be looked at.
"""

import json
import pathlib
import tempfile

from tests.model.training import test_training


def main() -> None:
    reported: list = []
    with tempfile.TemporaryDirectory() as folder:
        files = test_training.write_files(pathlib.Path(folder))
        test_training.train(files, f"{folder}/run", report=lambda *report: reported.append(report))
    losses = [round(value, 5) for value in test_training.curve(reported)]
    test_training.GOLDEN.write_text(json.dumps({"loss": losses}) + "\n")


if __name__ == "__main__":
    main()
