"""Bad input ends in one line that names file and way out; each run here stops at its first step."""

import errno
import fcntl
import json
import os
import pathlib
import time

import pytest

from pipeline import settings
from pipeline.components import documents
from pipeline.runs import run as runs
from preprocessing.errors import InputError

PARAGRAPH = "A paragraph of a few words, which says nothing at all. It has two sentences.\n"


def message_of(tmp_path, **files) -> str:
    """What a run on these files ends with."""
    for name, data in files.items():
        (tmp_path / f"{name}.txt").write_bytes(data)
    run = settings.smoke()
    corpus = settings.dataclasses.replace(run.corpus, input=(str(tmp_path / "*.txt"),))
    with pytest.raises(InputError) as error:
        runs.run(run.replace(corpus=corpus), tmp_path / "home")
    assert "\n" not in str(error.value)
    assert not list((tmp_path / "home").glob("artifacts/CorpusGen/documents/*/report.json"))
    return str(error.value)


def good(number_of_documents: int) -> bytes:
    return "\n".join(f"Number {i}. {PARAGRAPH}" * 3 for i in range(number_of_documents)).encode()


def test_no_file_matches(tmp_path):
    assert "no file matches" in message_of(tmp_path)


def test_an_empty_file(tmp_path):
    assert "a.txt: the file is empty" in message_of(tmp_path, a=b"")


def test_a_file_of_blank_lines(tmp_path):
    assert "nothing but blank lines" in message_of(tmp_path, a=b"\n  \n\n")


def test_one_document_only(tmp_path):
    message = message_of(tmp_path, a=PARAGRAPH.encode() * 5)
    assert "need at least 2 documents each" in message
    assert "Received: {'train': " in message


@pytest.mark.parametrize(
    ("line", "reason"), [(b"caf\xe9 au lait\n", "UTF-8"), (b"a\0b\n", "NUL")], ids=["invalid UTF-8", "NUL bytes"]
)
def test_too_many_lines_that_cannot_be_used(tmp_path, line, reason):
    message = message_of(tmp_path, a=good(20) + b"\n" + line * 5)
    assert "a.txt:81: " in message
    assert reason in message


def test_a_single_line_of_100_megabytes(tmp_path):
    message = message_of(tmp_path, a=good(2) + b"\n" + b"x" * 100_000_000 + b"\n")
    assert "a.txt:9: " in message
    assert "10,000,000 bytes" in message


def test_a_folder_that_cannot_be_read(tmp_path, monkeypatch):
    from apache_beam.io.filesystems import FileSystems

    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path))

    monkeypatch.setattr(FileSystems, "match", refuse)
    message = message_of(tmp_path, a=good(2))
    assert str(tmp_path) in message
    assert "Permission denied" in message


def test_an_output_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot be written: .* Set BERT_HOME to another folder"):
        runs.run(settings.smoke(), tmp_path / "file" / "home")


def test_a_full_disk(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(documents.embedded, "write", full)
    with pytest.raises(InputError, match="CorpusGen: the output: no space left on the device; make room"):
        runs.run(settings.smoke(), tmp_path)


def test_a_full_disk_is_no_bad_input_although_a_worker_told_of_it_as_such():
    error = InputError(os.strerror(errno.ENOSPC))
    assert runs.input_error(error) == "the output: no space left on the device; make room, or set BERT_HOME"


def test_the_corpus_and_the_settings_come_from_the_environment(tmp_path):
    run, home = runs.from_environment(
        {"BERT_SETTINGS": "smoke", "BERT_CORPUS": "a.txt 'b c.txt'", "BERT_HOME": str(tmp_path)}
    )
    assert (run.corpus.input, home) == (("a.txt", "b c.txt"), tmp_path)
    run, home = runs.from_environment({})
    assert (run, home) == (settings.demo(), pathlib.Path(".bert").absolute())


def test_the_span_is_of_corpora_in_spans():
    span = {"BERT_SPAN": "20261126", "BERT_CORPUS": "/data/{SPAN}/*.txt"}
    assert runs.from_environment(span)[0].corpus.newest_span == 20261126
    assert runs.from_environment(span | {"BERT_CORPUS": "/data/*.txt"})[0].corpus.newest_span is None
    with pytest.raises(InputError, match="BERT_SPAN must be a number"):
        runs.from_environment({"BERT_SPAN": "today"})


def test_an_error_of_ours_is_found_behind_those_of_beam_and_tfx():
    wrapped = RuntimeError("wrapped")
    wrapped.__cause__ = InputError("a.txt:3: broken")
    assert runs.input_error(wrapped) == "a.txt:3: broken"
    assert runs.input_error(KeyError("x")) is None


def test_one_run_at_a_time(tmp_path):
    with open(tmp_path / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(InputError, match=r"another run is at work there\. Wait for its end, or set BERT_HOME"):
            runs.run(settings.smoke(), tmp_path)
    assert not (tmp_path / "settings.json").exists()


def test_an_environment_that_cannot_be_read():
    with pytest.raises(InputError, match=r"CORPUS is read as a shell .*Received: /data/o'reilly/\*\.txt"):
        runs.from_environment({"BERT_CORPUS": "/data/o'reilly/*.txt"})
    with pytest.raises(InputError, match="BERT_HOME must be a local folder"):
        runs.from_environment({"BERT_HOME": "gs://bucket/home"})


def report(home):
    return json.loads((home / "reports" / "report.json").read_text())


def test_the_report_of_a_run_that_fails_says_so(tmp_path):
    (tmp_path / "home" / "reports").mkdir(parents=True)
    (tmp_path / "home" / "reports" / "report.json").write_text('{"blessed": true}')
    message = message_of(tmp_path, a=b"")
    found = report(tmp_path / "home")
    assert (found["state"], found["error"]) == ("failed", message)
    assert "blessed" not in found
    message = message_of(tmp_path, a=PARAGRAPH.encode() * 5)
    second = report(tmp_path / "home")
    assert (second["state"], second["node"]) == ("failed", "CorpusGen")
    assert message == f"CorpusGen: {second['error']}" or message == second["error"]
    assert second["run"] != found["run"]


def test_a_training_that_nothing_was_written_to_for_a_week_is_removed(tmp_path):
    for name, age in (("old", 8), ("young", 6)):
        (tmp_path / name / "checkpoints").mkdir(parents=True)
        (tmp_path / name / "run.json").write_text("{}")
        then = time.time() - age * 24 * 3600
        for path in (tmp_path / name / "run.json", tmp_path / name / "checkpoints", tmp_path / name):
            os.utime(path, (then, then))
    runs.remove_superseded(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["young"]
    runs.remove_superseded(tmp_path / "none")


def test_a_home_whose_path_reads_like_a_glob_has_a_link_that_does_not(tmp_path, monkeypatch):
    monkeypatch.setattr(runs.tempfile, "gettempdir", lambda: str(tmp_path))
    home = tmp_path / "home [1] x"
    home.mkdir()
    link = runs.without_signs(home)
    assert not set("*?[]") & set(str(link.relative_to(tmp_path)))
    assert link.samefile(home)
    assert runs.without_signs(home) == link  # in each run
    assert runs.without_signs(tmp_path / "home 'x' ü") == tmp_path / "home 'x' ü"
    link.unlink()
    link.symlink_to(tmp_path)
    with pytest.raises(InputError, match=r"needs the link .* which is another's"):
        runs.without_signs(home)
