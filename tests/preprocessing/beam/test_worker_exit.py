"""A worker process's exit status tells whether its work succeeded."""

import os
import subprocess
import sys

import apache_beam as beam
import pytest

from preprocessing import vocab_file
from preprocessing.beam import nursery, runner
from preprocessing.errors import InputError
from preprocessing.examples import spilling
from preprocessing.features import SPECIAL_TOKENS


def work(number, vocab, fails):
    if vocab:
        spilling.load_tokenizer(vocab, True)  # TensorFlow, which takes long to end and may abort
    if fails:
        raise InputError(f"a.txt:{number}: bad")
    return number


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("forked", [pytest.param(False, marks=pytest.mark.long), True])
def test_status_of_workers(tmp_path, monkeypatch, forked, fails):
    monkeypatch.setenv(nursery.SOCKET, "")
    monkeypatch.delenv(nursery.SOCKET)
    vocab = None
    if forked:
        nursery.start()
    else:
        vocab = str(tmp_path / "vocab.txt")
        vocab_file.save([*SPECIAL_TOKENS, "a"], vocab)
    workers = []
    start = subprocess.Popen

    def started(*arguments, **options):
        workers.append(start(*arguments, **options))
        return workers[-1]

    monkeypatch.setattr(subprocess, "Popen", started)
    pipeline = beam.Pipeline(options=runner.make_options(workers=2))
    _ = pipeline | beam.Create([1]) | beam.Reshuffle() | beam.Map(work, vocab, fails)
    if fails:
        with pytest.raises(InputError, match=r"^a\.txt:1: bad$"):
            runner.run(pipeline)
    else:
        runner.run(pipeline)
    assert sorted(worker.wait(60) for worker in workers) == [0, int(fails)]


def test_what_nothing_caught_fails_the_process():
    program = "from preprocessing.beam import worker_exit as w; w.end_at_once(); raise RuntimeError('harness')"
    environment = os.environ | {"CONTROL_API_SERVICE_DESCRIPTOR": 'url: "localhost:1"'}
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, env=environment).returncode == 1
