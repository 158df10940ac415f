"""Worker processes of the local runner, forked from one process that has imported Beam already.

Beam starts each worker as a new Python, which spends three seconds importing Beam after the launching process has done
the same. The nursery is started before that and imports at the same time, on another core; it never uses threads, gRPC
or TensorFlow itself, so that forking it is safe.
"""

import contextlib
import json
import os
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile

SOCKET = "BERT_WORKER_NURSERY"  # the environment variable with the path of the nursery's socket

# What Beam takes for its worker: hands its environment, which says where to connect to, to the nursery, and ends when
# the worker does, with its status; one that is killed has none.
_CLIENT = f"""
import json, os, socket
with socket.socket(socket.AF_UNIX) as nursery:
    nursery.connect(os.environ["{SOCKET}"])
    nursery.sendall(json.dumps(dict(os.environ)).encode() + b"\\n")
    raise SystemExit((nursery.recv(1) or b"\\1")[0])
"""


_started: list[subprocess.Popen] = []  # kept, since the pipe to its standard input closes with it


def start() -> None:
    """Starts the nursery of this process, unless it has one; it ends when this process does, however that ends."""
    if SOCKET in os.environ:
        return
    folder = tempfile.mkdtemp(prefix="bert-workers-")
    path = os.path.join(folder, "socket")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(64)
        nursery = subprocess.Popen(
            [sys.executable, "-m", "preprocessing.beam.nursery", str(listener.fileno()), folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[listener.fileno()],
        )
    _started.append(nursery)
    os.environ[SOCKET] = path


def command() -> str | None:
    """The command that starts a worker, where there is a nursery."""
    return f"{sys.executable} -S -c {shlex.quote(_CLIENT)}" if SOCKET in os.environ else None


def _serve(listener: socket.socket) -> None:
    from apache_beam.runners.worker import sdk_worker_main

    from preprocessing.beam import worker_exit

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no worker stays behind as a zombie
    while sys.stdin not in select.select([listener, sys.stdin], [], [])[0]:
        connection, _ = listener.accept()
        if os.fork():
            connection.close()
            continue
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        with connection, connection.makefile() as request:
            os.environ.update(json.loads(request.readline()))
            worker_exit.watch()
            code = 1
            try:
                sdk_worker_main.main([])
                code = worker_exit.status()
            finally:
                with contextlib.suppress(OSError):  # nobody waits any more
                    connection.sendall(bytes([code]))
                os._exit(code)


if __name__ == "__main__":
    number, folder = sys.argv[1:]
    try:
        _serve(socket.socket(fileno=int(number)))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
