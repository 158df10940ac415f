"""`bert clean`: what stays by the rule, what goes, and that no cache gives what is gone."""

import fcntl
import json
import os
import pathlib
import time

import pytest
from click.testing import CliRunner
from tfx.dsl.component.experimental.annotations import OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.orchestration import metadata
from tfx.orchestration.pipeline import Pipeline
from tfx.types import standard_artifacts

from pipeline import cli
from pipeline.history import pushed, retention
from pipeline.history.homes import Home
from pipeline.runs import record, runner
from pipeline.settings import RetentionSettings
from preprocessing.errors import InputError


def bert(*arguments):
    result = CliRunner().invoke(cli.bert, list(map(str, arguments)), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def standing(home):
    """`Node/output` of the artifacts that still hold something besides records, in order, with their executions."""
    found = set()
    for path in (home.folder / "artifacts").glob("*/*/*"):
        if any(child.name not in retention.RECORDS for child in path.iterdir()):
            found.add(f"{path.parent.parent.name} {path.name}")
    return found


def planned(home, **rule):
    """Names of what may go: `node/output/execution`, `serving/bert/version`, ..."""
    items = retention.plan(Home.open(home.folder), RetentionSettings(**rule))
    return {os.path.relpath(item.path, home.folder).removeprefix("artifacts/") for item in items}


def number(home, node):
    return pathlib.Path(home.uri(node)).name


def test_what_the_newest_runs_and_versions_were_made_of_stays(small):
    made = []
    for at in range(3):  # each from data of its own
        small.run(begins_with="CorpusGen", seed=at)
        made.append({node: number(small, node) for node in small.latest})
    versions = sorted(pushed.versions(small.serving))
    old, middle, _ = made
    gone = planned(small, runs=1, versions=2)
    assert f"serving/bert/{versions[0]}" in gone
    for node, output in (("CorpusGen", "documents"), ("Trainer", "model"), ("Pusher", "pushed_model")):
        assert f"{node}/{output}/{old[node]}" in gone
    # Of the one before: its version stands, so what that was made of and judged by stays, and no more.
    assert {name for name in gone if name.split("/")[-1] in middle.values()} == {
        f"Baseline/baseline/{middle['Baseline']}",
        f"Pusher/pushed_model/{middle['Pusher']}",
    }
    assert planned(small, runs=3, versions=3) == set()


def test_what_a_label_names_or_would_go_back_to_stays(small):
    first, second, third = (small.run(begins_with="CorpusGen", seed=at) for at in range(3))
    trained = pathlib.Path(pushed.read(small.serving)["versions"][first]["from"]).parent.name
    assert f"Trainer/model/{trained}" in planned(small, runs=1, versions=1)
    bert("promote", first, "--home", small.folder)
    gone = planned(small, runs=1, versions=1)
    assert {name for name in gone if name.startswith("serving")} == {f"serving/bert/{second}"}
    assert not {f"Trainer/model/{trained}", f"CorpusGen/documents/{int(trained) - 3}"} & gone
    bert("promote", third, "--home", small.folder)  # the label would go back to the first
    assert planned(small, runs=1, versions=1) == gone


def test_the_checkpoints_that_a_version_was_warm_started_from_stay(small):
    trained = []
    for at in range(4):
        init = f"{small.uri('Trainer', 1)}/model" if at else None
        small.run(begins_with="CorpusGen", seed=at, init=init)
        trained.append(number(small, "Trainer"))
    runs = [f"Trainer/model_run/{at}" for at in trained]
    assert {name for name in planned(small, runs=1, versions=1) if name in runs} == set()
    assert {name for name in planned(small, runs=1, versions=1, parents=1) if name in runs} == set(runs[:2])
    assert f"CorpusGen/documents/{int(trained[0]) - 3}" in planned(small, runs=1, versions=1)


def test_it_says_what_would_go_then_removes_it_and_lineage_is_still_told(small):
    first = small.run(seed=0)
    for at in (1, 2):
        small.run(begins_with="CorpusGen", seed=at)
    before = json.loads(bert("lineage", first, "--home", small.folder, "--json"))
    held = standing(small)
    said = bert("clean", "--home", small.folder, "--dry-run", "--runs", 1, "--versions", 1)
    assert standing(small) == held
    assert "Would remove" in said
    assert f"{small.serving}/{first}" in said
    said = bert("clean", "--home", small.folder, "--runs", 1, "--versions", 1)
    assert "2 versions" in said
    assert len(standing(small)) < len(held)
    assert [str(version) for version in pushed.versions(small.serving)] == [max(pushed.read(small.serving)["versions"])]
    assert not pushed.read(small.serving)["rolled_back"]  # tidied away, not rolled back
    after = json.loads(bert("lineage", first, "--home", small.folder, "--json"))
    assert after == before | {"standing": False}
    assert bert("clean", "--home", small.folder, "--runs", 1, "--versions", 1).startswith("Removed nothing, 0 B")


def test_what_killed_steps_left_goes_but_for_those_of_the_newest_runs(small):
    small.run(begins_with="CorpusGen", stops_at="Trainer", state="running")
    killed = small.folder / "artifacts" / "Trainer" / "model" / "4" / "half"
    small.run(begins_with="CorpusGen")
    killed.mkdir(parents=True)
    old = small.folder / "training" / "old"
    old.mkdir(parents=True)
    os.utime(old, (1, 1))
    (small.folder / "training" / "young").mkdir()
    assert {"Trainer/model/4", "training/old"} <= planned(small, runs=1)
    assert "Trainer/model/4" not in planned(small, runs=2)
    assert "training/young" not in planned(small)


def test_not_while_a_run_is_at_work(small):
    small.run()
    with open(small.folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(InputError, match=r"a run is at work there\. Wait for its end"):
            bert("clean", "--home", small.folder)


def test_the_rule_is_that_of_the_settings(small):
    small.run()
    small.run(begins_with="CorpusGen", seed=1)
    (small.folder / "settings.json").write_text(json.dumps({"name": "bert", "retention": {"runs": 1, "versions": 1}}))
    assert retention.rule_of(Home.open(small.folder)) == RetentionSettings(runs=1, versions=1)
    assert len(json.loads(bert("clean", "--home", small.folder, "--dry-run", "--json"))) > 5
    (small.folder / "settings.json").write_text(json.dumps({"retention": {"runs": 0}}))
    with pytest.raises(InputError, match=r"retention\.runs must be positive"):
        retention.rule_of(Home.open(small.folder))


@component
def Made(out: OutputArtifact[standard_artifacts.Schema], text: Parameter[str]) -> None:
    pathlib.Path(out.uri, "schema.pbtxt").write_text(text)


def test_the_cache_does_not_give_what_is_gone(tmp_path):
    def run(text):
        made = record.Record(tmp_path / "reports", "test")
        runner.Runner(made).run(
            Pipeline(
                pipeline_name="test",
                pipeline_root=str(tmp_path / "artifacts"),
                components=[Made(text=text)],
                enable_cache=True,
                metadata_connection_config=metadata.sqlite_metadata_connection_config(
                    str(tmp_path / "metadata.sqlite")
                ),
            )
        )
        return made.nodes[0]["state"], pathlib.Path(made.artifact("Made", "out")["uri"], "schema.pbtxt").read_text()

    assert [run("a"), run("a"), run("b")] == [("ran", "a"), ("cached", "a"), ("ran", "b")]
    home = Home.open(tmp_path)
    items = retention.plan(home, RetentionSettings(runs=1))
    assert [item.kind for item in items] == ["artifact"]
    retention.carry_out(home, items)
    assert [run("b"), run("a")] == [("cached", "b"), ("ran", "a")]


def test_what_was_compiled_for_a_run_goes_when_that_has_ended(small):
    """And not while an orchestrator may be between two of its steps."""
    small.run()
    (small.folder / "compiled").mkdir()
    states = {"ended": "done", "waiting": "running", "forgotten": "running", "unrecorded": None}
    for name, state in states.items():
        spec = {"runtimeSpec": {"pipelineRunId": {"fieldValue": {"stringValue": name}}}}
        (small.folder / "compiled" / f"{name}.json").write_text(json.dumps(spec))
        if state:
            made = record.Record(small.folder / "reports", "bert", name)
            made.start()
            if state == "done":
                made.finish({"pushed_to": None})
    past = time.time() - 8 * 24 * 3600
    for path in ("compiled/forgotten.json", "reports/runs/forgotten/run.json"):
        os.utime(small.folder / path, (past, past))
    assert planned(small, runs=1) == {"compiled/ended.json", "compiled/forgotten.json"}
    spec["runtimeSpec"]["pipelineRunId"]["fieldValue"]["stringValue"] = "2026-01-01T00:00:00-run"  # of the newest
    (small.folder / "compiled" / "ended.json").write_text(json.dumps(spec))
    assert planned(small, runs=1, training_days=0) == {"compiled/forgotten.json"}
    bert("clean", "--home", small.folder)
    assert sorted(path.stem for path in (small.folder / "compiled").iterdir()) == ["ended", "unrecorded", "waiting"]
