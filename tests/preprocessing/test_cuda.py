"""cuSOLVER of the `gpu` extra. That TensorFlow then finds it needs a GPU (tests/model/training/test_gpu.py)."""

import ctypes
import importlib
import subprocess
import sys

import pytest

from preprocessing import cuda
from tests.data import ROOT


@pytest.fixture
def loaded(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", (paths := []).append)
    return paths


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Laid out like NVIDIA's wheels, which share the folder `nvidia` and have no modules there."""
    for name in [name for name in sys.modules if name.split(".")[0] == "nvidia"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    importlib.invalidate_caches()
    folder = tmp_path / "nvidia" / "cusolver" / "lib"
    folder.mkdir(parents=True)
    yield folder
    sys.modules.pop("nvidia", None)


def test_the_library_of_the_package(package, loaded):
    (package / "libcusolver.so.11").touch()
    (package / "libcusolverMg.so.11").touch()
    cuda.load()
    assert loaded == [str(package / "libcusolver.so.11")]


def test_one_that_does_not_load(package):
    (package / "libcusolver.so.11").write_text("no library")
    cuda.load()


def test_no_package(package, loaded):
    package.rmdir()
    package.parent.rmdir()
    cuda.load()
    package.parent.parent.rmdir()
    importlib.invalidate_caches()
    cuda.load()
    assert loaded == []


@pytest.mark.parametrize("folder", ["model", "serving"])
def test_it_is_loaded_before_tensorflow(folder):
    program = (
        f"from preprocessing import cuda; cuda.load = lambda: print('loaded'); import sys, {folder}; "
        "print('tensorflow' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["loaded", "False"]
