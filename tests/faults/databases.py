"""A server of a database of its own, with a user whose password is needed."""

import contextlib
import os
import pathlib
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

PASSWORD = "se:cr@t'7"


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def _for_user(user: str, folder: pathlib.Path) -> list[str]:
    """The option of a server that does not run as root, where this process is root's."""
    if os.geteuid():
        return []
    shutil.chown(folder, user)
    for parent in (folder, *list(folder.parents)[:4]):
        parent.chmod(parent.stat().st_mode | 0o711)
    return [f"--user={user}"]


@contextlib.contextmanager
def mariadb(folder: pathlib.Path) -> Iterator[tuple[str, Callable[[], None], Callable[[], None]]]:
    """Its URL, and what stops it at once and starts it again. Skips the test where there is none."""
    server = shutil.which("mariadbd", path=f"{os.environ['PATH']}:/usr/sbin")
    if not server:
        pytest.skip("needs MariaDB (apt install mariadb-server)")
    port = free_port()
    listening = f"--socket={folder / 'socket'}"
    places = [f"--datadir={folder / 'data'}", f"--tmpdir={folder}", *_for_user("mysql", folder)]
    install = ["mariadb-install-db", "--no-defaults", *places, "--auth-root-authentication-method=normal"]
    subprocess.run(install, check=True, stdout=subprocess.DEVNULL)
    started: list[subprocess.Popen] = []
    root = ["mariadb", "--no-defaults", listening, "-u", "root"]

    def start() -> None:
        listens = [listening, f"--port={port}", "--bind-address=127.0.0.1", f"--pid-file={folder / 'pid'}"]
        with open(folder / "log", "ab") as log:
            started.append(subprocess.Popen([server, "--no-defaults", *places, *listens], stderr=log))
        while subprocess.run([*root, "-e", "SELECT 1"], capture_output=True).returncode:
            assert started[-1].poll() is None, (folder / "log").read_text()
            time.sleep(0.1)

    def stop() -> None:
        started[-1].kill()
        started[-1].wait()

    start()
    said = PASSWORD.replace("'", "''")
    grant = f"CREATE DATABASE runs; GRANT ALL ON runs.* TO bert@localhost IDENTIFIED BY '{said}'"
    subprocess.run([*root, "-e", grant], check=True)
    try:
        yield f"mysql://bert@127.0.0.1:{port}/runs", stop, start
    finally:
        stop()
