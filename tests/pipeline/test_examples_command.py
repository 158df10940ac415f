"""`bert examples`: what it writes, refuses and shows."""

import json
import os
import pathlib
import platform

import click
import pytest
from click.testing import CliRunner

from pipeline.commands.examples import command
from preprocessing import storage, tfrecord, vocab_file
from preprocessing.errors import InputError
from preprocessing.examples import writing
from preprocessing.features import SPECIAL_TOKENS

TEXT = "\n\n".join(f"The {animal} walked home. It was a {animal}. Then it slept." for animal in ("cat", "dog", "cow"))


@pytest.fixture
def vocab(tmp_path):
    path = tmp_path / "vocab.txt"
    words = ["the", "cat", "dog", "cow", "walk", "##ed", "home", ".", "it", "was", "a", "then", "slept"]
    vocab_file.save([*SPECIAL_TOKENS, *words], path)
    return str(path)


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text(TEXT)
    return str(path)


def invoke(*arguments):
    """What the command prints; errors as they are."""
    result = CliRunner().invoke(command, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def names(folder):
    return sorted(path.name for path in pathlib.Path(folder).iterdir())


def test_shards_and_report(tmp_path, vocab, text):
    output = tmp_path / "out"
    printed = invoke(
        "--input", text, "--vocab", vocab, "--output", output, "--shards", 2, "--compression", "gzip", "--workers", 1
    )
    assert names(output) == [
        "examples-00000-of-00002.tfrecord.gz",
        "examples-00001-of-00002.tfrecord.gz",
        "report.json",
    ]
    report = json.loads((output / "report.json").read_text())
    assert report["documents"] == 3
    assert report["sentences"] == 9
    assert report["examples"] >= 30
    assert f"examples  {report['examples']}\n" in printed
    assert "masked share" in printed


def test_the_case_is_noted(tmp_path, vocab, text):
    for arguments, lower_case in (((), True), (("--lower-case",), True), (("--cased",), False)):
        output = tmp_path / str(len(list(tmp_path.iterdir())))
        invoke("--input", text, "--vocab", vocab, "--output", output, "--workers", 1, "--dupe-factor", 1, *arguments)
        assert json.loads((output / "report.json").read_text())["lower_case"] is lower_case


def test_a_vocabulary_without_mask_is_told_before_any_text_is_read(tmp_path, vocab, text):
    tokens = [token for token in vocab_file.load(vocab) if token != "[MASK]"]
    vocab_file.save(tokens, tmp_path / "no-mask.txt")
    arguments = ("--input", text, "--vocab", tmp_path / "no-mask.txt", "--output", tmp_path / "out", "--workers", 1)
    with pytest.raises(InputError, match=r"no-mask\.txt: masking needs the token \[MASK\]"):
        invoke(*arguments)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("token", ["Paris", "café", "한국"])
def test_a_cased_vocabulary_of_which_nothing_is_said(tmp_path, vocab, text, token):
    tokens = [*vocab_file.load(vocab), token]
    vocab_file.save(tokens, tmp_path / "cased.txt")
    arguments = ("--input", text, "--vocab", tmp_path / "cased.txt", "--output", tmp_path / "out", "--workers", 1)
    with pytest.raises(
        InputError, match=r"cased\.txt: the vocabulary has capitals, accents or Korean syllables.*give --cased, or"
    ):
        invoke(*arguments)
    assert not (tmp_path / "out").exists()
    invoke(*arguments, "--lower-case", "--dupe-factor", 1)


def test_a_second_run_refuses_and_overwrites_when_told(tmp_path, vocab, text):
    output = tmp_path / "out"
    arguments = ("--input", text, "--vocab", vocab, "--output", output, "--workers", 1, "--dupe-factor", 1)
    invoke(*arguments, "--shards", 3)
    (output / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"out: the output folder is not empty; choose another or give --overwrite"):
        invoke(*arguments)
    invoke(*arguments, "--shards", 1, "--overwrite")
    assert names(output) == ["examples-00000-of-00001.tfrecord", "notes.txt", "report.json"]


def test_an_interrupted_run_leaves_nothing_that_looks_whole(tmp_path, vocab, text, monkeypatch):
    output, begun = tmp_path / "out", []

    def stop(*_):
        begun.extend(path.relative_to(output) for path in output.rglob("examples-*"))
        raise KeyboardInterrupt

    monkeypatch.setattr(tfrecord, "frame", stop)
    result = CliRunner().invoke(command, ["--input", text, "--vocab", vocab, "--output", str(output)])
    assert result.exit_code != 0
    assert begun
    assert all(path.parts[0].startswith(".unfinished-") for path in begun)
    assert names(output) == []


def test_what_a_killed_run_left_is_removed(tmp_path, vocab, text):
    output = tmp_path / "out"
    left, other = (output / f".unfinished-{name}" for name in (f"{platform.node()}-{os.getppid()}", "elsewhere-1"))
    for folder in (left, other):
        (folder / "tokens").mkdir(parents=True)
        (folder / "examples-00000-of-00001.tfrecord").write_text("half")
    (output / ".lock").touch()
    invoke("--input", text, "--vocab", vocab, "--output", output)
    assert names(output) == [other.name, "examples-00000-of-00001.tfrecord", "report.json"]


def test_a_second_run_at_the_same_time_is_refused(tmp_path, vocab, text):
    output = tmp_path / "out"
    running = output / f".unfinished-{platform.node()}-1"
    running.mkdir(parents=True)
    with storage.alone(str(output / ".lock"), ""), pytest.raises(InputError, match="one run at a time"):
        invoke("--input", text, "--vocab", vocab, "--output", output, "--overwrite")
    assert names(output) == [running.name]


def test_what_another_machine_wrote_meanwhile_stays(tmp_path, vocab, text, monkeypatch):
    output = tmp_path / "out"
    monkeypatch.setattr(tfrecord, "frame", lambda _: (output / "report.json").write_text("theirs") and b"")
    with pytest.raises(InputError, match="no other run may write there meanwhile"):
        invoke("--input", text, "--vocab", vocab, "--output", output)
    assert names(output) == ["report.json"]


def test_an_output_that_reads_like_a_glob(tmp_path, vocab, text):
    output = tmp_path / "o[u]t*?"
    (tmp_path / "out").mkdir()
    arguments = ("--vocab", vocab, "--output", output)
    for more in ((), ("--overwrite",)):
        invoke("--input", text, *arguments, *more)
        assert names(output) == ["examples-00000-of-00001.tfrecord", "report.json"]
    assert "[CLS]" in invoke(*arguments, "--show", 1)


def test_no_example_at_all(tmp_path, vocab):
    path = tmp_path / "short.txt"
    path.write_text("The\n")
    with pytest.raises(InputError, match=r"short\.txt: text must give at least one example"):
        invoke("--input", path, "--vocab", vocab, "--output", tmp_path / "out", "--pairs", "sentence-order")
    assert names(tmp_path / "out") == []


def test_lines_set_aside_by_a_run_that_fails_are_kept(tmp_path, vocab):
    path = tmp_path / "bad.txt"
    path.write_bytes(b"the cat\n\xff\n\nthe dog\n")
    output = tmp_path / "out"
    arguments = ("--input", path, "--vocab", vocab, "--output", output)
    with pytest.raises(InputError, match=r"set aside is in .*set_aside_of_failed_run\.jsonl"):
        invoke(*arguments)
    assert json.loads((output / "set_aside_of_failed_run.jsonl").read_text())["line"] == 2
    invoke(*arguments, "--max-bad-share", 0.5)
    assert names(output) == ["examples-00000-of-00001.tfrecord", "report.json", "set_aside.jsonl"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), OSError(30, "Read-only file system")])
