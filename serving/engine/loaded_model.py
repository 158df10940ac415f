"""One version of a SavedModel in memory: its signatures, called with NumPy arrays."""

import dataclasses
import importlib.util
import json
import pathlib
import time
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import prediction_log_pb2

from preprocessing import storage
from serving.protocol import tensors
from serving.protocol.errors import Code, RequestError

WARMUP_REQUESTS = pathlib.Path("assets.extra", "tf_serving_warmup_requests")
MAX_WARMUP_REQUESTS = 1000  # TensorFlow Serving's

# What the export says of each signature: above all its `row_count`, the int32 [batch] output that says how many entries
# of axis 1 of the padded outputs are a row's own; `other_counts`: those that are counted by another one. Such answers
# can be cut back to what they would be alone, so their requests may share a batch. Folders that say nothing have a
# `row_count` of this name, if any.
DESCRIPTION = pathlib.Path("assets.extra", "export.json")
ROW_COUNT = "mask_count"


def _register_text_operations() -> None:
    """What `import tensorflow_text` does, but without Keras, which that imports for its layers: part of a second of a
    server's start."""
    package = importlib.util.find_spec("tensorflow_text")
    for folder in (package and package.submodule_search_locations) or []:
        for library in pathlib.Path(folder).glob("python/ops/*.so"):
            tf.load_op_library(str(library))


_register_text_operations()


@dataclasses.dataclass(frozen=True)
class Spec:
    """Of one input or output; `shape` has None for what is free."""

    dtype: np.dtype
    shape: tuple[int | None, ...] | None

    @classmethod
    def of(cls, spec) -> "Spec":
        dtype = np.dtype(object) if spec.dtype == tf.string else np.dtype(spec.dtype.as_numpy_dtype)
        return cls(dtype, tuple(spec.shape.as_list()) if spec.shape.rank is not None else None)

    @property
    def has_batch(self) -> bool:
        return self.shape is not None and len(self.shape) > 0 and self.shape[0] is None

    @property
    def free_tail(self) -> bool:
        return self.shape is None or None in self.shape[1:]

    def accepts(self, shape: tuple[int, ...]) -> bool:
        return self.shape is None or (
            len(shape) == len(self.shape)
            and all(want in (None, have) for want, have in zip(self.shape, shape, strict=True))
        )


