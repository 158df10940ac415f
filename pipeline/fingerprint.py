"""Fingerprints, by which a step knows whether a cached result still holds."""

import functools
import hashlib
import importlib.metadata
import importlib.util
import pathlib

from preprocessing import corpus


@functools.cache
def of_code(*names: str) -> str:
    """Hash of the Python sources of packages and modules of this project, so that changed code runs again."""
    digest = hashlib.sha256()
    for name in names:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            raise ValueError(f"no module {name}")
        source = pathlib.Path(spec.origin)
        for path in sorted(source.parent.rglob("*.py")) if spec.submodule_search_locations else [source]:
            digest.update(f"{name}/{path.relative_to(source.parent)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def of_files(patterns: tuple[str, ...]) -> str:
    """Hash of the names, sizes and times of the files that patterns stand for, on any filesystem Beam reads; empty for
    none."""
    digest = hashlib.sha256()
    for file in corpus.files(patterns):
        digest.update(f"{file.path}\0{file.size_in_bytes}\0{file.last_updated_in_seconds}\0".encode())
    return digest.hexdigest()[:16]


def of_packages() -> str:
    """Hash of the names and versions of all that is installed: the embedded corpus is made of it."""
    installed = importlib.metadata.distributions()
    return of_text(*sorted(f"{package.metadata['Name']}=={package.version}" for package in installed))


def of_text(*texts: str) -> str:
    """Hash of some strings."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]
