"""Folders that are being written: one process each, and nothing of killed ones stays."""

import errno
import glob
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from preprocessing import storage
from preprocessing.errors import InputError
from tests import remote
from tests.data import ROOT

HOLDS = """
import pathlib, sys, time
from preprocessing import storage
from preprocessing.errors import InputError
with storage.unfinished(pathlib.Path(sys.argv[1]), ".unfinished-a-") as folder:
    (folder / "half").write_text("half")
    print(folder, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def writer(tmp_path):
    """(A process that is writing into a folder of `tmp_path`, the folder.)"""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    yield process, pathlib.Path(process.stdout.readline().strip())
    process.kill()
    process.communicate()


def test_what_a_killed_process_left_is_removed_by_the_next(writer, tmp_path):
    process, left = writer
    (tmp_path / ".unfinished-b-x").mkdir()
    with storage.unfinished(tmp_path, ".unfinished-a-") as folder:
        assert (left / "half").exists(), "it is still at work"
        assert folder != left
    process.send_signal(signal.SIGKILL)
    process.wait()
    with storage.unfinished(tmp_path, ".unfinished-a-") as folder:
        assert set(tmp_path.iterdir()) == {folder, tmp_path / ".unfinished-b-x"}
    assert [path.name for path in tmp_path.iterdir()] == [".unfinished-b-x"]


def test_what_got_its_name_stays(tmp_path):
    with storage.unfinished(tmp_path / "new", ".x-") as folder:
        assert folder.stat().st_mode & 0o777 == 0o755
        folder.rename(tmp_path / "whole")
    assert (tmp_path / "whole").is_dir()


def test_a_filesystem_without_locks(tmp_path, monkeypatch):
    """Nobody knows then whether what is there is still being written."""

    def refuse(descriptor, how):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(storage.fcntl, "flock", refuse)
    (tmp_path / ".x-left").mkdir()
    with storage.unfinished(tmp_path, ".x-"):
        assert (tmp_path / ".x-left").exists()


class TestSignsOfGlobs:
    @pytest.mark.parametrize("name", ["home [1] x", "a*b", "q?", "back\\slash"])
    def test_another_path_of_a_folder_and_of_files(self, tmp_path, name):
        folder = tmp_path / name
        folder.mkdir()
        for ending in ("index", "data-00000-of-00001"):
            (folder / f"ckpt.{ending}").write_text(ending)
        (folder / "other").touch()
        holder, plain = storage.without_glob(str(folder))
        assert not set("*?[]\\") & set(plain)
        assert os.path.samefile(plain, folder)
        kept, prefix = storage.without_glob(str(folder / "ckpt"))
        assert not set("*?[]\\") & set(prefix)
        assert [os.path.basename(path) for path in sorted(glob.glob(f"{prefix}*"))] == [
            "link.data-00000-of-00001",
            "link.index",
        ]
        holder.cleanup()
        kept.cleanup()
        assert not os.path.lexists(plain)
        assert len(list(folder.iterdir())) == 3

    @pytest.mark.parametrize("path", ["/a b/ü 'q'", "gs://bucket/a[1]"])
    def test_others_stay(self, path):
        assert storage.without_glob(path) == (None, path)

    def test_folders_that_exist_are_no_globs(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "x [1]").mkdir()
        (tmp_path / "x [1]" / "a.txt").touch()
        assert glob.glob(storage.as_glob("x [1]/*.txt")) == ["x [1]/a.txt"]
        assert glob.glob(storage.as_glob(f"{tmp_path}/x [1]/[a].txt")) == [f"{tmp_path}/x [1]/a.txt"]
        assert storage.as_glob("x [2]/*") == "x [2]/*"


def test_a_full_disk_is_told_and_the_file_stays_as_it_was(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    storage.write_whole("before", tmp_path / "file")
    monkeypatch.setattr(storage.os, "fsync", full)
    with pytest.raises(InputError, match="file: no space left on the device; make room"):
        storage.write_whole("after", tmp_path / "file")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "before"


def test_a_remote_file_is_copied_once_as_it_is(tmp_path):
    (tmp_path / "a.tsv").write_bytes(b"one\r\n\xff")
    path = remote.shelved(tmp_path / "a.tsv")
    assert storage.is_file(path)
    assert not storage.is_file(f"{path}x")
    copy = storage.local(path)
    assert pathlib.Path(copy).read_bytes() == b"one\r\n\xff"
    assert storage.local(path) == copy
    assert storage.local(str(tmp_path / "a.tsv")) == str(tmp_path / "a.tsv")


def test_a_remote_file_that_cannot_be_read_is_named():
    with pytest.raises(InputError, match=r"^nowhere://b/a\.tsv: cannot be read: Unable to get filesystem"):
        storage.is_file("nowhere://b/a.tsv")
    with pytest.raises(InputError, match=r"^shelf://none/a\.tsv: cannot be read: .*No such file"):
        storage.local("shelf://none/a.tsv")


def test_a_remote_file_that_does_not_answer_is_named(monkeypatch, capsys):
    monkeypatch.setattr(storage, "SILENCE", 0.01)
    for name in ("/here", "gs://far/away"):
        with storage.reading(name):
            time.sleep(0.2)
    assert capsys.readouterr().err == "bert: gs://far/away: still reading after 0.01 s\n"
    with storage.reading("gs://near"):
        pass
    time.sleep(0.1)
    assert not capsys.readouterr().err
