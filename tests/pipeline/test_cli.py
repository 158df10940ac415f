import subprocess
import sys

import pytest
from click.testing import CliRunner

from pipeline import cli

HEAVY = ("tensorflow", "keras", "tfx", "apache_beam", "pyarrow", "matplotlib")


@pytest.mark.parametrize("command", [(), *((name,) for name in cli.COMMANDS)], ids=" ".join)
def test_help_imports_nothing_heavy(command):
    program = (
        "import sys; from pipeline import cli; cli.terminal.quiet(); "
        f"cli.bert([*{command!r}, '--help'], standalone_mode=False); "
        f"print('heavy:', [name for name in {HEAVY!r} if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.startswith("Usage:")
    assert result.stdout.splitlines()[-1] == "heavy: []"
    assert result.stderr == ""


def test_an_unknown_command_is_named():
    result = CliRunner().invoke(cli.bert, ["trian"])
    assert result.exit_code == 2
    assert "No such command 'trian'" in result.output


def test_bad_input_is_one_line_and_exit_status_1(tmp_path):
    command = [sys.executable, "-m", "pipeline.cli", "vocab", "--input", str(tmp_path / "none*"), "--size", "100"]
    result = subprocess.run(
        [*command, "--output", str(tmp_path / "v.txt")], capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("bert: error: no file matches")
