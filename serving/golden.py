"""Answers an exported model's golden requests in a process of its own: `python -I serving/golden.py FOLDER`.

Imports only TensorFlow and tf.text, as a stranger would who got the folder alone, and prints one line of JSON:
`load_seconds`, `first_answer_seconds`, and for each request its `signature_name` and the largest `difference` from
the expected outputs, |actual - expected| / max(1, |expected|); infinite where shapes or strings differ.
"""

import base64
import json
import pathlib
import sys
import time

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


def difference(expected, actual) -> float:
    """The largest difference of two arrays, relative where |expected| exceeds 1."""
    import numpy as np

    expected = np.asarray(decoded(expected), actual.dtype).reshape(np.shape(expected) if actual.size else actual.shape)
    if expected.shape != actual.shape:
        return float("inf")
    if actual.dtype.kind != "f":
        return 0.0 if np.array_equal(expected, actual) else float("inf")
    if not actual.size:
        return 0.0
    gap = np.max(np.abs(expected - actual) / np.maximum(1, np.abs(expected)))
    return float(gap) if np.isfinite(gap) else float("inf")


def answer(folder: str) -> dict:
    """Loads the model, answers its golden requests, and gives the report."""
    import tensorflow as tf
    import tensorflow_text  # noqa: F401  registers its operations

    started = time.perf_counter()
    signatures = tf.saved_model.load(folder).signatures
    load_seconds, answer_seconds, requests = time.perf_counter() - started, [], []
    for request in json.loads((pathlib.Path(folder) / REQUESTS).read_text()):
        name = request["signature_name"]
        inputs = {key: tf.constant(decoded(value)) for key, value in request["inputs"].items()}
        started = time.perf_counter()
        outputs = {key: value.numpy() for key, value in signatures[name](**inputs).items()}
        answer_seconds.append(time.perf_counter() - started)
        gaps = {key: difference(expected, outputs[key]) for key, expected in request["outputs"].items()}
        worst = max(gaps, key=lambda key: gaps[key])
        requests.append({"signature_name": name, "difference": gaps[worst], "output": worst})
    return {"load_seconds": load_seconds, "first_answer_seconds": answer_seconds[0], "requests": requests}


if __name__ == "__main__":
    answered = answer(sys.argv[1])
    if imported := sorted(set(PROJECT) & set(sys.modules)):
        sys.exit(f"the model needs the project's modules {imported}")
    print(json.dumps(answered))
