"""A run whose nodes are launched one by one, as processes would; test_processes.py has the whole of it."""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import threading

import pytest
from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.orchestration import metadata
from tfx.orchestration.pipeline import Pipeline
from tfx.types import Channel, standard_artifacts

from pipeline.history import connection
from pipeline.history.homes import StoreError
from pipeline.runs import compile as compiling
from pipeline.runs import compiled, launching, locks, node, process
from pipeline.runs import report as reporting
from pipeline.runs import run as runs
from pipeline.runs.record import Record
from pipeline.settings import smoke
from preprocessing import storage
from preprocessing.errors import InputError
from tests.data import ROOT

CALLS: list[str] = []  # components are called by name, and cannot be given anything but text


@component
def First(out: OutputArtifact[standard_artifacts.Schema], text: Parameter[str]) -> None:
    CALLS.append(text)
    pathlib.Path(out.uri, text).touch()
    if text == "killed":
        raise KeyboardInterrupt  # which TFX does not see either
    if text == "bad":
        raise InputError("a.txt:3: broken")
    if text == "wrong":
        raise KeyError("x")


@component
def Second(given: InputArtifact[standard_artifacts.Schema], text: Parameter[str]) -> None:
    CALLS.append(text)


@pytest.fixture
def home(tmp_path):
    CALLS.clear()
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def compile_run(home, first="a", second="b", given=None, run_id="one"):
    one = First(text=first)
    two = Second(given=given or one.outputs["out"], text=second)
    made = Pipeline(
        pipeline_name="test",
        pipeline_root=str(home / "artifacts"),
        components=[one, two],
        enable_cache=True,
        metadata_connection_config=metadata.sqlite_metadata_connection_config(str(home / "metadata.sqlite")),
    )
    compiled.write(made, home, run_id)
    Record(home / "reports", "test", compiled.run_of(compiled.read(home, run_id))).show([])


def states(home) -> list[tuple[str, str]]:
    return [(entry["node"], entry["state"]) for entry in written(home, "run.json")["nodes"]]


def written(home, name):
    return json.loads((home / "reports" / name).read_text())


def test_nodes_one_by_one_and_a_second_run_from_the_cache(home):
    compile_run(home)
    assert node.launch(home, "one", "First") == "ran"
    assert (written(home, "run.json")["state"], states(home)) == ("running", [("First", "ran")])
    assert node.launch(home, "one", "Second") == "ran"
    compile_run(home, run_id="two")
    assert node.launch(home, "two", "First") == node.launch(home, "two", "Second") == "cached"
    assert states(home) == [("First", "cached"), ("Second", "cached")]
    assert CALLS == ["a", "b"]
    (artifact,) = written(home, "run.json")["nodes"][0]["artifacts"]["out"]
    assert pathlib.Path(artifact["uri"], "a").exists()


def test_a_node_that_is_done_does_nothing_again(home):
    compile_run(home)
    assert [node.launch(home, "one", "First") for _ in range(2)] == ["ran", "ran"]
    compile_run(home)  # the same: what is done stays done
    assert node.launch(home, "one", "First") == "ran"
    assert CALLS == ["a"]


def test_a_run_that_is_compiled_anew_with_other_settings_takes_no_step_for_done(home):
    compile_run(home)
    node.launch(home, "one", "First")
    for text in ("c", "d"):
        compile_run(home, first=text)
        node.launch(home, "one", "First")
    assert CALLS == ["a", "c", "d"]
    assert written(home, "run.json")["run"] == "one~3"


def test_what_a_killed_try_left_is_removed(home):
    compile_run(home, first="killed")
    with pytest.raises(KeyboardInterrupt):
        node.launch(home, "one", "First")
    assert states(home) == [("First", "running")]
    (left,) = (home / "artifacts" / "First" / "out").iterdir()
    (left / "half").touch()
    pipeline = compiled.read(home, "one")
    assert launching.remove_leftovers(pipeline, "First", compiled.store(pipeline))[0] == str(left)
    assert not left.exists()
    assert launching.remove_leftovers(pipeline, "Second", compiled.store(pipeline)) == []
    with pytest.raises(KeyboardInterrupt):
        node.launch(home, "one", "First")
    assert [path.name for path in left.iterdir()] == ["killed"]  # the same execution and folder, from the start


@pytest.mark.parametrize(
    ("first", "error", "message"),
    [
        ("bad", InputError, r"^First: a\.txt:3: broken$"),
        ("wrong", process.Failed, r"^First: .*KeyError: 'x' \(the whole log is .*First\.log\)$"),
    ],
)
def test_a_failure_is_one_line_and_stands_in_the_reports(home, first, error, message):
    compile_run(home, first=first)
    with pytest.raises(error, match=message):
        node.launch(home, "one", "First")
    found = written(home, "report.json")
    assert (found["state"], found["node"]) == ("failed", "First")
    assert "ended" in written(home, "run.json")
    assert "Traceback" in (home / "logs" / "First.log").read_text()
    compile_run(home, first="good")
    node.launch(home, "one", "First")
    assert written(home, "report.json")["state"] == "running"
    assert not {"ended", "error", "node"} & written(home, "run.json").keys()


