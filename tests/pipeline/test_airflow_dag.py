"""The DAG is the graph; Airflow itself, in environments of its own, reads and runs it (marker `airflow`)."""

import ast
import json
import os
import pathlib
import subprocess
import sys

import pytest

from pipeline import settings
from pipeline.graphs import finetuning, pretraining
from tests.data import ROOT
from tests.pipeline import webhook
from tests.serving import small_model

DAG = ROOT / "pipeline" / "airflow_dag.py"
GRAPHS = json.loads(DAG.with_suffix(".json").read_text())
VERSIONS = {"3": "3.3.2", "2": "2.11.2"}


@pytest.mark.parametrize("dag", GRAPHS)
def test_the_nodes_and_what_they_wait_for_are_the_graphs(dag, tmp_path):
    if dag == "bert":
        graph, wanted = pretraining, settings.smoke()
    else:
        small_model.write_vocab(tmp_path)
        graph, wanted = finetuning, settings.load("classification").replace(init=str(tmp_path))
    pipeline = graph.create_pipeline(wanted, root="/r", metadata=None, serving="/s", work="/w")
    graph = {node.id: sorted(before.id for before in node.upstream_nodes) for node in pipeline.components}
    members = {name: sorted(before) for group in GRAPHS[dag].values() for name, before in group.items()}
    assert members == graph
    places = list(members)
    for name, before in members.items():  # as the file is read, each stands after those that it waits for
        assert all(places.index(earlier) < places.index(name) for earlier in before)


