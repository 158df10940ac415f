"""CUDA's libraries of the `gpu` extra, where TensorFlow does not look for them."""

import contextlib
import ctypes
import importlib.util
import pathlib


def load() -> None:
    """Loads cuSOLVER from site-packages/nvidia, if it is there.

    TensorFlow 2.21 opens CUDA's libraries by name from libtensorflow_framework, whose search path has the folder of
    each of them but cuSOLVER's; for want of one it uses no GPU. One that is loaded is found by its name. To be called
    before TensorFlow looks for GPUs.
    """
    try:
        spec = importlib.util.find_spec("nvidia.cusolver")
    except ModuleNotFoundError:
        return
    for folder in (spec and spec.submodule_search_locations) or ():
        for path in pathlib.Path(folder, "lib").glob("libcusolver.so.*"):
            with contextlib.suppress(OSError):  # TensorFlow then says what is missing
                ctypes.CDLL(str(path))