def test_a_node_whose_inputs_are_not_there_has_failed(home):
    compile_run(home)
    with pytest.raises(process.Failed, match=r"Second: NodeError: Second did not run: First of this run is not done"):
        node.launch(home, "one", "Second")
    node.launch(home, "one", "First")
    assert node.launch(home, "one", "Second") == "ran"  # in its time
    compile_run(home, given=Channel(type=standard_artifacts.Schema, producer_component_id="no", output_key="out"))
    with pytest.raises(process.Failed, match="Second: NodeError: Second did not run"):
        node.launch(home, "one", "Second")


def test_a_node_is_not_started_twice_at_once(home):
    compile_run(home)
    with locks.held(home, "First"):
        with pytest.raises(locks.Busy, match=r"another run, or First itself, is at work there\. Wait for its end"):
            node.launch(home, "one", "First")
        with pytest.raises(locks.Busy), locks.held(home):
            pass
        with locks.held(home, "Second"):
            pass
    with locks.held(home), pytest.raises(locks.Busy, match="another run"):
        node.launch(home, "one", "First")
    assert CALLS == []


def test_a_try_waits_for_the_one_before_it(home, monkeypatch):
    monkeypatch.setattr(locks, "_POLL_SECONDS", 0.01)
    compile_run(home)
    with locks.held(home, "First"):
        other = threading.Thread(target=node.launch, args=(home, "one", "First", 60.0))
        other.start()
        other.join(0.2)
        assert other.is_alive()
    other.join()
    assert CALLS == ["a"]


def test_a_question_whether_anyone_is_at_work_disturbs_none(home, monkeypatch):
    monkeypatch.setattr(locks, "_POLL_SECONDS", 0.01)
    home.mkdir(exist_ok=True)
    asked, _ = storage.hold(str(home / ".lock"))
    threading.Timer(0.1, asked.close).start()
    with locks.held(home):
        pass


def test_what_is_not_there_is_named(home, tmp_path):
    compile_run(home)
    with pytest.raises(InputError, match=r"node must be one of First, Second\. Received: 'Third'"):
        node.launch(home, "one", "Third")
    with pytest.raises(InputError, match=r"two\.json: the run was not compiled; .*--run-id two` comes first"):
        node.launch(home, "two", "First")
    with pytest.raises(InputError, match=r"a run's id must be of A-Z .* Received: '\.\./x'"):
        node.launch(home, "../x", "First")
    with pytest.raises(InputError, match="home must be the folder of a compiled run"):
        node.launch(tmp_path / "none", "one", "First")
    (home / "compiled" / "two.json").write_text("{")
    with pytest.raises(InputError, match=r"two\.json: not a compiled pipeline"):
        node.launch(home, "two", "First")


def test_no_report_of_half_a_run_and_of_an_older_one_in_its_own_folder(home, monkeypatch):
    compile_run(home)
    node.launch(home, "one", "First")
    with pytest.raises(InputError, match=r"one: a report is of a run whose nodes are all done.*\['Second'\]"):
        reporting.report(home, "one")
    node.launch(home, "one", "Second")
    compile_run(home, run_id="two")
    newest = []

    def finish(record, *_):
        newest.append(record.is_newest())
        record.finish({"figure": 1})
        return {"pushed_to": "/serving/1"}

    monkeypatch.setattr(runs, "finish", finish)
    reporting.report(home, "one")  # as an orchestrator that runs both beside each other calls it
    assert newest == [False]
    assert (written(home, "report.json")["run"], written(home, "run.json")["nodes"]) == ("two", [])
    own = written(home, "runs/one/run.json")
    assert (own["state"], [entry["node"] for entry in own["nodes"]]) == ("done", ["First", "Second"])
    assert written(home, "runs/one/report.json")["figure"] == 1
    compile_run(home)  # once more: it stays the older one
    assert written(home, "run.json")["run"] == "two"


@pytest.mark.parametrize("to", ["/serving/1", None])
def test_a_refused_model_is_an_error_of_its_own(home, monkeypatch, to):
    compile_run(home)
    for name in ("First", "Second"):
        node.launch(home, "one", name)
    monkeypatch.setattr(runs, "finish", lambda record, *_: {"pushed_to": to, "rolled_back": False})
    with contextlib.nullcontext() if to else pytest.raises(process.Refused, match="did not pass the gate"):
        reporting.report(home, "one")


