"""Where the time of one text goes: parts of an export, each called alone, in turns. See `tests.benchmarks.engines`."""

import collections
import os
import pathlib
import statistics
import time

WIDTHS = (384, 1536)  # of the checkpoint
LAYERS = 6
TOKENS = 24  # SST-2's texts have so many on average
ROUNDS, CALLS = 15, 20


def main(version: pathlib.Path, texts: pathlib.Path, threads: int) -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf
    import tensorflow_text  # noqa: F401
    from tensorflow.python.eager import context

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    model = tf.saved_model.load(str(version))
    call, tokenize = (model.signatures[name] for name in ("serving_default", "tokenize"))
    rows = texts.read_text("utf-8").splitlines()
    text = next(tf.constant([row]) for row in rows if int(tokenize(text=tf.constant([row]))["length"][0]) == TOKENS)

    context.context().enable_graph_collection()
    call(text=text)
    graphs = context.context().export_run_metadata().partition_graphs
    context.context().disable_graph_collection()
    operations = collections.Counter(node.op for graph in graphs for node in graph.node)

    hidden, inner = WIDTHS
    shapes = [(hidden, 3 * hidden), (hidden, hidden), (hidden, inner), (inner, hidden)] * LAYERS
    matrices = [tf.Variable(tf.random.normal(shape, stddev=0.05)) for shape in shapes]
    wide = {width: tf.random.normal([TOKENS, width]) for width in WIDTHS}

    @tf.function(autograph=False)
    def products():
        return [tf.matmul(wide[matrix.shape[0]], matrix)[0, 0] for matrix in matrices]

    empty = tf.function(lambda text: tf.shape(text)[0], input_signature=[tf.TensorSpec([None], tf.string)])
    parts = {
        "one text": lambda: call(text=text)["embedding"].numpy(),
        "its tokens alone": lambda: tokenize(text=text)["ids"].numpy(),
        "bare float32 products": products,
        "a call of nothing": lambda: empty(text).numpy(),
    }
    wall: dict[str, list[float]] = {name: [] for name in parts}
    cpu: dict[str, list[float]] = {name: [] for name in parts}
    for repeat in range(ROUNDS + 1):
        for name, part in parts.items():
            start, start_cpu = time.perf_counter(), time.process_time()
            for _ in range(CALLS):
                part()
            if repeat:  # the first warms up
                wall[name].append(1000 * (time.perf_counter() - start) / CALLS)
                cpu[name].append(1000 * (time.process_time() - start_cpu) / CALLS)
    print(f"a text of {TOKENS} tokens, {threads} threads; milliseconds, medians")
    print(f"{'':24}{'wall':>8}{'processor':>11}")
    for name in parts:
        print(f"{name:24}{statistics.median(wall[name]):8.2f}{statistics.median(cpu[name]):11.2f}")
    print(f"{sum(operations.values())} operations in the optimised graph with its tokenizer's, most of them:")
    print(", ".join(f"{name} {count}" for name, count in operations.most_common(20)))
