"""`bert runs`: what ran, from the records of runs and from MLMD."""

import fcntl
import json
import re

import pytest
from click.testing import CliRunner

from pipeline import cli
from pipeline.history import runs
from pipeline.history.homes import Home
from preprocessing.errors import InputError


def bert(*arguments):
    result = CliRunner().invoke(cli.bert, list(map(str, arguments)), catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def test_how_each_run_ended(small):
    version = small.run()
    small.run(begins_with=None)
    small.run(begins_with="Trainer", blessed=False, training={"steps": 3})
    small.run(begins_with="CorpusGen", stops_at="CorpusGen")
    small.run(begins_with="Trainer", stops_at="Trainer", state="running")
    found = json.loads(bert("runs", "--home", small.folder, "--json"))
    assert [entry["state"] for entry in found] == ["done", "done", "not blessed", "failed", "broken off"]
    assert [entry["version"] for entry in found] == [version, version, None, None, None]
    assert [tuple(entry["steps"].values()) for entry in found] == [
        (7, 0, 0),
        (0, 7, 0),
        (4, 3, 0),
        (0, 0, 1),
        (0, 3, 0),
    ]
    assert found[0]["seconds"] == 10.5
    assert found[3]["error"] == "a.txt:3: broken"

    lines = bert("runs", "--home", small.folder).splitlines()
    rows = [re.split(" {2,}", line)[:3] for line in lines]
    assert rows[1] == ["2026-01-01T00:00:00-run", "done", "7 ran"]
    assert rows[4] == ["2026-01-04T00:00:00-run", "failed", "CorpusGen failed"]
    assert lines[1].endswith(version)


def test_runs_that_left_no_record_are_known_by_their_executions(small):
    small.run(kept=False)
    small.run(kept=False, begins_with="Evaluator", blessed=False)
    small.run(kept=False, begins_with="VocabularyGen", stops_at="VocabularyGen")
    small.run(kept=False, begins_with="Trainer", stops_at="Trainer", state="running")
    found = runs.listed(Home.open(small.folder))
    assert [entry["state"] for entry in found] == ["done", "not blessed", "failed", "broken off"]
    assert found[0]["version"] == "4711"
    assert [entry["steps"]["cached"] for entry in found] == [0, 5, 1, 3]
    assert found[0]["began"] <= found[0]["ended"] <= found[1]["began"]
    assert len(runs.told(found)) == 5


def test_a_run_at_work_holds_the_lock(small):
    small.run(stops_at="Trainer", state="running")
    small.run(stops_at="Trainer", state="running")
    with open(small.folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = runs.listed(Home.open(small.folder))
    assert [entry["state"] for entry in found] == ["broken off", "running"]


def test_an_older_run_beside_the_newest_is_at_work_where_its_step_is(small):
    small.run(stops_at="Trainer", state="running")
    small.run(stops_at="CorpusGen", state="running")
    with open(small.folder / ".lock", "w") as lock, open(small.folder / ".lock.Trainer", "w") as step:
        fcntl.flock(lock, fcntl.LOCK_SH)
        fcntl.flock(step, fcntl.LOCK_EX)
        both = runs.listed(Home.open(small.folder))
        small.run(stops_at="Trainer", state="running")  # the step is the newest's now
        again = runs.listed(Home.open(small.folder))
    assert [entry["state"] for entry in both] == ["running", "running"]
    assert [entry["state"] for entry in again] == ["broken off", "broken off", "running"]


def test_a_folder_in_which_nothing_ran(tmp_path):
    with pytest.raises(InputError, match=r"a home is a folder in which the pipeline ran\. Received: no metadata"):
        Home.open(tmp_path)


def test_the_newest_run_is_the_last_whatever_the_clock_says(small):
    small.run()
    small.run(begins_with="Trainer", stops_at="Trainer", state="running")
    for name in ("2026-01-01T00:00:00-run", "2026-01-02T00:00:00-run"):
        path = small.folder / "reports" / "runs" / name / "run.json"
        said = json.loads(path.read_text())
        said["started"] = said["started"].replace("2026", "2027" if name[9] == "1" else "2025")
        path.write_text(json.dumps(said))
        (small.folder / "reports" / "run.json").write_text(json.dumps(said))
    with open(small.folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = runs.listed(Home.open(small.folder))
    assert [entry["state"] for entry in found] == ["done", "running"]
