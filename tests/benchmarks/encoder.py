"""Forward pass of our encoder beside keras-hub's BertBackbone with the same weights, interleaved.

    python -m tests.benchmarks.encoder --sizes tiny mini small base

Prints, for each size and precision, the median time of both in graph mode without dropout at length 128, and the ratio.
"""

import argparse
import statistics
import time

import keras_nlp
import numpy as np
import tensorflow as tf

from model import settings
from model.checkpoints import names
from model.checkpoints.keras_hub import variables
from model.encoder import BertEncoder

LENGTH = 128
BATCH = {"tiny": 32, "mini": 32, "small": 16, "medium": 8, "base": 8}


def functions(size, dtype):
    """{name: a compiled call without arguments} of both implementations."""
    sizes, policy = settings.NAMED[size](), "float32" if dtype == "float32" else f"mixed_{dtype}"
    ours = BertEncoder(sizes, heads=(), dtype=policy)
    theirs = keras_nlp.models.BertBackbone(
        vocabulary_size=sizes.vocab_size,
        num_layers=sizes.num_layers,
        num_heads=sizes.num_heads,
        hidden_dim=sizes.hidden_size,
        intermediate_dim=sizes.intermediate_size,
        dtype=policy,
    )
    arrays = names.arrays_of(ours)
    for name, variable, _ in variables(theirs):
        variable.assign(np.reshape(arrays[name], variable.shape))
    shape = (BATCH[size], LENGTH)
    ids = tf.constant(np.random.default_rng(0).integers(sizes.vocab_size, size=shape), tf.int32)
    ones, zeros = tf.ones_like(ids), tf.zeros_like(ids)
    return {
        "ours": tf.function(
            lambda: ours({"input_ids": ids, "input_mask": ones, "segment_ids": zeros})["pooled_output"]
        ),
        "keras-hub": tf.function(
            lambda: theirs({"token_ids": ids, "padding_mask": ones, "segment_ids": zeros})["pooled_output"]
        ),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="+", default=["tiny", "mini", "small", "base"], choices=BATCH)
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--repeats", type=int, default=15)
    arguments = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(2)
    for size in arguments.sizes:
        for dtype in arguments.dtypes:
            calls = functions(size, dtype)
            wall = {name: [] for name in calls}
            cpu = {name: [] for name in calls}
            for repeat in range(arguments.repeats + 2):
                for name, call in calls.items():
                    start, start_cpu = time.perf_counter(), time.process_time()
                    call().numpy()
                    if repeat >= 2:  # traced and warm
                        wall[name].append(time.perf_counter() - start)
                        cpu[name].append(time.process_time() - start_cpu)
            ours, theirs = (statistics.median(wall[name]) for name in calls)
            work, their_work = (statistics.median(cpu[name]) for name in calls)
            print(
                f"{size:6} {dtype:8} batch {BATCH[size]:2}: ours {ours * 1e3:7.1f} ms, "
                f"keras-hub {theirs * 1e3:7.1f} ms, "
                f"{theirs / ours:.2f} times (processor time {their_work / work:.2f} times)",
                flush=True,
            )


if __name__ == "__main__":
    main()
