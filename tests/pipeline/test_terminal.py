import io
import logging
import os
import subprocess
import sys
import warnings

import pytest

from model.tasks.pretraining import Pretraining
from model.tasks.task import Curve
from pipeline import terminal
from tests.data import ROOT


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_plain_lines_where_there_is_no_terminal(monkeypatch):
    """The time left goes by what was done here, which in a resumed run is not all."""
    clock = iter((0, 10, 20, 30))
    monkeypatch.setattr(terminal.time, "monotonic", lambda: next(clock))
    stream = io.StringIO()
    with terminal.Progress("Training", total=200, unit="steps", interval=0, stream=stream) as progress:
        progress.update(50, loss=5.25, tokens_per_second=81_000)
        progress.update(60, loss=5.0)
        progress.update(200, loss=4.0)
    first, second, last = stream.getvalue().splitlines()
    assert first == "Training   25%  50/200 steps  loss 5.25  tokens per second 81,000  0:10"
    assert second == "Training   30%  60/200 steps  loss 5  0:20  2:20 left"
    assert last.startswith("Training  100%  200/200 steps  loss 4")


def test_one_line_is_rewritten_on_a_terminal_and_the_last_state_is_shown():
    stream = Terminal()
    with terminal.Progress("Reading", unit="documents", stream=stream) as progress:
        for done in range(1000):
            progress.update(done)
    assert "\n" not in stream.getvalue()[:-1]
    assert stream.getvalue().count("\r") <= 3
    assert "999 documents" in stream.getvalue().split("\r")[-1]


def test_the_line_of_training_shows_what_the_task_says():
    measured = {"masked_lm_loss": 5.0, "learning_rate": 1e-3, "next_sentence_accuracy": 0.5, "loss": 6.0}
    measured |= {"masked_lm_accuracy": 0.25, "tokens_per_second": 9.0, "gradient_norm": 1.0}
    whole = terminal.training_figures(measured, Pretraining().curves)
    assert list(whole.items()) == [
        ("loss", 6.0),
        ("masked accuracy", 0.25),
        ("next accuracy", 0.5),
        ("learning rate", 1e-3),
        ("tokens/s", 9.0),
    ]
    assert whole.keys() - terminal.training_figures(measured, Pretraining(False).curves).keys() == {"next accuracy"}
    other = [Curve("Accuracy", "accuracy", shown="right"), Curve("Loss", "loss")]
    assert list(terminal.training_figures({"accuracy": 1.0, "loss": 2.0}, other)) == ["loss", "right"]


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (67.9, "1:07"), (3723, "1:02:03")])
def test_clock(seconds, text):
    assert terminal.clock(seconds) == text


def test_third_party_warnings_are_silent_and_ours_are_not(caplog):
    with warnings.catch_warnings(record=True) as caught:
        terminal.quiet()
        warnings.warn_explicit("theirs", UserWarning, "x.py", 1, module="tensorflow.python")
        warnings.warn_explicit("ours", UserWarning, "y.py", 1, module="model.training")
    assert [str(warning.message) for warning in caught] == ["ours"]
    for name in ("tensorflow.python", "some.library", "preprocessing.beam.runner"):
        logging.getLogger(name).warning("of %s", name)
    assert caplog.messages == ["of preprocessing.beam.runner"]


def test_native_output_goes_to_a_file_and_pythons_does_not(tmp_path, capfd):
    with terminal.native_log(tmp_path / "native.log"):
        os.write(2, b"from native code\n")
        print("from Python", file=sys.stderr)
    os.write(2, b"afterwards\n")
    assert (tmp_path / "native.log").read_text() == "from native code\n"
    assert capfd.readouterr().err == "from Python\nafterwards\n"


@pytest.mark.parametrize("name", ["tensorflow", "tensorflow_text"])
def test_what_tensorflow_remarks_as_it_is_imported_is_silent_and_the_rest_is_not(tmp_path, name):
    for folder in ("tensorflow", "tensorflow_text"):
        (tmp_path / folder).mkdir()
    (tmp_path / "tensorflow" / "__init__.py").write_text(
        "import os, sys\n"
        "os.write(2, b'WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\\n')\n"
        "os.write(2, b'I0000 00:00:1795658540.382266   14108 port.cc:153] oneDNN custom operations are on.\\n')\n"
        "os.write(2, b'F0000 of processors\\n')\n"
        "print('of Python', file=sys.stderr)\n"
        "value = 5\n"
    )
    (tmp_path / "tensorflow_text" / "__init__.py").write_text("import tensorflow\nvalue = tensorflow.value\n")
    program = (
        "import os; from pipeline import terminal; terminal.quiet(); terminal.quiet()\n"
        f"import {name} as loaded; print(loaded.value, loaded.__spec__.name); os.write(2, b'I0000 afterwards\\n')"
    )
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, cwd=ROOT)
    assert (done.stdout, done.stderr) == (f"5 {name}\n", "F0000 of processors\nof Python\nI0000 afterwards\n")
