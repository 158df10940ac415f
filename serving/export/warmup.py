"""Requests that TensorFlow Serving (and our server) runs before a version takes traffic.

The first request of a signature pays for the optimizer's work on its graph and for the kernels, the first of a shape
for its buffers and primitives: hundreds of milliseconds that no caller should see.
"""

import os
import pathlib
from collections.abc import Sequence

import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from serving.engine.loaded_model import MAX_WARMUP_REQUESTS, WARMUP_REQUESTS
from serving.signatures.base import Signature, TextEncoder


def write(folder: str | os.PathLike, signatures: Sequence[tuple[Signature, TextEncoder]]) -> tuple[int, int]:
    """Writes the records of an export: every signature at every warm-up length with one row, those that are asked often
    at every warm-up batch size; no more than a server runs.

    Returns: the number of records, and of those left out.
    """
    asked = [
        (signature, encoder, length, batch)
        for signature, encoder in signatures
        for batch in (encoder.settings.warmup_batches if signature.often else (1,))
        for length in sorted({min(length, encoder.lengths[-1]) for length in encoder.settings.warmup_lengths})
    ]
    kept = asked[:MAX_WARMUP_REQUESTS]
    path = pathlib.Path(folder) / WARMUP_REQUESTS
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, encoder, length, batch in kept:
            predict = _request(signature, encoder, length, batch)
            log = prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=predict))
            writer.write(log.SerializeToString())
    return len(kept), len(asked) - len(kept)


def _request(signature: Signature, encoder: TextEncoder, length: int, batch: int) -> predict_pb2.PredictRequest:
    """One request of `batch` equal rows."""
    predict = predict_pb2.PredictRequest()
    predict.model_spec.signature_name = signature.name
    for spec, value in zip(signature.inputs, signature.warm_up(encoder, length), strict=True):
        predict.inputs[spec.name].CopyFrom(tf.make_tensor_proto([value] * batch, spec.dtype))
    return predict
