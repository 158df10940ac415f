"""What `make run` gives to `tfx`."""

import os
import subprocess
import sys

import pytest

# A pipeline that says who runs it, and goes wrong where it is more than looked at.
RUNNER = """
import os
from tfx.orchestration.local.local_dag_runner import LocalDagRunner
from tfx.orchestration.pipeline import Pipeline

class Runner(LocalDagRunner):
    def run(self, pipeline):
        raise SystemExit(3)

looked_at = hasattr(LocalDagRunner.run, "__wrapped__")
with open({log!r}, "a") as stream:
    print("looked at" if looked_at else "run", os.getpid(), file=stream)
(LocalDagRunner if looked_at else Runner)().run(Pipeline("small", {root!r}, components=[]))
"""


@pytest.mark.long
def test_commands_share_a_process_and_the_pipelines_status_is_theirs(tmp_path):
    runner, log = tmp_path / "runner.py", tmp_path / "log"
    runner.write_text(RUNNER.format(log=str(log), root=str(tmp_path / "artifacts")))
    commands = (
        f"pipeline create --engine local --pipeline_path {runner}",
        "run create --engine local --pipeline_name small",
        "run create --engine local --pipeline_name never_reached",
    )
    path = f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.runs.commands_of_tfx", *commands],
        env={**os.environ, "LOCAL_HOME": f"{tmp_path}/tfx/", "PATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 3, done.stderr
    (looked_at, by), (run, by_too) = (line.rsplit(" ", 1) for line in log.read_text().splitlines())
    assert (looked_at, run) == ("looked at", "run")
    assert by == by_too
    assert [line for line in done.stdout.splitlines() if "$" in line] == [f"$ tfx {one}" for one in commands[:2]]
