"""Files of named tensors: safetensors, and PyTorch's pickles without PyTorch.

A `pytorch_model.bin` is read without running code from it. It is a zip archive: `*/data.pkl` pickles a dict of tensors,
whose bytes lie in `*/data/KEY`. The unpickler knows the handful of names that such a dict needs and refuses every
other, so that a hostile pickle cannot call anything. Files of PyTorch before 1.6 (no zip archive) are refused.
"""

import collections
import io
import pathlib
import pickle
import zipfile
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import safetensors
import safetensors.numpy
import tensorflow as tf

from preprocessing.errors import InputError

DTYPES: dict[str, np.dtype] = {
    "FloatStorage": np.dtype(np.float32),
    "DoubleStorage": np.dtype(np.float64),
    "HalfStorage": np.dtype(np.float16),
    "BFloat16Storage": np.dtype(tf.bfloat16.as_numpy_dtype),
    "LongStorage": np.dtype(np.int64),
    "IntStorage": np.dtype(np.int32),
    "BoolStorage": np.dtype(np.bool_),
    "ByteStorage": np.dtype(np.uint8),
}
_OLD_PYTORCH = bytes.fromhex("8a0a6cfc9c46f9206aa85019")  # its magic number, pickled


class _StorageType(NamedTuple):
    dtype: np.dtype


def _rebuild_tensor(storage, offset, size, stride, *unused):
    """A view of `storage` (1-D array), as torch._utils._rebuild_tensor_v2 makes it; never reads outside of it."""
    if not isinstance(storage, np.ndarray) or len(size) != len(stride) or min((offset, *size, *stride), default=0) < 0:
        raise pickle.UnpicklingError("malformed tensor")
    if 0 in size:
        return np.zeros(size, storage.dtype)
    if offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) >= len(storage):
        raise pickle.UnpicklingError("tensor reaches beyond its storage")
    strides = [step * storage.itemsize for step in stride]
    return np.lib.stride_tricks.as_strided(storage[offset:], size, strides, writeable=False)


def _rebuild_parameter(tensor, *unused):
    return tensor


class _TensorUnpickler(pickle.Unpickler):
    def __init__(self, file, archive: zipfile.ZipFile, folder: str):
        super().__init__(file)
        self._archive, self._folder = archive, folder
        self._storages: dict[str, np.ndarray] = {}

    def find_class(self, module, name):
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) in (("torch._utils", "_rebuild_tensor_v2"), ("torch._utils", "_rebuild_tensor")):
            return _rebuild_tensor
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return _rebuild_parameter
        if module == "torch" and name in DTYPES:
            return _StorageType(DTYPES[name])
        raise pickle.UnpicklingError(f"refused to load {module}.{name}")

    def persistent_load(self, pid):
        kind, storage_type, key, _, count = pid
        if kind != "storage" or not isinstance(storage_type, _StorageType):
            raise pickle.UnpicklingError(f"unknown storage {pid!r}")
        if key not in self._storages:
            data = self._archive.read(f"{self._folder}/data/{key}")
            self._storages[key] = np.frombuffer(data, storage_type.dtype, count)
        return self._storages[key]


def read_torch_pickle(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Name -> array of a pickled state dict (or of one under `state_dict`). Raises InputError for anything else."""
    if not zipfile.is_zipfile(path):
        _refuse_pointer(path)
        with open(path, "rb") as file:
            old = _OLD_PYTORCH in file.read(32)
        if old:
            raise InputError(
                f"{path}: written by PyTorch before 1.6, or as it did. In today's PyTorch, save it again: "
                "torch.save(torch.load(PATH, weights_only=True), PATH)"
            )
        raise InputError(f"{path}: not a zip archive (truncated?); save it again as model.safetensors")
    try:
        with zipfile.ZipFile(path) as archive:
            pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            if len(pickles) != 1:
                raise pickle.UnpicklingError("no data.pkl inside")
            folder = pickles[0].removesuffix("/data.pkl")
            order = f"{folder}/byteorder"
            if order in archive.namelist() and archive.read(order) != b"little":
                raise pickle.UnpicklingError("big-endian tensors")
            state = _TensorUnpickler(io.BytesIO(archive.read(pickles[0])), archive, folder).load()
    except Exception as error:  # a malformed pickle raises nearly anything
        raise InputError(
            f"{path}: not a plain dict of tensors ({error}); save it again as model.safetensors"
        ) from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(value, np.ndarray) for value in state.values()):
        raise InputError(f"{path}: not a plain dict of tensors; save it again as model.safetensors")
    return {str(name): value for name, value in state.items()}


def _refuse_pointer(path: pathlib.Path) -> None:
    with open(path, "rb") as file:
        if file.read(32).startswith(b"version https://git-lfs"):
            raise InputError(f"{path}: only points at the file itself, which Git LFS keeps; run git lfs pull there")


def read_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Name -> array; bfloat16 included, which safetensors' own NumPy reader does not know."""
    _refuse_pointer(path)
    try:
        with safetensors.safe_open(path, framework="np") as file:
            names = list(file.keys())
            if all(file.get_slice(name).get_dtype() != "BF16" for name in names):
                return {name: file.get_tensor(name) for name in names}
        return {name: _array(**tensor) for name, tensor in safetensors.deserialize(path.read_bytes())}
    except (OSError, AttributeError, safetensors.SafetensorError) as error:  # NumPy lacks the type: AttributeError
        raise InputError(f"{path}: not a readable safetensors file: {error}") from error


def _array(dtype: str, shape: Sequence[int], data: bytes) -> np.ndarray:
    bfloat16 = tf.bfloat16.as_numpy_dtype
    types = {"BF16": bfloat16, "F16": np.float16, "F32": np.float32, "F64": np.float64, "I64": np.int64}
    if dtype not in types:
        raise safetensors.SafetensorError(f"unknown type {dtype}")
    return np.frombuffer(data, types[dtype]).reshape(shape)


def write_safetensors(path: pathlib.Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes under a temporary name first: the file is whole or absent. transformers wants the metadata. Others may
    read it as any new file: safetensors makes files for their owner alone."""
    partial = path.with_name(path.name + ".partial")
    partial.touch()
    mode = partial.stat().st_mode
    safetensors.numpy.save_file(dict(tensors), partial, metadata={"format": "pt"})
    partial.chmod(mode)
    partial.replace(path)