def test_a_full_disk_is_one_line(tmp_path, vocab, text, monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(tfrecord, "frame", fail)
    with pytest.raises(InputError) as raised:
        invoke("--input", text, "--vocab", vocab, "--output", tmp_path / "out")
    message = str(raised.value)
    assert "\n" not in message
    assert ("no space left on the device; make room" in message) == (error.errno == 28)
    assert names(tmp_path / "out") == []


def test_an_unwritable_output(tmp_path, vocab, text):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="the output folder cannot be written"):
        invoke("--input", text, "--vocab", vocab, "--output", tmp_path / "file" / "out")


def test_lines_set_aside_stand_beside_the_report(tmp_path, vocab):
    path = tmp_path / "bad.txt"
    path.write_bytes(b"the cat\n\xff\n\nthe dog\n")
    output = tmp_path / "out"
    invoke("--input", path, "--vocab", vocab, "--output", output, "--max-bad-share", 0.5)
    assert json.loads((output / "set_aside.jsonl").read_text())["line"] == 2
    assert json.loads((output / "report.json").read_text())["lines_set_aside"] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--input", "absent*.txt"], "no file matches 'absent"),
        ([], "no input"),
        (["--input", "TEXT", "--max-seq-length", 4], "max_seq_length must be at least 5"),
        (["--input", "TEXT", "--masked-lm-prob", 0], "masked_lm_prob must be in"),
        (["--input", "TEXT", "other.txt"], "unexpected argument 'other.txt': quote a glob"),
        (["--input", "TEXT", "--workers", -1], "--workers must not be negative"),
        (["--show", 1], "no examples there"),
    ],
)
def test_bad_arguments(tmp_path, vocab, text, arguments, message):
    arguments = [text if argument == "TEXT" else argument for argument in arguments]
    with pytest.raises(InputError, match=message):
        invoke("--vocab", vocab, "--output", tmp_path / "out", *arguments)


