"""The same bytes on a portable runner, with its workers in processes of their own.

PRISM=/path/to/prism pytest -m runners
"""

import os
import shutil
import socket
import subprocess
import sys
import time

import pytest

from preprocessing import vocab_file
from tests.data import ROOT
from tests.preprocessing.examples.test_writing import VOCABULARY, digest, examples, one_file

pytestmark = pytest.mark.runners


@pytest.fixture(scope="module")
def prism():
    path = os.environ.get("PRISM") or shutil.which("prism") or str(ROOT / ".uv" / "prism")
    if not os.path.exists(path):
        pytest.skip("needs Beam's Prism runner: `make prism`, or PRISM names it")
    return path


@pytest.fixture(scope="module")
def vocab(tmp_path_factory):
    path = tmp_path_factory.mktemp("vocab") / "vocab.txt"
    vocab_file.save(VOCABULARY, path)
    return str(path)


@pytest.fixture(scope="module")
def pool():
    """An external pool of workers: its address."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "apache_beam.runners.worker.worker_pool_main", f"--service_port={port}"]
    # The pool starts its workers as `python`: let that be this one.
    environment = os.environ | {"PATH": f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    for _ in range(300):
        with socket.socket() as client:
            if client.connect_ex(("localhost", port)) == 0:
                break
        time.sleep(0.1)
    yield f"localhost:{port}"
    process.terminate()
    process.wait(20)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("environment", ["loopback", "external"])
def test_same_bytes_on_prism(tmp_path, vocab, prism, request, environment):
    path = one_file(tmp_path)
    options = ["--runner=PrismRunner", f"--prism_location={prism}", f"--temp_location={tmp_path / 'temp'}"]
    (tmp_path / "temp").mkdir()
    if environment == "external":
        options += ["--environment_type=EXTERNAL", f"--environment_config={request.getfixturevalue('pool')}"]
    else:
        options += ["--environment_type=LOOPBACK"]
    local, counters = examples([path], vocab, dupe_factor=3)
    remote, remote_counters = examples([path], vocab, options=options, dupe_factor=3)
    assert digest(remote) == digest(local)
    assert remote_counters == counters
