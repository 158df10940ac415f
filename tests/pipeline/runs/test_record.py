"""A run says what it ran, and its report is never another run's."""

import json

import pytest
from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.orchestration import metadata
from tfx.orchestration.pipeline import Pipeline
from tfx.types import Channel, standard_artifacts

from pipeline.runs import launching, record, runner
from preprocessing.errors import InputError


@component
def First(out: OutputArtifact[standard_artifacts.Schema], text: Parameter[str]) -> None:
    out.set_string_custom_property("text", text)
    out.set_json_value_custom_property("more", {"text": text})


@component
def Second(given: InputArtifact[standard_artifacts.Schema], text: Parameter[str]) -> None:
    if text == "bad":
        raise InputError("a.txt:3: broken")


@pytest.fixture
def run(tmp_path):
    def start(first="a", second="b", given=None):
        made = record.Record(tmp_path / "reports", "test")
        one = First(text=first)
        two = Second(given=given or one.outputs["out"], text=second)
        pipeline = Pipeline(
            pipeline_name="test",
            pipeline_root=str(tmp_path / "artifacts"),
            components=[one, two],
            enable_cache=True,
            metadata_connection_config=metadata.sqlite_metadata_connection_config(str(tmp_path / "metadata.sqlite")),
        )
        try:
            runner.Runner(made).run(pipeline)
        except Exception as error:
            made.fail(str(error))
            raise
        made.finish({"figure": 1})
        return made

    return start


def written(tmp_path, name):
    return json.loads((tmp_path / "reports" / name).read_text())


def test_what_ran_what_was_cached_and_what_it_gave(tmp_path, run):
    first, second = run(), run(second="c")
    assert first.run_id < second.run_id
    found = written(tmp_path, "run.json")
    assert (found["run"], found["state"], found["pipeline"]) == (second.run_id, "done", "test")
    assert [(node["node"], node["state"]) for node in found["nodes"]] == [("First", "cached"), ("Second", "ran")]
    assert all(node["seconds"] >= 0 for node in found["nodes"])
    assert second.artifact("First", "out") == first.artifact("First", "out")
    assert second.artifact("First", "out")["uri"].startswith(str(tmp_path / "artifacts" / "First" / "out"))
    assert second.artifact("First", "out")["properties"]["text"] == "a"
    assert second.artifact("First", "out")["properties"]["more"] == {"text": "a"}
    report = {"run": second.run_id, "pipeline": "test", "state": "done", "figure": 1}
    assert written(tmp_path, "report.json") == report


def test_a_run_that_fails_leaves_no_older_report(tmp_path, run):
    run()
    with pytest.raises(Exception, match=r"a\.txt:3: broken"):
        run(second="bad")
    found = written(tmp_path, "run.json")
    assert [(node["node"], node["state"]) for node in found["nodes"]] == [("First", "cached"), ("Second", "failed")]
    report = written(tmp_path, "report.json")
    assert (report["run"], report["state"], report["node"]) == (found["run"], "failed", "Second")
    assert "figure" not in report


def test_a_node_whose_inputs_cannot_be_found_has_failed(tmp_path, run):
    with pytest.raises(launching.NodeError, match="Second did not run"):
        run(given=Channel(type=standard_artifacts.Schema, producer_component_id="none", output_key="out"))
    assert written(tmp_path, "run.json")["nodes"][-1]["state"] == "failed"


def test_a_report_is_of_the_run_from_its_first_moment(tmp_path):
    record.Record(tmp_path, "test").finish({"figure": 1})
    new = record.Record(tmp_path, "test")
    new.start()
    assert json.loads((tmp_path / "report.json").read_text()) == {
        "run": new.run_id,
        "pipeline": "test",
        "state": "running",
    }