def test_a_vocabulary_without_its_special_tokens(tmp_path, text):
    path = tmp_path / "small.txt"
    path.write_text("[PAD]\n[UNK]\n[CLS]\n")
    with pytest.raises(InputError, match=r"Missing: \[SEP\]; write each on the line"):
        invoke("--input", text, "--vocab", path, "--output", tmp_path / "out")


def test_show_prints_pieces_and_masks(tmp_path, vocab, text):
    output = tmp_path / "out"
    arguments = ("--vocab", vocab, "--output", output)
    invoke("--input", text, *arguments, "--names", "model-garden")
    shown = invoke(*arguments, "--show", 3)
    assert shown.count("[CLS]") == 3
    assert "→" in shown
    assert "B is random" in shown or "B follows A" in shown
    coloured = CliRunner().invoke(command, [str(a) for a in (*arguments, "--show", 1)], color=True).output
    assert click.unstyle(coloured) == shown[: len(click.unstyle(coloured))]
    assert "\x1b[31m" in coloured


def test_show_of_halves_that_may_be_swapped(tmp_path, vocab, text):
    arguments = ("--vocab", vocab, "--output", tmp_path / "out")
    shown = invoke("--input", text, *arguments, "--pairs", "sentence-order", "--show", 30)
    assert "A and B are swapped" in shown
    assert "random" not in shown.split("report.json")[1]


def test_show_refuses_in_a_line(tmp_path, vocab, text):
    output = tmp_path / "out"
    invoke("--input", text, "--vocab", vocab, "--output", output)
    vocab_file.save(SPECIAL_TOKENS, tmp_path / "small.txt")
    with pytest.raises(
        InputError, match=r"00001\.tfrecord: token ids must lie in .*small\.txt \(5 tokens\)\. Received"
    ):
        invoke("--vocab", tmp_path / "small.txt", "--output", output, "--show", 1)
    shard = output / "examples-00000-of-00001.tfrecord"
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(InputError, match=r"00001\.tfrecord: a shard must be whole"):
        invoke("--vocab", vocab, "--output", output, "--show", 1)


def test_near_duplicates(tmp_path, vocab):
    path = tmp_path / "a.txt"
    path.write_text(f"{TEXT}\n\nThe cat -- walked home. IT was a cat. Then it slept!\n")
    output = tmp_path / "out"
    arguments = ("--input", path, "--vocab", vocab, "--output", output, "--near-duplicates", 0.8, "--dupe-factor", 1)
    assert "near duplicates  1\n" in invoke(*arguments)
    report = json.loads((output / "report.json").read_text())
    assert (report["documents"], report["near_duplicates"], report["duplicates"], report["lines"]) == (3, 1, 0, 4)
    row = json.loads((output / "near_duplicates.jsonl").read_text())
    assert row == {"file": str(path), "document": 4, "like_file": str(path), "like_document": 1, "alike": 1.0}
    path.write_text(TEXT)
    assert "near duplicates  0\n" in invoke(*arguments, "--overwrite")
    assert names(output) == ["examples-00000-of-00001.tfrecord", "report.json"]


def test_phrases(tmp_path, vocab, text):
    path = tmp_path / "phrases.txt"
    path.write_text("walked home\nflew away\n")
    output = tmp_path / "out"
    arguments = ("--input", text, "--vocab", vocab, "--output", output, "--masking", "phrases", "--dupe-factor", 1)
    printed = invoke(*arguments, "--phrases", path)
    report = json.loads((output / "report.json").read_text())
    assert report["phrase_lines"] == 2
    assert report["phrase_lines_set_aside"] == 1
    assert report["phrases_found"] > 0
    assert f"the first is {path}:2: a word of it is [UNK] to the vocabulary" in printed
    assert json.loads((output / "phrases_set_aside.jsonl").read_text())["line"] == 2
    invoke(*arguments, "--phrases", path, "--overwrite")
    with pytest.raises(InputError, match="masking phrases and a list of phrases need each other"):
        invoke(*arguments, "--overwrite")
    path.write_text("flew away\n")
    with pytest.raises(InputError, match=r"phrases\.txt: a list of phrases must have one"):
        invoke(*arguments, "--overwrite", "--phrases", path)


@pytest.mark.parametrize("runner", ["no_such_runner.X", "Nope"])
def test_options_of_beam_reach_it(tmp_path, vocab, text, runner):
    with pytest.raises(InputError, match=r"Beam must know its options.*(no_such_runner|Nope)"):
        invoke("--input", text, "--vocab", vocab, "--output", tmp_path / "out", "--", f"--runner={runner}")


def test_names_of_shards():
    assert writing.shard_name(3, 12) == "examples-00003-of-00012.tfrecord"
    assert writing.shard_name(0, 1, "gzip") == "examples-00000-of-00001.tfrecord.gz"