class LoadedSignature:
    """A function of a loaded model. `name`, `inputs`, `outputs` (name to Spec) and how it may be batched:

    - `has_batch`: axis 0 of all inputs and outputs is the batch.
    - `sharable`: besides, a row's answer does not depend on the rows beside it, so requests may share a batch, and be
      cut into several.
    """

    def __init__(self, model: "LoadedModel", name: str, function, described: Mapping):
        self.model = model
        self.name = name
        self._function = function
        self.inputs = {key: Spec.of(spec) for key, spec in function.structured_input_signature[1].items()}
        self.outputs = {key: Spec.of(spec) for key, spec in function.structured_outputs.items()}
        specs = [*self.inputs.values(), *self.outputs.values()]
        self.has_batch = bool(self.inputs) and all(spec.has_batch for spec in specs)
        count = described.get("row_count", ROW_COUNT)
        self.count_output = count if count in self.outputs else None
        self.padded = [
            key for key, spec in self.outputs.items() if spec.shape and len(spec.shape) > 1 and spec.shape[1] is None
        ]
        self._counts = dict.fromkeys(self.padded, self.count_output) | described.get("other_counts", {})
        counted = self.count_output is not None and not any(
            spec.shape is None or None in spec.shape[2:] for spec in self.outputs.values()
        )
        fixed = not any(spec.free_tail for spec in self.outputs.values())
        self.fixed_size = fixed or counted
        self.sharable = self.has_batch and self.fixed_size and not any(s.free_tail for s in self.inputs.values())

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """All outputs. Raises RequestError if TensorFlow refuses the inputs."""
        try:
            fed = {
                key: tf.constant(array, tf.string if array.dtype == object else array.dtype)
                for key, array in inputs.items()
            }
            return {key: value.numpy() for key, value in self._function(**fed).items()}
        except tf.errors.OpError as error:
            raise RequestError.from_tensorflow(error) from None

    def cut(self, outputs: Mapping[str, np.ndarray], rows: slice) -> dict[str, np.ndarray]:
        """The outputs of some rows of a batch, as they would be without the others."""
        own = {key: array[rows] for key, array in outputs.items()}
        if self.count_output is not None:
            most = {count: int(own[count].max(initial=0)) for count in set(self._counts.values())}
            own |= {key: own[key][:, : most[self._counts[key]]] for key in self.padded}
        return own

    def joined(self, answers: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """The outputs of the parts of a request, one under the other, as if they had been one batch."""
        joined = {}
        for key in self.outputs:
            parts = [answer[key] for answer in answers]
            if key in self.padded:
                most = max(part.shape[1] for part in parts)
                parts = [_widened(part, most) for part in parts]
            joined[key] = np.concatenate(parts)
        return joined

    def check_names(self, names: Collection[str]) -> None:
        """Raises RequestError if they are not those of the inputs."""
        if set(names) != self.inputs.keys():
            raise RequestError(
                Code.INVALID_ARGUMENT,
                f"signature {self.name} takes the inputs {sorted(self.inputs)}. Received: {sorted(names)}",
            )

    def checked(self, inputs: Mapping[str, np.ndarray]) -> int:
        """Number of rows of a request (1 without a batch axis). Raises RequestError if names, types or shapes are not
        the signature's."""
        self.check_names(inputs)
        rows = set()
        for key, array in inputs.items():
            spec = self.inputs[key]
            if array.dtype != spec.dtype:
                raise RequestError(
                    Code.INVALID_ARGUMENT,
                    f"input {key} must be of type {_type_name(spec.dtype)}. Received: {_type_name(array.dtype)}",
                )
            if not spec.accepts(array.shape):
                shape = [-1 if size is None else size for size in spec.shape or ()]
                raise RequestError(
                    Code.INVALID_ARGUMENT,
                    f"input {key} must be of shape {shape} (-1: any). Received: {list(array.shape)}",
                )
            rows.add(array.shape[0] if array.ndim else 1)
        if not self.has_batch:
            return 1
        if len(rows) != 1:
            raise RequestError(
                Code.INVALID_ARGUMENT, f"all inputs must have equally many rows. Received: {sorted(rows)}"
            )
        return rows.pop()


class LoadedModel:
    """A version folder in memory. Attributes: `name`, `version`, `signatures` by name, `signature_defs` (protobuf map
    of the file), `load_seconds`, and `in_flight`, the number of requests that are being answered.

    Raises whatever TensorFlow raises for a folder that is no SavedModel of this machine.
    """

    def __init__(self, name: str, version: int, folder: pathlib.Path):
        start = time.monotonic()
        self.name = name
        self.version = version
        self.in_flight = 0
        self._alias, loaded_from = storage.without_glob(str(folder))
        # Signatures stay valid only as long as the object they belong to.
        self._object = tf.saved_model.load(loaded_from)
        described = _described(folder)
        self.signatures = {
            key: LoadedSignature(self, key, function, described.get(key, {}))
            for key, function in self._object.signatures.items()
        }
        if not self.signatures:
            raise ValueError("the SavedModel has no signatures")
        self.signature_defs = _signature_defs(folder)
        self.load_seconds = time.monotonic() - start

    def close(self) -> None:
        """Takes away what loading left on disk."""
        if self._alias is not None:
            self._alias.cleanup()

    def signature(self, name: str) -> LoadedSignature:
        """Raises RequestError if there is none."""
        try:
            return self.signatures[name or tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY]
        except KeyError:
            known = sorted(self.signatures)
            message = f"model {self.name} version {self.version} has no signature {name!r}; it has {known}"
            raise RequestError(Code.FAILED_PRECONDITION, message) from None

    def warm_up(self, folder: pathlib.Path, go_on: Callable[[], bool] = lambda: True) -> int:
        """Answers the recorded requests of the version folder; their number. Raises if one fails."""
        records = folder / WARMUP_REQUESTS
        if not records.is_file():
            return 0
        done = 0
        for record in tf.data.TFRecordDataset(str(records)).take(MAX_WARMUP_REQUESTS).as_numpy_iterator():
            if not go_on():
                break
            log = prediction_log_pb2.PredictionLog.FromString(record)
            if log.WhichOneof("log_type") != "predict_log":
                continue
            request = log.predict_log.request
            signature = self.signature(request.model_spec.signature_name)
            inputs = {key: tensors.from_proto(proto) for key, proto in request.inputs.items()}
            signature.checked(inputs)
            signature(inputs)
            done += 1
        return done


def asked_for(outputs: Collection[str], wanted: Collection[str]) -> list[str]:
    """Names of the outputs that a filter lets through (all if it names none). Raises RequestError."""
    if unknown := set(wanted) - set(outputs):
        raise RequestError(
            Code.INVALID_ARGUMENT, f"outputs are {sorted(outputs)}. Received in the filter: {sorted(unknown)}"
        )
    return list(dict.fromkeys(wanted)) or list(outputs)


def _widened(array, most):
    wide = np.full((len(array), most, *array.shape[2:]), b"" if array.dtype == object else 0, array.dtype)
    wide[:, : array.shape[1]] = array
    return wide


def _described(folder):
    """What the export says of its signatures, by name."""
    description = folder / DESCRIPTION
    return json.loads(description.read_text()).get("signatures", {}) if description.is_file() else {}


def _signature_defs(folder):
    saved_model = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    for graph in saved_model.meta_graphs:
        if tf.saved_model.SERVING in graph.meta_info_def.tags:
            # Copies, so that the graph itself can go.
            return {
                key: type(value).FromString(value.SerializeToString()) for key, value in graph.signature_def.items()
            }
    return {}


def _type_name(dtype):
    return "string" if dtype.hasobject else dtype.name
