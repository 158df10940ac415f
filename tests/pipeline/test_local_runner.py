"""Bad input ends in one line that names file and way out; each run here stops at its first step."""

import errno
import fcntl
import os
import pathlib

import pytest

from pipeline import local_runner, settings, summary
from pipeline.components import documents
from preprocessing.errors import InputError

PARAGRAPH = "A paragraph of a few words, which says nothing at all. It has two sentences.\n"


def message_of(tmp_path, **files) -> str:
    """What a run on these files ends with."""
    for name, data in files.items():
        (tmp_path / f"{name}.txt").write_bytes(data)
    run = settings.smoke()
    corpus = settings.dataclasses.replace(run.corpus, input=(str(tmp_path / "*.txt"),))
    with pytest.raises(InputError) as error:
        local_runner.run(run.replace(corpus=corpus), tmp_path / "home")
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
        local_runner.run(settings.smoke(), tmp_path / "file" / "home")


def test_a_full_disk(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(documents.embedded, "write", full)
    with pytest.raises(InputError, match="CorpusGen: the output: no space left on the device; make room"):
        local_runner.run(settings.smoke(), tmp_path)


def test_the_corpus_and_the_settings_come_from_the_environment(tmp_path):
    run, home = local_runner.from_environment(
        {"BERT_SETTINGS": "smoke", "BERT_CORPUS": "a.txt 'b c.txt'", "BERT_HOME": str(tmp_path)}
    )
    assert (run.corpus.input, home) == (("a.txt", "b c.txt"), tmp_path)
    run, home = local_runner.from_environment({})
    assert (run, home) == (settings.demo(), pathlib.Path(".bert").absolute())


def test_an_error_of_ours_is_found_behind_those_of_beam_and_tfx():
    wrapped = RuntimeError("wrapped")
    wrapped.__cause__ = InputError("a.txt:3: broken")
    assert local_runner.input_error(wrapped) == "a.txt:3: broken"
    assert local_runner.input_error(KeyError("x")) is None


def test_one_run_at_a_time(tmp_path):
    with open(tmp_path / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(InputError, match=r"another run is at work there\. Wait for its end, or set BERT_HOME"):
            local_runner.run(settings.smoke(), tmp_path)
    assert not (tmp_path / "settings.json").exists()


def test_an_environment_that_cannot_be_read():
    with pytest.raises(InputError, match=r"CORPUS is read as a shell .*Received: /data/o'reilly/\*\.txt"):
        local_runner.from_environment({"BERT_CORPUS": "/data/o'reilly/*.txt"})
    with pytest.raises(InputError, match="BERT_HOME must be a local folder"):
        local_runner.from_environment({"BERT_HOME": "gs://bucket/home"})


def pushed(folder, content):
    folder.mkdir(parents=True)
    (folder / "fingerprint.pb").write_bytes(content)
    return folder


def test_what_was_pushed_and_is_no_longer_served_is_pushed_again(tmp_path):
    model = pushed(tmp_path / "model" / "Format-Serving", b"model").parent
    serving = tmp_path / "serving"
    report = {"blessed": True, "model": str(model), "serving_folder": str(serving), "pushed_to": str(serving / "3")}
    summary.push_again(report)  # removed by someone
    first = pathlib.Path(report["pushed_to"])
    assert (first / "fingerprint.pb").read_bytes() == b"model"
    summary.push_again(report)
    assert pathlib.Path(report["pushed_to"]) == first
    pushed(serving / str(int(first.name) + 5), b"other")  # another model since
    summary.push_again(report)
    assert int(pathlib.Path(report["pushed_to"]).name) == int(first.name) + 6
    refused = {**report, "blessed": False, "pushed_to": None, "serving_folder": str(tmp_path / "none")}
    summary.push_again(refused)
    assert refused["pushed_to"] is None
    assert not (tmp_path / "none").exists()
