"""Airflow as `make airflow` starts it, with PostgreSQL: runs on a schedule, of which the first loses its Trainer and
the last ones their input."""

import contextlib
import dataclasses
import ipaddress
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator

import pytest

from pipeline import local_runner, settings
from preprocessing.corpus import embedded
from preprocessing.settings import CorpusSettings
from tests.data import ROOT
from tests.pipeline import webhook
from tests.pipeline.runs.test_processes import weights
from tests.pipeline.test_airflow_dag import environment

pytestmark = [pytest.mark.airflow, pytest.mark.timeout(3600)]
START = ROOT / "pipeline" / "deploy" / "airflow" / "start"


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


@pytest.fixture
def postgres(tmp_path):
    """URL of an empty database of a server of its own; skips the test where there is none."""
    programs = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not programs:
        pytest.skip("needs PostgreSQL (apt install postgresql)")
    folder, port = tmp_path / "postgres", free_port()
    folder.mkdir()
    user = []
    if os.geteuid() == 0:  # as whom it does not run
        shutil.chown(folder, "postgres")
        for parent in (tmp_path, *tmp_path.parents[:2]):
            parent.chmod(0o755)
        user = ["runuser", "-u", "postgres", "--"]
    places = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1"
    command = [*user, str(programs[-1].with_name("pg_ctl")), "-D", str(folder / "data"), "-l", str(folder / "log")]
    subprocess.run([*command, "initdb", "-o", "-A trust -U bert"], check=True, stdout=subprocess.DEVNULL)
    subprocess.run([*command, "-w", "-o", places, "start"], check=True, stdout=subprocess.DEVNULL)
    yield f"postgresql://bert@127.0.0.1:{port}/postgres"
    subprocess.run([*command, "-m", "immediate", "stop"], check=False, stdout=subprocess.DEVNULL)


