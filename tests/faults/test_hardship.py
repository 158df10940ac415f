"""A disk that is full, a store that is gone or behind, a clock that was set back, outputs that are not whole: the run
says what it is, and the next one pushes what one that was not disturbed pushes."""

import os
import pathlib
import shutil
import sqlite3
import subprocess
import time

import pytest

from pipeline.history import lineage
from pipeline.history import runs as history
from pipeline.history.homes import Home
from tests.faults import tiny

pytestmark = [pytest.mark.faults, pytest.mark.timeout(3600)]


class Disk:
    """A small filesystem in memory at a folder. Skips the test where it cannot be had."""

    def __init__(self, folder: pathlib.Path, **options):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        said = ",".join(f"{name}={value}" for name, value in options.items())
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", said, "tmpfs", folder], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"a disk that is really full needs root and mount: {done.stderr.strip()}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        subprocess.run(["umount", "-l", self.folder], check=True)


def size(folder: pathlib.Path) -> int:
    """Bytes that files take in pages."""
    return sum(-(-path.lstat().st_size // 4096) * 4096 for path in folder.rglob("*") if path.is_file())


def test_a_disk_that_is_full_in_each_step(runs, undisturbed, tmp_path):
    home = tmp_path / "home"
    said = {}
    for step in [node["node"] for node in tiny.nodes(undisturbed)]:
        places = [home / "artifacts" / step] if step != "Pusher" else [home / "serving"]
        whole = undisturbed / places[0].relative_to(home)
        limits = [{"nr_inodes": 2}]
        if size(whole) > 3 * 4096:
            limits.append({"size": size(whole) // 2})
        for limit in limits:
            with Disk(places[0], **limit):
                said[(step, *limit)] = runs.finish(home, status=1).splitlines()[-1]
        if step == "Trainer":  # whose checkpoints lie elsewhere
            with Disk(home / "training", size=64 * 1024):
                said[step, "checkpoints"] = runs.finish(home, status=1).splitlines()[-1]
        found = tiny.nodes(home)[-1]
        assert (found["node"], found["state"]) == (step, "failed"), said
    wrong = {case: line for case, line in said.items() if "no space left on the device; make room" not in line}
    assert not wrong
    runs.finish(home)
    assert tiny.same(tiny.weights(undisturbed), tiny.weights(home))


@pytest.mark.parametrize("place", ["", "reports", "logs"])
def test_a_disk_that_is_full_beside_the_steps(runs, undisturbed, tmp_path, place):
    """The store, the record of the run, the log."""
    home = tmp_path / "home"
    (home / place).mkdir(parents=True, exist_ok=True)
    kept = tmp_path / "kept"
    with Disk(home / place, size=300 * 1024 if not place else 8192):
        said = runs.finish(home, status=1 if place != "logs" else 0) if place else None
        if not place:
            runs.start(home)
            assert runs.wait() in (1, 75)
            said = home.with_suffix(".log").read_text()
            shutil.copytree(home, kept)
    assert place == "logs" or "no space left on the device" in said
    if not place:
        shutil.copytree(kept, home, dirs_exist_ok=True)
    runs.finish(home)
    assert tiny.same(tiny.weights(undisturbed), tiny.weights(home))


@pytest.mark.parametrize("what", ["gone", "behind"])
def test_a_store_that_is_gone_or_an_older_copy(runs, undisturbed, tmp_path, what):
    """What lies in folders that it does not know is nobody's new output, and it stays as it was."""
    home = tmp_path / "home"
    run = tiny.tiny()
    if what == "behind":
        other = run.replace(training=tiny.dataclasses.replace(run.training, steps=4))
        runs.finish(home, other)
        shutil.copy(home / "metadata.sqlite", tmp_path / "older")
    runs.finish(home)
    before = {path: path.read_bytes() for path in home.glob("artifacts/*/*/*/**/*") if path.is_file()}
    (home / "metadata.sqlite").unlink()
    if what == "behind":
        shutil.copy(tmp_path / "older", home / "metadata.sqlite")
    runs.finish(home)
    assert [node["state"] for node in tiny.nodes(home)].count("ran") == (15 if what == "gone" else 5)
    assert {path: path.read_bytes() for path in before} == before
    versions = sorted((home / "serving" / "bert").glob("[0-9]*"))
    shutil.copytree(versions[-1], tmp_path / "last" / "serving" / "bert" / "1")
    assert tiny.same(tiny.weights(undisturbed), tiny.weights(tmp_path / "last"))
    lineage.trace(Home.open(home), str(home / "serving" / "bert"), versions[-1].name)


def test_a_clock_that_was_set_back(runs, undisturbed, tmp_path):
    """The run before was a year from now. (Its artifacts keep their times, by which TFX knows what came of them.)"""
    home, ahead = tmp_path / "home", 365 * 24 * 3600
    run = tiny.tiny()
    other = run.replace(training=tiny.dataclasses.replace(run.training, steps=4))
    runs.finish(home, other)
    with sqlite3.connect(home / "metadata.sqlite") as store:
        for table in ("Execution", "Context"):
            store.execute(
                f"UPDATE {table} SET create_time_since_epoch = create_time_since_epoch + {ahead * 1000}, "
                f"last_update_time_since_epoch = last_update_time_since_epoch + {ahead * 1000}"
            )
        store.execute(f"UPDATE Event SET milliseconds_since_epoch = milliseconds_since_epoch + {ahead * 1000}")
    (version,) = (home / "serving" / "bert").glob("[0-9]*")
    later = version.with_name(str(int(version.name) + ahead))
    version.rename(later)
    record = home / "serving" / "bert" / ".pushed.json"
    record.write_text(record.read_text().replace(version.name, later.name))
    for file in (home / "reports").rglob("run.json"):
        file.write_text(file.read_text().replace('"started": "20', '"started": "21'))
    for path in home.rglob("*"):
        os.utime(path, (time.time() + ahead,) * 2, follow_symlinks=False)

    runs.finish(home)
    states = [node["state"] for node in tiny.nodes(home)]
    assert states.count("cached") == 10
    newest = max((home / "serving" / "bert").glob("[0-9]*"), key=lambda path: int(path.name))
    assert int(newest.name) == int(later.name) + 1
    assert [entry["version"] for entry in history.listed(Home.open(home))][-1] == newest.name
    shutil.copytree(newest, tmp_path / "last" / "serving" / "bert" / "1")
    assert tiny.same(tiny.weights(undisturbed), tiny.weights(tmp_path / "last"))
    runs.finish(home)
    assert {node["state"] for node in tiny.nodes(home)} == {"cached"}


def test_outputs_that_are_no_longer_whole(runs, undisturbed, tmp_path):
    home = tmp_path / "home"
    runs.finish(home)
    (examples,) = home.glob("artifacts/MaskedExamplesGen/examples/*/Split-train/*")
    os.truncate(examples, 100)
    (model,) = home.glob("artifacts/Trainer/model/*/Format-Serving/variables/variables.index")
    model.unlink()
    said = runs.finish(home)
    assert said.count("no longer whole") == 2
    versions = sorted((home / "serving" / "bert").glob("[0-9]*"))
    shutil.copytree(versions[-1], tmp_path / "last" / "serving" / "bert" / "1")
    assert tiny.same(tiny.weights(undisturbed), tiny.weights(tmp_path / "last"))


def test_two_runs_at_once(runs, undisturbed, tmp_path):
    with tiny.runs(tmp_path) as others:
        home = tmp_path / "home"
        runs.start(home)
        while not tiny.nodes(home):
            time.sleep(0.01)
        said = others.finish(home, status=75)
        assert "another run is at work there. Wait for its end, or set BERT_HOME" in said
        assert runs.wait() == 0
    assert tiny.same(tiny.weights(undisturbed), tiny.weights(home))
