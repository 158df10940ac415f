"""A model of seconds and examples that it can learn from, for the tests of training."""

import numpy as np
import tensorflow as tf

from model.encoder import BertEncoder
from model.encoder.heads import PRETRAINING
from model.settings import EncoderSettings
from preprocessing import features

VOCAB, LENGTH, PREDICTIONS = 40, 16, 3
MASK_ID = 4


def encoder_settings(**overrides) -> EncoderSettings:
    values = {
        "vocab_size": VOCAB,
        "hidden_size": 16,
        "num_layers": 2,
        "num_heads": 2,
        "intermediate_size": 32,
        "max_positions": LENGTH,
        "initializer_range": 0.1,
    }
    return EncoderSettings(**(values | overrides))


def encoder(heads=PRETRAINING, **overrides) -> BertEncoder:
    return BertEncoder(encoder_settings(**overrides), heads)


def examples(count: int, seed: int = 0, length: int = LENGTH) -> dict[str, np.ndarray]:
    """Sentences that repeat one token: a masked one follows from its neighbours, and a true next sentence repeats the
    first one's token."""
    random = np.random.default_rng(seed)
    starts = random.integers(0, VOCAB - 5, (count, 2))
    labels = random.integers(0, 2, (count, 1))
    middle = length // 2
    counting = np.arange(length)
    second = np.where(labels, starts[:, 1:], starts[:, :1])
    ids = 5 + np.where(counting < middle, starts[:, :1], second)
    real = random.integers(length - 3, length + 1, (count, 1))
    mask = (counting < real).astype(np.int64)
    ids[:, 0], ids[:, middle] = 2, 3
    ids *= mask
    positions = np.sort(random.permuted(np.tile(np.arange(1, length - 3), (count, 1)), axis=1)[:, :PREDICTIONS], axis=1)
    right = np.take_along_axis(ids, positions, axis=1)
    np.put_along_axis(ids, positions, MASK_ID, axis=1)
    weights = np.ones((count, PREDICTIONS), np.float32)
    weights[random.random(count) < 0.3, -1] = 0.0
    return {
        features.INPUT_IDS: ids,
        features.INPUT_MASK: mask,
        features.SEGMENT_IDS: (counting > middle) * mask,
        features.MASKED_LM_POSITIONS: positions,
        features.MASKED_LM_IDS: right,
        features.MASKED_LM_WEIGHTS: weights,
        features.NEXT_SENTENCE_LABELS: labels,
    }


def batch(count: int, seed: int = 0) -> dict[str, tf.Tensor]:
    """Examples as a training step takes them."""
    return tensors(examples(count, seed))


def tensors(arrays: dict[str, np.ndarray]) -> dict[str, tf.Tensor]:
    return {
        name: tf.constant(value, tf.float32 if value.dtype == np.float32 else tf.int32)
        for name, value in arrays.items()
    }


def write(path, arrays: dict[str, np.ndarray]) -> str:
    """Writes examples as a TFRecord file, compressed when its name ends in .gz."""
    options = "GZIP" if str(path).endswith(".gz") else ""
    with tf.io.TFRecordWriter(str(path), options) as writer:
        for row in range(len(next(iter(arrays.values())))):
            writer.write(example({name: values[row] for name, values in arrays.items()}))
    return str(path)


def example(values: dict) -> bytes:
    """A serialized tf.Example."""
    return tf.train.Example(
        features=tf.train.Features(
            feature={
                name: tf.train.Feature(float_list=tf.train.FloatList(value=value))
                if np.asarray(value).dtype.kind == "f"
                else tf.train.Feature(int64_list=tf.train.Int64List(value=value))
                for name, value in values.items()
            }
        )
    ).SerializeToString()


def write_vocabulary(path) -> str:
    """One token a line, as many as the model has."""
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"t{i}" for i in range(5, VOCAB))]
    path.write_text("\n".join(tokens) + "\n")
    return str(path)