def until(condition, seconds: float, process: subprocess.Popen):
    """What a condition gives once it holds."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert process.poll() is None, "Airflow has ended"
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.1)
    return found


def at_work(home: pathlib.Path, node: str) -> list[int]:
    """Ids of the processes that run a node of a home."""
    found = []
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (folder / "cmdline").read_bytes().split(b"\0")
            variables = (folder / "environ").read_bytes().split(b"\0")
            if node.encode() in command and f"BERT_HOME={home}".encode() in variables:
                found.append(int(folder.name))
    return found


def listening(root: int) -> set[str]:
    """Addresses, `host:port`, at which a process, and what it started, wait for connections."""
    parents, family = {}, {root}
    for status in pathlib.Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(status.parent.name)] = int(status.read_text().rpartition(")")[2].split()[1])
    while more := {child for child, parent in parents.items() if parent in family} - family:
        family |= more
    sockets = set()
    for process in family:
        with contextlib.suppress(OSError):
            for file in pathlib.Path(f"/proc/{process}/fd").iterdir():
                with contextlib.suppress(OSError):
                    sockets.add(os.readlink(file))
    found = set()
    for kind, protocol in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        table = pathlib.Path("/proc/net", kind)
        for line in table.read_text().splitlines()[1:] if table.exists() else ():
            _, local, _, state, *more = line.split()
            if state == "0A" and f"socket:[{more[5]}]" in sockets:
                host, port = local.split(":")
                words = [bytes.fromhex(host[at : at + 8])[::-1] for at in range(0, len(host), 8)]
                found.add(f"{socket.inet_ntop(protocol, b''.join(words))}:{int(port, 16)}")
    return found


def not_loopback(addresses: set[str]) -> list[str]:
    hosts = {address: address.rpartition(":")[0] for address in addresses}
    return [
        address for address, host in hosts.items() if not ipaddress.ip_address(host.removeprefix("::ffff:")).is_loopback
    ]


def test_what_listens_is_seen():
    everywhere = socket.create_server(("0.0.0.0", 0))
    both = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    with everywhere, both, socket.create_server(("127.0.0.1", 0)) as own:
        child = subprocess.Popen(["sleep", "60"], pass_fds=[found.fileno() for found in (everywhere, both, own)])
        found = listening(child.pid)
        child.kill()
        child.wait()
        ports = [server.getsockname()[1] for server in (everywhere, both, own)]
    assert found == {f"0.0.0.0:{ports[0]}", f":::{ports[1]}", f"127.0.0.1:{ports[2]}"}
    assert sorted(not_loopback(found)) == [f"0.0.0.0:{ports[0]}", f":::{ports[1]}"]


@contextlib.contextmanager
def started(home: pathlib.Path, postgres: str, **variables: str) -> Iterator[subprocess.Popen]:
    """Airflow over a home, whose DAG runs each minute that it is free in."""
    given = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "BERT_HOME": str(home),
        "BERT_PYTHON": sys.executable,
        "BERT_SCHEDULE": "* * * * *",
        "POSTGRES": postgres,
        "PORT": str(free_port()),
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
    }
    process = subprocess.Popen([START], env={**given, **variables}, start_new_session=True)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def test_it_opens_nothing_but_loopback(tmp_path):
    """All parts of it at work, over SQLite; its DAGs are paused."""
    environment("3")  # or skip
    port = free_port()

    def healthy() -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v2/monitor/health", timeout=5) as answer:
                parts = json.load(answer)
        except OSError:
            return False
        return all(parts[name]["status"] == "healthy" for name in ("metadatabase", "scheduler", "dag_processor"))

    paused = {"AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "True", "PORT": str(port)}
    with started(tmp_path / "home", "", **paused) as process:
        until(healthy, 600, process)
        time.sleep(5)  # what a part opens after its first sign of life
        found = listening(process.pid)
    assert f"127.0.0.1:{port}" in found
    assert not_loopback(found) == []


def test_runs_on_a_schedule_and_a_killed_trainer_that_goes_on(tmp_path, postgres):
    environment("3")  # or skip
    run = settings.smoke()
    training = dataclasses.replace(run.training, steps=400, checkpoint_every=20)
    home, wanted = tmp_path / "home", tmp_path / "run.json"
    wanted.write_text(good := run.replace(training=training).to_json())
    runs = home / "reports" / "run.json"

    def done(after: str = "") -> dict | None:
        """The record of a later run that has ended well."""
        found = json.loads(runs.read_text()) if runs.exists() else {"state": "none"}
        return found if found["state"] == "done" and found["run"] > after else None

    given = {"BERT_SETTINGS": str(wanted)}
    with webhook.listening() as (url, told), started(home, postgres, **given, BERT_WEBHOOK=url) as process:
        until(lambda: list(home.glob("training/*/checkpoints/*.index")), 1800, process)
        assert not_loopback(listening(process.pid)) == []  # its workers neither
        killed = at_work(home, "Trainer")
        assert killed
        for trainer in killed:
            os.kill(trainer, signal.SIGKILL)
        first = until(done, 1800, process)
        second = until(lambda: done(first["run"]), 1800, process)
        assert told == []  # the Trainer was tried again
        wanted.write_text(run.replace(corpus=CorpusSettings(("/none/*.txt",))).to_json())
        until(lambda: told, 600, process)
        until(lambda: len({notice["run"] for notice in told}) > 1, 600, process)  # so the first is done with
    assert len(told) == len({notice["run"] for notice in told})
    assert {(notice["dag"], notice["step"]) for notice in told} == {("bert", "compile")}
    assert "no file matches '/none/*.txt'" in told[0]["error"]
    assert [node["state"] for node in first["nodes"]] == ["ran"] * 15
    assert [node["state"] for node in second["nodes"]] == ["cached"] * 15
    tries = home.glob("airflow/logs/**/task_id=model.Trainer/attempt=2.log")
    assert any(first["run"] in str(log) for log in tries)

    wanted.write_text(good)
    whole = {"PYTHONPATH": str(ROOT), "BERT_SETTINGS": str(wanted), "BERT_HOME": str(tmp_path / "whole")}
    undisturbed = {**os.environ, **whole}
    subprocess.run([sys.executable, local_runner.__file__], env=undisturbed, check=True, capture_output=True)
    expected, found = weights(tmp_path / "whole"), weights(home)
    assert expected.keys() == found.keys()
    assert all((found[name] == value).all() for name, value in expected.items())


def test_a_backfill_makes_the_days_one_after_the_other(tmp_path):
    """`airflow backfill` over SQLite, as the README says it: each day goes on from the one before."""
    folder, home = environment("3"), tmp_path / "home"  # or skip
    texts = [text for _, text in embedded.documents(400_000)]
    for place, day in enumerate(("20261120", "20261121")):
        (tmp_path / f"{day}.txt").write_text("\n\n".join("\n".join(lines) for lines in texts[place::2]))
    run, wanted = settings.smoke(), tmp_path / "run.json"
    corpus = dataclasses.replace(run.corpus, input=(f"{tmp_path}/{{SPAN}}.txt",), window=2)
    run = run.replace(corpus=corpus, vocabulary=dataclasses.replace(run.vocabulary, max_unknown_increase=0.1))
    wanted.write_text(run.to_json())
    earlier = time.gmtime(time.time() - 2 * 3600)  # so that none is due while the test runs
    given = {"BERT_SETTINGS": str(wanted), "BERT_SCHEDULE": f"{earlier.tm_min} {earlier.tm_hour} * * *"}
    days = f"--from-date 2026-11-20 --to-date 2026-11-22T{earlier.tm_hour:02}:00 --max-active-runs 1"
    command = [folder / "airflow", "backfill", "create", "--dag-id", "bert", *days.split()]
    cli = {**os.environ, "AIRFLOW_HOME": str(home / "airflow"), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}

    def ended() -> list[dict]:
        records = [json.loads(path.read_text()) for path in sorted(home.glob("reports/runs/backfill*/report.json"))]
        assert "failed" not in [record["state"] for record in records]
        return records if [record["state"] for record in records] == ["done", "done"] else []

    with started(home, "", **given) as process:
        until(lambda: subprocess.run(command, env=cli, capture_output=True).returncode == 0, 600, process)
        first, second = until(ended, 2400, process)
    spans = [
        {span: made["taken_over"] for span, made in found["documents"]["spans"].items()} for found in (first, second)
    ]
    assert spans == [{"20261120": False}, {"20261120": True, "20261121": False}]
    assert second["vocabulary"]["file"] == f"{first['pushed_to']}/assets/vocab.txt"
    assert int(first["pushed_to"].rpartition("/")[2]) < int(second["pushed_to"].rpartition("/")[2])
