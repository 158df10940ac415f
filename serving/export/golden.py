"""Answers an exported model's golden requests in a process of its own: `python -I serving/export/golden.py FOLDER`.

Imports only TensorFlow and tf.text, as a stranger would who got the folder alone, and prints one line of JSON:
`load_seconds`, `first_answer_seconds`, and `outputs`: for each output of each request its `signature_name`, `output`,
the `bounds` that the request names for it, and how far the answer is from the expected one, by each measure:

- `numbers`: the largest |actual - expected| / max(1, |expected|); infinite where shapes or strings differ.
- `rounding`: the same, divided by max(1, |expected|, r), r being the root mean square of the vector that a number
  stands in, on whose size its rounding in float32 depends.
- `vectors`: the largest ||actual - expected|| / ||expected|| of the vectors along the last axis.
"""

import base64
import json
import pathlib
import sys
import time

MEASURES = ("numbers", "rounding", "vectors")
REQUESTS = "assets.extra/golden_requests.json"
PROJECT = ("preprocessing", "model", "serving", "pipeline")


def encoded(value):
    """Nested lists as JSON can hold them, with bytes as TensorFlow Serving's REST API wants them."""
    if isinstance(value, list):
        return [encoded(item) for item in value]
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return {"b64": base64.b64encode(value).decode()}
    return value


def decoded(value):
    """The reverse, with every string as bytes."""
    if isinstance(value, list):
        return [decoded(item) for item in value]
    if isinstance(value, dict):
        return base64.b64decode(value["b64"])
    return value.encode() if isinstance(value, str) else value


def differences(expected, actual) -> dict[str, float]:
    """Of two arrays, by every measure."""
    import numpy as np

    expected = np.asarray(decoded(expected), actual.dtype).reshape(np.shape(expected) if actual.size else actual.shape)
    if expected.shape != actual.shape:
        return dict.fromkeys(MEASURES, float("inf"))
    if actual.dtype.kind != "f":
        return dict.fromkeys(MEASURES, 0.0 if np.array_equal(expected, actual) else float("inf"))
    if not actual.size:
        return dict.fromkeys(MEASURES, 0.0)
    gaps, scales = np.abs(expected - actual), np.maximum(1, np.abs(expected))
    sizes = np.sqrt(np.mean(np.square(expected, dtype=float), -1, keepdims=True)) if expected.ndim > 1 else 0
    length, gap = (np.sqrt(np.sum(np.square(values, dtype=float), -1)) for values in (expected, gaps))
    with np.errstate(
        divide="ignore", invalid="ignore"
    ):  # beside a vector of zeros any gap is infinite, and none is none
        measured = {
            "numbers": np.max(gaps / scales),
            "rounding": np.max(gaps / np.maximum(scales, sizes)),
            "vectors": np.max(np.where(gap == 0, 0, gap / length)),
        }
    return {name: float(value) if np.isfinite(value) else float("inf") for name, value in measured.items()}


def answer(folder: str) -> dict:
    """Loads the model, answers its golden requests, and gives the report."""
    import tensorflow as tf
    import tensorflow_text  # noqa: F401  registers its operations

    tf.config.experimental.enable_tensor_float_32_execution(False)  # as the expected answers were worked out
    started = time.perf_counter()
    signatures = tf.saved_model.load(folder).signatures
    load_seconds, answer_seconds, answered = time.perf_counter() - started, [], []
    for request in json.loads((pathlib.Path(folder) / REQUESTS).read_text()):
        name = request["signature_name"]
        inputs = {key: tf.constant(decoded(value)) for key, value in request["inputs"].items()}
        started = time.perf_counter()
        outputs = {key: value.numpy() for key, value in signatures[name](**inputs).items()}
        answer_seconds.append(time.perf_counter() - started)
        for key, expected in request["outputs"].items():
            bounds = request.get("bounds", {}).get(key, {})
            answered.append(
                {"signature_name": name, "output": key, "bounds": bounds, **differences(expected, outputs[key])}
            )
    return {"load_seconds": load_seconds, "first_answer_seconds": answer_seconds[0], "outputs": answered}


if __name__ == "__main__":
    answered = answer(sys.argv[1])
    if imported := sorted(set(PROJECT) & set(sys.modules)):
        sys.exit(f"the model needs the project's modules {imported}")
    print(json.dumps(answered))