def test_a_pipeline_is_compiled_for_its_home(tmp_path, monkeypatch):
    file = compiling.compile_run(smoke(), tmp_path, "scheduled__2026-11-26T00:00:00+00:00")
    assert file == tmp_path / "compiled" / "scheduled__2026-11-26T00:00:00+00:00.json"
    assert len(compiled.names(compiled.read(tmp_path, file.stem))) == 15
    assert written(tmp_path, "run.json")["run"] == file.stem
    assert (tmp_path / "settings.json").exists()
    before = file.stat().st_mtime_ns
    compiling.compile_run(smoke(), tmp_path, file.stem)
    assert file.stat().st_mtime_ns == before
    missing = runs.pipeline_settings.dataclasses.replace(smoke().corpus, input=(str(tmp_path / "none.txt"),))
    with pytest.raises(InputError, match="no file matches"):
        compiling.compile_run(smoke().replace(corpus=missing), tmp_path, "next")


def ended(code: str, *arguments: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, *arguments] if arguments else [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        ("InputError('a.txt: bad')", process.BAD_INPUT, "bert: error: a.txt: bad\n"),
        ("locks.Busy('at work')", process.BUSY, "bert: error: at work\n"),
        ("process.Refused('no')", process.REFUSED, "bert: error: no\n"),
        ("process.Failed('once')", process.FAILED, "bert: error: once\n"),
        (None, 0, ""),
    ],
)
def test_a_process_ends_with_one_line_and_a_status(error, status, said):
    raising = f"raise {error}" if error else "print('done')"
    done = ended(
        "from pipeline.runs import locks, process\nfrom preprocessing.errors import InputError\n"
        f"def work():\n    {raising}\nprocess.end(work)"
    )
    assert (done.returncode, done.stderr) == (status, said)
    assert error or done.stdout == "done\n"


@pytest.mark.parametrize(
    ("ending", "bytecode"),
    [
        pytest.param("process.end(work)", "", id="step, bytecode"),
        pytest.param("process.end(work)", "1", id="step, no bytecode", marks=pytest.mark.long),
        pytest.param("cli.bert = work\ncli.main()", "", id="command, bytecode", marks=pytest.mark.long),
        pytest.param("cli.bert = work\ncli.main()", "1", id="command, no bytecode"),
    ],
)
def test_an_ended_process_leaves_no_files_of_autograph(tmp_path, monkeypatch, ending, bytecode):
    (tmp_path / "work.py").write_text(
        "import os\nfrom pipeline import cli\nfrom pipeline.runs import process\n"
        "def work():\n    import tensorflow as tf\n    @tf.function\n    def loop(n):\n        while n > 0:\n"
        "            n -= 1\n        return n\n    assert loop(tf.constant(3)) == 0\n"
        f"    print(os.listdir(os.environ['TMPDIR']))\n{ending}"
    )
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", bytecode)
    done = ended("", str(tmp_path / "work.py"))
    assert "__autograph_generated_file" in done.stdout, done.stderr  # there is something to remove
    assert not list((tmp_path / "temporary").iterdir())


def test_bad_arguments_are_told_before_anything_heavy_is_imported(tmp_path):
    done = ended("", "-m", "pipeline.runs.node", "--home", str(tmp_path / "none"), "--run-id", "a", "--node", "Trainer")
    assert (done.returncode, done.stderr.count("\n")) == (process.BAD_INPUT, 1)
    assert "home must be the folder of a compiled run" in done.stderr
    assert ended("", "-m", "pipeline.runs.node", "--node", "Trainer").returncode == 2


@pytest.mark.parametrize("how", ["cut", "gone", "more"])
def test_outputs_that_are_no_longer_whole_are_made_anew(home, how, capfd):
    compile_run(home)
    node.launch(home, "one", "First")
    (folder,) = (home / "artifacts" / "First" / "out").iterdir()
    if how == "gone":
        (folder / "a").unlink()
    else:
        (folder / {"cut": "a", "more": "more"}[how]).write_text("another size")
    compile_run(home, run_id="two")
    assert node.launch(home, "two", "First") == ("cached" if how == "more" else "ran")
    assert ("out/1: no longer whole (1 of its files, as a): made anew" in capfd.readouterr().err) == (how != "more")
    compile_run(home, run_id="three")
    assert node.launch(home, "three", "First") == "cached"


def test_a_report_that_was_torn_stops_no_run(home):
    compile_run(home)
    (home / "reports" / "run.json").write_text("")
    assert node.launch(home, "one", "First") == "ran"


def test_a_store_that_cannot_be_had_is_told_in_one_line(home, monkeypatch):
    compile_run(home)

    def locked(*_, **__):
        raise StoreError("metadata.sqlite: another process holds it locked")

    monkeypatch.setattr(connection, "connect", locked)
    with pytest.raises(process.Failed, match=r"^First: metadata\.sqlite: another process holds it locked"):
        node.launch(home, "one", "First")
