"""The store of a home: whole, free and its own, before a run begins; and how a database is named."""

import shutil
import sqlite3
import subprocess
import sys

import pytest
from ml_metadata import errors

from pipeline.history import connection
from pipeline.history.homes import Home, StoreError
from pipeline.history.store import Store
from preprocessing.errors import InputError


@pytest.fixture(autouse=True)
def no_database(monkeypatch):
    monkeypatch.delenv(connection.VARIABLE, raising=False)
    monkeypatch.delenv(connection.PASSWORD, raising=False)


DAMAGES = {
    "its first bytes": lambda data: b"x" * 100 + data[100:],
    "bytes in the middle": lambda data: data[: len(data) // 2] + b"\xff" * 8192 + data[len(data) // 2 + 8192 :],
    "cut short": lambda data: data[: len(data) // 2],
    "another file": lambda data: b"hello",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_file_that_is_damaged(small, damage):
    small.run()
    path = small.folder / connection.FILE
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"metadata\.sqlite: must be a whole SQLite database\. Received: .*Put a copy"):
        connection.begin(small.folder)
    assert path.read_bytes() == before


@pytest.mark.parametrize("damage", [name for name in DAMAGES if name != "bytes in the middle"])
def test_of_a_damaged_file_the_commands_say_so(small, damage):
    path = small.folder / connection.FILE
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    with pytest.raises(InputError, match="must be a whole SQLite database"):
        Store(Home.open(small.folder)).runs()


def test_a_file_that_another_process_has_locked(small, monkeypatch):
    monkeypatch.setattr(connection, "_LOCKED_SECONDS", 0.1)
    script = (
        "import sqlite3, sys; held = sqlite3.connect(sys.argv[1], isolation_level=None); "
        "held.execute('BEGIN EXCLUSIVE'); print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", script, str(small.folder / connection.FILE)]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        other.stdout.readline()
        with pytest.raises(StoreError, match="another process holds it locked"):
            connection.begin(small.folder)
    finally:
        other.communicate()
    connection.begin(small.folder)


def test_no_number_is_given_twice_in_a_home(small, tmp_path):
    """A store that is gone, or an older copy of it, knows less than there are folders."""
    small.run()
    path = small.folder / connection.FILE
    older = tmp_path / "older"
    shutil.copy(path, older)
    small.run(begins_with="CorpusGen")
    for store in (older, None):
        path.unlink()
        if store:
            shutil.copy(store, path)
        of = connection.begin(small.folder)
        connection.begin(small.folder)  # which finds nothing to do
        newest = max(execution.id for execution in connection.connect(of).get_executions())
        assert newest == small.made
        with sqlite3.connect(path) as database:
            assert database.execute("PRAGMA quick_check").fetchone() == ("ok",)


def test_a_home_without_runs(tmp_path):
    of = connection.begin(tmp_path)
    assert connection.connect(of).get_executions() == []


@pytest.mark.parametrize(
    ("url", "kind", "expected"),
    [
        ("mysql://bert@db/runs", "mysql", {"host": "db", "port": 3306, "user": "bert", "database": "runs"}),
        ("mysql://b%40x@db:33/runs?ca=/c.pem", "mysql", {"port": 33, "user": "b@x"}),
    ],
)
def test_a_database_is_named_by_a_url(tmp_path, monkeypatch, url, kind, expected):
    monkeypatch.setenv(connection.VARIABLE, url)
    monkeypatch.setenv(connection.PASSWORD, "secret")
    of = connection.config(tmp_path)
    given = getattr(of, kind)
    assert {name: getattr(given, name) for name in expected} == expected
    assert "secret" not in str(of)
    assert ("c.pem" in str(of)) == ("ca=" in url)


@pytest.mark.parametrize(
    "url",
    [
        "mysql://bert:secret@db/runs",
        "mysql://db/runs",
        "mysql://bert@db",
        "sqlite:///a",
        "mysql://bert@db:x/runs",
        "mysql://bert@db/runs?sslmode=on",
        "bert",
    ],
)
def test_what_names_no_database(tmp_path, monkeypatch, url):
    monkeypatch.setenv(connection.VARIABLE, url)
    with pytest.raises(InputError, match=r"BERT_METADATA must be mysql://.*BERT_METADATA_PASSWORD\. Received") as error:
        connection.config(tmp_path)
    assert "secret" not in str(error.value)


def test_a_home_has_one_store(small, tmp_path, monkeypatch):
    monkeypatch.setenv(connection.VARIABLE, "mysql://bert@db/runs")
    with pytest.raises(InputError, match=r"known to metadata\.sqlite.*move that file away"):
        connection.config(small.folder)
    (tmp_path / connection.NOTE).write_text("mysql://bert@db/others\n")
    with pytest.raises(InputError, match=r"known to mysql://bert@db/others\. Received: BERT_METADATA=mysql"):
        connection.config(tmp_path)
    monkeypatch.delenv(connection.VARIABLE)
    assert connection.config(tmp_path).mysql.database == "others"


def test_a_database_that_does_not_answer(tmp_path, monkeypatch):
    monkeypatch.setenv(connection.VARIABLE, "mysql://bert@127.0.0.1:1/runs")
    with pytest.raises(StoreError, match=r"mysql://bert@127\.0\.0\.1:1/runs: a server must listen there"):
        connection.connect(connection.config(tmp_path), patience=1.0)


def test_a_database_that_ml_metadata_writes_wrongly_into(tmp_path, monkeypatch):
    monkeypatch.setenv(connection.VARIABLE, "postgresql://bert:secret@db/runs")
    with pytest.raises(InputError, match="must be of MySQL or MariaDB") as error:
        connection.config(tmp_path)
    assert "secret" not in str(error.value)


def test_a_full_disk_is_told_also_behind_a_query(tmp_path):
    """As ML Metadata says it of a write, and of one whose query it takes for a name that is there already."""
    of = connection.config(tmp_path)
    said = "Error when executing query: database or disk is full query: INSERT INTO `Type`"
    full = pytest.raises(StoreError, match=r"metadata\.sqlite: no space left on the device; make room")
    for whole in (said, f"Given node already exists: type_id: 13\nINTERNAL: {said}"):
        with full, connection.telling(of):
            raise errors.AlreadyExistsError(whole)