def test_it_imports_nothing_but_the_standard_library_and_airflow():
    imports = [node for node in ast.walk(ast.parse(DAG.read_text())) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {alias.name for node in imports if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in imports if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in names} <= {"airflow", *sys.stdlib_module_names}


READ = """
import datetime, importlib.util, json, sys, time, types
import airflow, jinja2
def read():
    began = time.perf_counter()
    spec = importlib.util.spec_from_file_location("dag", sys.argv[1])
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return time.perf_counter() - began, module
read()  # Airflow's own modules
seconds, module = min((read() for _ in range(3)), key=lambda found: found[0])
dag = module.pretraining
span = jinja2.Template(dag.get_task("compile").environment["BERT_SPAN"])
day = datetime.datetime(2026, 11, 26, 2)
runs = [types.SimpleNamespace(logical_date=day), types.SimpleNamespace(logical_date=None, run_after=day)]
spans = [span.render(params={"span": ""}, dag_run=run) for run in runs]
step = dag.get_task("report")
def end(status):
    module.SubprocessHook = lambda: types.SimpleNamespace(
        run_command=lambda *given, **more: types.SimpleNamespace(exit_code=status, output="why")
    )
    try:
        step.execute({})
    except Exception as error:
        hopeless = isinstance(error, module.AirflowFailException)
        return [str(error), hopeless, module.next_after(error).split(";")[0].split(",")[0]]
print(json.dumps({
    "ends": {status: end(status) for status in (0, 1, 3, 70)},
    "timeouts": {task.task_id: task.execution_timeout.days for task in dag.tasks},
    "again": [
        [task.retry_delay.seconds, task.retry_exponential_backoff, task.max_retry_delay.seconds] for task in dag.tasks
    ],
    "told": [module.tell in (found if isinstance(found, (list, tuple)) else [found])
             for found in (task.on_failure_callback for task in dag.tasks)],
    "spans": [*spans, span.render(params={"span": "7"}, dag_run=runs[0])],
    "version": airflow.__version__,
    "seconds": seconds,
    "before": {
        dag.dag_id: {task.task_id: sorted(task.upstream_task_ids) for task in dag.tasks}
        for dag in (module.pretraining, module.finetuning)
    },
    "schedules": [
        str(dag.schedule if hasattr(dag, "schedule") else dag.schedule_interval)  # Airflow 2's name
        for dag in (module.pretraining, module.finetuning)
    ],
    "pools": {task.task_id: task.pool for task in dag.tasks},
    "retries": sorted({task.retries for task in dag.tasks}),
    "active": dag.max_active_runs,
    "catchup": dag.catchup,
}))
"""


def environment(version: str) -> pathlib.Path:
    """Folder of the programs of an Airflow; skips the test where it is not installed."""
    folder = pathlib.Path(os.environ.get("BERT_AIRFLOW_ENVIRONMENTS") or ROOT / ".uv") / f"airflow{version}" / "bin"
    if not (folder / "airflow").exists():
        pytest.skip(f"needs {folder}: `make test-airflow` installs it")
    return folder


def variables(home: pathlib.Path, version: str) -> dict[str, str]:
    """Of an Airflow that keeps all in a folder, with the DAG in it, for a run on the smallest settings."""
    dags = home / "airflow" / "dags"
    dags.mkdir(parents=True)
    (dags / "bert.py").symlink_to(DAG)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "PYTHON"))}
    return {
        **inherited,
        "PYTHONPATH": str(ROOT),
        "PATH": f"{environment(version)}:{inherited['PATH']}",
        "AIRFLOW_HOME": str(home / "airflow"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        "AIRFLOW_VAR_BERT_HOME": str(home),
        "AIRFLOW_VAR_BERT_PYTHON": sys.executable,
        "AIRFLOW_VAR_BERT_SETTINGS": "smoke",
    }


def call(arguments, given, status=0) -> str:
    done = subprocess.run(arguments, env=given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == status, done.stdout
    return done.stdout


@pytest.mark.airflow
@pytest.mark.parametrize("version", VERSIONS)
def test_both_versions_read_it(tmp_path, version):
    given = variables(tmp_path, version)
    found = json.loads(call([environment(version) / "python", "-c", READ, str(DAG)], given).splitlines()[-1])
    assert found["version"] == VERSIONS[version]
    assert found["seconds"] < 0.05
    assert found["before"].keys() == GRAPHS.keys()
    for dag, groups in GRAPHS.items():
        place = {name: f"{group}.{name}" for group, members in groups.items() for name in members}
        members = {name: before for group in groups.values() for name, before in group.items()}
        tasks = {place[name]: sorted(place[b] for b in before) or ["compile"] for name, before in members.items()}
        assert found["before"][dag] == {"compile": [], "report": ["model.Pusher"], **tasks}
    assert found["schedules"] == ["@daily", "None"]
    assert {name for name, pool in found["pools"].items() if pool == "gpu"} == {
        "model.Evaluator",
        "model.ServingCheck",
        "model.Trainer",
    }
    assert found["spans"] == ["20261126", "20261126", "7"]
    assert (found["retries"], found["active"], found["catchup"]) == ([3], 1, False)
    assert {(delay, bool(grows), most) for delay, grows, most in found["again"]} == {(60, True, 3600)}
    assert found["timeouts"].pop("model.Trainer") == 14
    assert set(found["timeouts"].values()) == {1}
    assert all(found["told"])
    assert found["ends"] == {
        "0": None,
        "1": ["why", True, "mend the cause"],
        "3": ["why", True, "what is served stays"],
        "70": ["exit status 70: why", False, "mend the cause"],
    }


@pytest.mark.airflow
@pytest.mark.timeout(2700)
@pytest.mark.parametrize("version", VERSIONS)
def test_a_run_ends_with_a_pushed_model(tmp_path, version):
    given = variables(tmp_path, version)
    call(["airflow", "db", "migrate"], given)
    call(["airflow", "dags", "reserialize"], given)
    output = call(["airflow", "dags", "test", "bert", "2026-11-26"], given)
    found = json.loads((tmp_path / "reports" / "report.json").read_text())
    assert found["state"] == "done", output
    assert pathlib.Path(found["pushed_to"], "saved_model.pb").is_file()
    ran = json.loads((tmp_path / "reports" / "run.json").read_text())
    assert [node["state"] for node in ran["nodes"]] == ["ran"] * 15

    tuning = json.dumps({"settings": "classification-smoke"})
    output = call(["airflow", "dags", "test", "bert_finetune", "2026-11-26", "-c", tuning], given)
    tuned = json.loads((tmp_path / "reports" / "report.json").read_text())
    assert (tuned["state"], tuned["task"]) == ("done", "classification"), output
    assert pathlib.Path(tuned["pushed_to"]).parent == tmp_path / "serving" / "packages-smoke"
    ran = json.loads((tmp_path / "reports" / "run.json").read_text())
    assert [node["state"] for node in ran["nodes"]] == ["ran"] * 11


@pytest.mark.airflow
@pytest.mark.parametrize("version", VERSIONS)
def test_bad_input_is_tried_once_and_told_once(tmp_path, version):
    given = variables(tmp_path, version)
    with webhook.listening() as (url, told):
        given["AIRFLOW_VAR_BERT_WEBHOOK"] = url
        call(["airflow", "db", "migrate"], given)
        call(["airflow", "dags", "reserialize"], given)
        corpus = json.dumps({"corpus": "'/none/$(touch x)/*.txt'"})
        done = subprocess.run(
            ["airflow", "dags", "test", "bert", "2026-11-26", "-c", corpus], env=given, capture_output=True, text=True
        )
    assert len(told) == 1, done.stdout + done.stderr
    (notice,) = told
    assert (notice["step"], notice["dag"]) == ("compile", "bert")
    assert notice["error"].startswith("bert: error: no file matches '/none/$(touch x)/*.txt'")
