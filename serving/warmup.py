"""Requests that TensorFlow Serving (and our server) runs before a version takes traffic.

The first request of a signature pays for the optimizer's work on its graph and for the kernels, the first of a shape
for its buffers and primitives: hundreds of milliseconds that no caller should see.
"""

import os
import pathlib
import string

import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from preprocessing import features
from preprocessing.tokenizer import BertTokenizer
from serving.loaded_model import MAX_WARMUP_REQUESTS, WARMUP_REQUESTS
from serving.settings import ExportSettings


def write(
    folder: str | os.PathLike,
    signatures: dict[str, list[str]],
    tokenizer: BertTokenizer,
    lengths: tuple[int, ...],
    settings: ExportSettings,
) -> int:
    """Writes the records of an export: `serving_default` at every warm-up length and batch size, every other signature
    at every warm-up length with one text.

    Args:
        signatures: names of the inputs, by signature.
        lengths: to which the model pads.

    Returns: the number of records.
    """
    longest = lengths[-1]
    wanted = sorted({min(length, longest) for length in settings.warmup_lengths})
    requests = [
        request(name, inputs, tokenizer, length, batch)
        for name, inputs in signatures.items()
        for batch in (settings.warmup_batches if name == "serving_default" else (1,))
        for length in wanted
    ][:MAX_WARMUP_REQUESTS]
    path = pathlib.Path(folder) / WARMUP_REQUESTS
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for predict in requests:
            log = prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=predict))
            writer.write(log.SerializeToString())
    return len(requests)


def request(
    signature: str, inputs: list[str], tokenizer: BertTokenizer, length: int, batch: int
) -> predict_pb2.PredictRequest:
    """One request of `batch` equal rows, each `length` tokens with [CLS] and [SEP]."""
    words = length - 2
    if signature == "evaluate":
        ids = [tokenizer.cls_id, *[tokenizer.mask_id] * (length - 2), tokenizer.sep_id]
        rows = [example(ids, tokenizer.unk_id)]
    elif signature == "fill_mask":
        rows = [f"{_text(tokenizer, words - 1)} {features.MASK}".encode()]
    elif signature == "next_sentence":
        first = (length - 3) // 2
        rows = [_text(tokenizer, first).encode(), _text(tokenizer, length - 3 - first).encode()]
    else:
        rows = [_text(tokenizer, words).encode(), b""][: len(inputs)]
    predict = predict_pb2.PredictRequest()
    predict.model_spec.signature_name = signature
    for name, row in zip(inputs, rows, strict=True):
        predict.inputs[name].CopyFrom(tf.make_tensor_proto([row] * batch, tf.string))
    return predict


def _text(tokenizer: BertTokenizer, count: int) -> str:
    """A text of `count` tokens."""
    letters = set(string.ascii_lowercase)
    word = next((token for token in tokenizer.vocab if set(token) <= letters), "a")  # "a" is one token, if [UNK]
    return " ".join([word] * count)


def example(ids: list[int], first: int) -> bytes:
    """A serialized masked example of these ids, in which `first` is to be predicted behind [CLS]."""
    found = tf.train.Example()
    for name, numbers in (
        (features.INPUT_IDS, ids),
        (features.INPUT_MASK, [1] * len(ids)),
        (features.SEGMENT_IDS, [0] * len(ids)),
        (features.MASKED_LM_POSITIONS, [1]),
        (features.MASKED_LM_IDS, [first]),
        (features.NEXT_SENTENCE_LABELS, [0]),
    ):
        found.features.feature[name].int64_list.value.extend(numbers)
    found.features.feature[features.MASKED_LM_WEIGHTS].float_list.value.append(1.0)
    return found.SerializeToString()
