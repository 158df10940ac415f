"""Which code a run was made by, for its record."""

import importlib.metadata
import pathlib
import platform
import subprocess
from typing import Any

_PACKAGES = ("apache-beam", "keras", "ml-metadata", "numpy", "tensorflow", "tensorflow-text", "tfx")


def state() -> dict[str, Any]:
    """`commit` of this project's checkout and whether files of it are `changed` since, None where it is not in one;
    `python`, and `packages` by version."""
    folder = pathlib.Path(__file__).parents[1]
    tracked = _git(folder, "ls-files", "--", "cli.py")  # and not installed in a folder within some other checkout
    commit = _git(folder, "rev-parse", "HEAD") if tracked else None
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no", "--", "..") if commit else None
    return {
        "commit": commit,
        "changed": bool(changed) if commit else None,
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
    }


def _git(folder: pathlib.Path, *arguments: str) -> str | None:
    """What it says; None where it fails or is not there."""
    try:
        found = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False)
    except OSError:
        return None
    return found.stdout.strip() if found.returncode == 0 else None


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
