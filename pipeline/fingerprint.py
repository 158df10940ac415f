"""Fingerprints, by which a step knows whether a cached result still holds."""

import functools
import hashlib
import importlib.resources
import pathlib

from apache_beam.io.filesystems import FileSystems


@functools.cache
def of_code(*packages: str) -> str:
    """Hash of the Python sources of top-level packages of this project, so that changed code runs again."""
    digest = hashlib.sha256()
    for package in packages:
        root = pathlib.Path(str(importlib.resources.files(package)))
        for path in sorted(root.rglob("*.py")):
            digest.update(f"{package}/{path.relative_to(root)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def of_files(patterns: tuple[str, ...]) -> str:
    """Hash of the names, sizes and times of the files that patterns match, on any filesystem Beam reads."""
    digest = hashlib.sha256()
    for result in FileSystems.match(list(patterns)) if patterns else []:
        for file in sorted(result.metadata_list, key=lambda file: file.path):
            digest.update(f"{file.path}\0{file.size_in_bytes}\0{file.last_updated_in_seconds}\0".encode())
    return digest.hexdigest()[:16]


def of_text(*texts: str) -> str:
    """Hash of some strings."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]
