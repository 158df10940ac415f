"""Requests that TensorFlow Serving (and our server) runs before a version takes traffic.

The first request of a signature pays for the optimizer's work on its graph and for the kernels, the first of a shape
for its buffers and primitives: hundreds of milliseconds that no caller should see.
"""

import os
import pathlib
import string
from collections.abc import Iterator

import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from preprocessing import features
from preprocessing.tokenizer import BertTokenizer
from serving.settings import ExportSettings

RECORDS = "assets.extra/tf_serving_warmup_requests"
MAX_RECORDS = 1000  # TensorFlow Serving refuses a model with more


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
    ][:MAX_RECORDS]
    path = pathlib.Path(folder) / RECORDS
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for predict in requests:
            log = prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=predict))
            writer.write(log.SerializeToString())
    return len(requests)


def read(folder: str | os.PathLike) -> Iterator[predict_pb2.PredictRequest]:
    """The requests of an export; none if it has no records."""
    path = pathlib.Path(folder) / RECORDS
    if path.is_file():
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            yield prediction_log_pb2.PredictionLog.FromString(record).predict_log.request


def request(
    signature: str, inputs: list[str], tokenizer: BertTokenizer, length: int, batch: int
) -> predict_pb2.PredictRequest:
    """One request of `batch` equal rows, each `length` tokens with [CLS] and [SEP]."""
    words = length - 2
    if signature == "evaluate":
        rows = [_example(tokenizer, length)]
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


def _example(tokenizer: BertTokenizer, length: int) -> bytes:
    real, none = [1] * length, [0] * length
    example = tf.train.Example()
    for name, numbers in (
        (features.INPUT_IDS, [tokenizer.cls_id, *[tokenizer.mask_id] * (length - 2), tokenizer.sep_id]),
        (features.INPUT_MASK, real),
        (features.SEGMENT_IDS, none),
        (features.MASKED_LM_POSITIONS, [1]),
        (features.MASKED_LM_IDS, [tokenizer.unk_id]),
        (features.NEXT_SENTENCE_LABELS, [0]),
    ):
        example.features.feature[name].int64_list.value.extend(numbers)
    example.features.feature[features.MASKED_LM_WEIGHTS].float_list.value.append(1.0)
    return example.SerializeToString()
