"""Which Python and stack `.ci/setup` takes, with a machine that is made up of a few scripts."""

import os
import shutil
import subprocess

import pytest

from tests.data import ROOT

PYTHON = """#!/bin/sh
case "$*" in
  --version) echo "Python {version}" ;;
  *can_build* | *Python.h*) exit {cannot_build} ;;
  -c*) echo {version} ;;
esac
"""
UV = """#!/bin/sh
case "$1 $2" in
  "python find") for last; do :; done; [ -x "$MACHINE/python$last" ] && echo "$MACHINE/python$last" ;;
  "python install") [ -n "$FETCHES" ] && cp "$MACHINE/fetched" "$MACHINE/python$4" ;;
  "venv "*) shift; while [ $# -gt 2 ]; do shift; done
            mkdir -p .venv/bin
            case $1 in */*) cp "$1" .venv/bin/python ;; *) cp "$MACHINE/python$1" .venv/bin/python ;; esac ;;
esac
"""


@pytest.fixture
def setup(tmp_path):
    def run(glibc: str, *versions: str, fetches="", cannot_build=0) -> tuple[int, str]:
        machine, repository = tmp_path / "machine", tmp_path / "repository"
        for folder in (machine, repository / ".ci"):
            folder.mkdir(parents=True)
        shutil.copy(ROOT / ".ci" / "setup", repository / ".ci")
        for name in ("uv.lock", "pyproject.toml"):
            (repository / name).touch()

        def program(name, text):
            (machine / name).write_text(text)
            (machine / name).chmod(0o755)

        program("uv", UV)
        program("getconf", f"#!/bin/sh\n{f'echo {glibc}' if glibc else 'exit 1'}\n")
        program("fetched", PYTHON.format(version=fetches, cannot_build=0))
        for version in versions:
            program(f"python{version}", PYTHON.format(version=version, cannot_build=cannot_build))
        environment = os.environ | {
            "PATH": f"{machine}:/usr/bin:/bin",
            "MACHINE": str(machine),
            "PYENV_ROOT": str(tmp_path / "none"),
            "FETCHES": fetches,
        }
        done = subprocess.run(["sh", ".ci/setup"], cwd=repository, env=environment, capture_output=True, text=True)
        return done.returncode, done.stderr.strip().splitlines()[-1]

    return run


@pytest.mark.parametrize(
    ("glibc", "versions", "taken", "stack"),
    [
        ("2.36", ("3.10", "3.11", "3.12", "3.13"), "3.11", "TFX 1.16"),
        ("2.35", ("3.10",), "3.10", "TFX 1.16"),
        ("2.39", ("3.10", "3.12"), "3.12", "TFX 1.21"),
        ("2.41", ("3.12", "3.13"), "3.13", "TFX 1.21"),
        ("2.41", ("3.11",), "3.11", "TFX 1.16"),
    ],
)
def test_the_newest_that_fits(setup, glibc, versions, taken, stack):
    status, said = setup(f"glibc {glibc}", *versions)
    assert status == 0
    assert stack in said
    assert f"for Python {taken} and glibc {glibc} " in said


def test_one_that_is_fetched(setup):
    status, said = setup("glibc 2.36", "3.12", fetches="3.11")
    assert status == 0
    assert "for Python 3.11 " in said


@pytest.mark.parametrize(
    ("glibc", "versions", "line"),
    [
        ("glibc 2.36", ("3.12", "3.9"), "needs one of Python 3.11 3.10, and none can be fetched. Install one"),
        (
            "glibc 2.36",
            ("3.10",),
            "would do with a C++ compiler and its headers (apt install g++ python3-dev).",
        ),
        ("glibc 2.27", ("3.10",), "setup: needs glibc 2.28 or newer. This machine has 2.27"),
        ("", ("3.10",), "setup: needs Linux on x86-64 with glibc 2.28 or newer. This is Linux x86_64"),
    ],
)
def test_one_line_where_nothing_fits(setup, glibc, versions, line):
    status, said = setup(glibc, *versions, cannot_build=1)
    assert status == 1
    assert line in said
