"""ML Metadata in a database of a server: to a pushed model, again from the cache, and all that is told of it later."""

import dataclasses
import subprocess
import sys
import threading

import pytest
from click.testing import CliRunner

from pipeline import cli
from pipeline.history import connection
from pipeline.history.homes import StoreError
from pipeline.runs.process import REFUSED
from tests.data import ROOT
from tests.faults import databases, tiny

pytestmark = [pytest.mark.faults, pytest.mark.timeout(3600)]


@pytest.fixture
def server(tmp_path, monkeypatch):
    folder = tmp_path / "server"
    folder.mkdir()
    with databases.mariadb(folder) as (url, stop, start):
        monkeypatch.setenv(connection.VARIABLE, url)
        monkeypatch.setenv(connection.PASSWORD, databases.PASSWORD)
        yield url, stop, start


def bert(*arguments: object) -> str:
    done = CliRunner().invoke(cli.bert, list(map(str, arguments)), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_a_run_and_what_is_told_of_it(runs, undisturbed, tmp_path, server, monkeypatch):
    home = tmp_path / "home"
    environment = {connection.VARIABLE: server[0], connection.PASSWORD: databases.PASSWORD}
    runs.finish(home, environment=environment)
    assert tiny.same(tiny.weights(undisturbed), tiny.weights(home))
    monkeypatch.delenv(connection.VARIABLE)  # the home knows
    runs.finish(home, environment={connection.PASSWORD: databases.PASSWORD})
    assert [node["state"] for node in tiny.nodes(home)] == ["cached"] * 15
    assert not (home / "metadata.sqlite").exists()

    (version,) = (home / "serving" / "bert").glob("[0-9]*")
    assert bert("runs", "--home", home).count(version.name) == 2
    assert version.name in bert("lineage", "latest", "--home", home)
    bert("promote", "latest", "--label", "stable", "--home", home)
    assert "Removed" in bert("clean", "--home", home)
    runs.finish(home, environment=environment)
    assert {node["state"] for node in tiny.nodes(home)} == {"cached"}

    run = tiny.tiny()
    run = run.replace(training=dataclasses.replace(run.training, steps=24))
    runs.finish(home, run, environment=environment)
    newer = max((home / "serving" / "bert").glob("[0-9]*"))
    assert newer != version
    assert f"stable is version {newer.name} now" in bert("promote", "latest", "--label", "stable", "--home", home)
    assert f"stable is version {version.name} again" in bert("rollback", "--label", "stable", "--home", home)
    said = runs.finish(home, run, status=REFUSED, environment=environment)
    assert "the model was rolled back" in said
    assert sorted((home / "serving" / "bert").glob("[0-9]*")) == [version, newer]
    assert f"{newer.name} of bert (rolled back" in bert("lineage", newer.name, "--home", home)
    bert("promote", newer.name, "--label", "stable", "--home", home)
    runs.finish(home, run, environment=environment)
    assert sorted((home / "serving" / "bert").glob("[0-9]*")) == [version, newer]

    secret = databases.PASSWORD.encode()
    assert [path for path in home.rglob("*") if path.is_file() and secret in path.read_bytes()] == []
    assert secret not in home.with_suffix(".log").read_bytes()


def test_two_that_begin_at_once_make_its_tables_once(tmp_path, server):
    script = (
        "import pathlib, sys\nfrom pipeline.history import connection\nfrom pipeline.runs import locks\n"
        "home = pathlib.Path(sys.argv[1])\nwith locks.held(home, 'compile', wait=60):\n    connection.begin(home)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "home")]
    started = [subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    for process in started:
        said = process.communicate()[1]
        assert process.returncode == 0, said
    store = connection.connect(connection.config(tmp_path / "home"))
    assert [found.name for found in store.get_contexts_by_type("bert_home")] == [str(tmp_path / "home")]


def test_a_server_that_is_away_for_a_while_and_one_that_stays_away(tmp_path, server):
    _, stop, start = server
    of = connection.begin(tmp_path)
    stop()
    back = threading.Timer(2.0, start)
    back.start()
    connection.connect(of).get_executions()
    back.join()
    stop()
    with pytest.raises(StoreError, match=r"a server must listen there\. .*the run goes on where it stopped"):
        connection.connect(of, patience=1.0)


def test_a_wrong_password_is_told_and_not_shown(tmp_path, server, monkeypatch):
    monkeypatch.setattr(connection, "_REFUSED_SECONDS", 0.5)
    monkeypatch.setenv(connection.PASSWORD, "wrong-one")
    with pytest.raises(StoreError, match=r"let this user in.*look at BERT_METADATA_PASSWORD") as error:
        connection.begin(tmp_path)
    assert "wrong-one" not in str(error.value)


def test_a_database_is_one_homes(tmp_path, server):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    connection.begin(tmp_path / "one")
    with pytest.raises(connection.InputError, match=r"a database is one home's, that of .*/one\. Received: .*/two"):
        connection.begin(tmp_path / "two")
