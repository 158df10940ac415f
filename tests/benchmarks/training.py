"""Seconds of one training step (forward, loss, backward, clip, optimizer): ours, stock keras-hub layers, HF in PyTorch.

    python -m tests.benchmarks.training --peer-python PATH [--sizes tiny,mini] [--precisions float32,bfloat16]

Length 128, 20 predictions, vocabulary 30,522, two threads each. Every variant is a process of its own; their steps are
interleaved, so that whatever else the machine does strikes all alike; on a busy machine look at the processor time,
which is steadier. Medians after warm-up. `matmul` is the bare matmuls of a whole step's shapes, FLOPs counted by
formula; the last layer of ours leaves some of them out, so that it may be faster than they are.
"""

import argparse
import json
import pathlib
import resource
import statistics
import subprocess
import sys
import time

LENGTH, PREDICTIONS, VOCAB = 128, 20, 30_522
SIZES = {"tiny": (2, 128, 2, 32), "mini": (4, 256, 4, 32), "small": (4, 512, 8, 16), "base": (12, 768, 12, 8)}
ROOT = pathlib.Path(__file__).parents[2]


def matmuls(layers: int, hidden: int, batch_size: int) -> list[tuple[int, int, int, int]]:
    """(count, rows, inner, columns) of the forward matmuls of a whole step, logits at the predictions only. Attention's
    products count as one with B * N * L rows."""
    rows = batch_size * LENGTH
    return [
        (layers, rows, hidden, 3 * hidden),
        (layers, rows, hidden, hidden),
        (layers, rows, hidden, 4 * hidden),
        (layers, rows, 4 * hidden, hidden),
        (2 * layers, rows, hidden, LENGTH),
        (1, batch_size * PREDICTIONS, hidden, VOCAB),
    ]


def flops(layers: int, hidden: int, batch_size: int) -> float:
    """Of a step's matmuls: two for a multiplication and addition, backward twice as much as forward."""
    return sum(6.0 * count * m * k * n for count, m, k, n in matmuls(layers, hidden, batch_size))


class Variant:
    """A process that runs steps when asked."""

    def __init__(self, name: str, command: list[str]):
        self.name, self.seconds, self.processor, self.memory = name, [], [], 0
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def run(self, steps: int, keep: bool = True) -> bool:
        try:
            self._process.stdin.write(f"{steps}\n")
            self._process.stdin.flush()
            answer = json.loads(self._process.stdout.readline())
        except (OSError, ValueError):
            return False
        if keep:
            self.seconds += answer["seconds"]
            self.processor.append(answer["processor"])
            self.memory = answer["memory"]
        return True

    def close(self):
        self._process.kill()
        self._process.wait()


def serve(step) -> None:
    """Answers the parent: see Variant."""
    for line in sys.stdin:
        seconds, began = [], time.process_time()
        for _ in range(int(line)):
            start = time.perf_counter()
            step()
            seconds.append(time.perf_counter() - start)
        processor = (time.process_time() - began) / len(seconds)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps({"seconds": seconds, "processor": processor, "memory": memory}), flush=True)


def worker(variant: str, precision: str, size: str) -> None:
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(2)
    tf.config.threading.set_inter_op_parallelism_threads(2)
    layers, hidden, heads, batch_size = SIZES[size]
    if variant == "matmul":
        return serve(matmul_step(layers, hidden, batch_size, precision))
    batch = {
        "input_ids": tf.random.uniform([batch_size, LENGTH], 5, VOCAB, tf.int32),
        "input_mask": tf.ones([batch_size, LENGTH], tf.int32),
        "segment_ids": tf.zeros([batch_size, LENGTH], tf.int32),
        "masked_lm_positions": tf.sort(tf.random.uniform([batch_size, PREDICTIONS], 1, LENGTH, tf.int32), axis=1),
        "masked_lm_ids": tf.random.uniform([batch_size, PREDICTIONS], 5, VOCAB, tf.int32),
        "masked_lm_weights": tf.ones([batch_size, PREDICTIONS]),
        "next_sentence_labels": tf.random.uniform([batch_size, 1], 0, 2, tf.int32),
    }
    if variant == "stock":
        return serve(stock_step(batch, layers, hidden, heads, precision))
    return serve(ours_step(batch, layers, hidden, heads, precision, recompute=variant == "recompute"))


def ours_step(batch, layers, hidden, heads, precision, recompute=False):
    import tensorflow as tf

    from model.encoder import BertEncoder
    from model.settings import EncoderSettings, TrainingSettings
    from model.tasks.pretraining import Pretraining
    from model.training.optimizer import Optimizer
    from model.training.step import TrainingStep

    settings = TrainingSettings(precision=precision, recompute=recompute)
    encoder = BertEncoder(
        EncoderSettings(VOCAB, hidden, layers, heads, 4 * hidden),
        dtype=settings.dtype_policy,
    )
    optimizer = Optimizer(settings, encoder.trainable_variables, layers)
    step = tf.function(TrainingStep(settings, Pretraining(), encoder, optimizer, 1))
    return lambda: step(batch, tf.constant(200), tf.constant(1.0)).numpy()


def stock_step(batch, layers, hidden, heads, precision):
    """keras-hub's layers and Keras's optimizer as they come, in a custom loop with logits at the predictions only."""
    import keras
    import keras_nlp
    import tensorflow as tf

    if precision != "float32":
        keras.config.set_dtype_policy(f"mixed_{precision}")
    backbone = keras_nlp.models.BertBackbone(VOCAB, layers, heads, hidden, 4 * hidden, dropout=0.1)
    head = keras_nlp.layers.MaskedLMHead(token_embedding=backbone.token_embedding, intermediate_activation="gelu")
    following = keras.layers.Dense(2, dtype="float32")
    optimizer = keras.optimizers.AdamW(1e-4, weight_decay=0.01, global_clipnorm=1.0)
    inputs = {
        "token_ids": batch["input_ids"],
        "padding_mask": batch["input_mask"],
        "segment_ids": batch["segment_ids"],
    }

    def loss():
        outputs = backbone(inputs, training=True)
        logits = tf.cast(head(outputs["sequence_output"], batch["masked_lm_positions"]), tf.float32)
        masked = tf.nn.sparse_softmax_cross_entropy_with_logits(batch["masked_lm_ids"], logits)
        nexts = tf.nn.sparse_softmax_cross_entropy_with_logits(
            batch["next_sentence_labels"][:, 0], following(outputs["pooled_output"])
        )
        return tf.reduce_mean(masked) + tf.reduce_mean(nexts)

    loss()
    variables = list({id(v): v for part in (backbone, head, following) for v in part.trainable_variables}.values())
    optimizer.build(variables)

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            value = loss()
        optimizer.apply(tape.gradient(value, [variable.value for variable in variables]), variables)
        return value

    return lambda: step().numpy()


def matmul_step(layers, hidden, batch_size, precision):
    """Nothing but the step's matmuls, forward and the two backward ones of each."""
    import tensorflow as tf

    dtype = tf.dtypes.as_dtype(precision)
    shapes = matmuls(layers, hidden, batch_size)
    operands = [[tf.cast(tf.random.normal(s), dtype) for s in ((m, k), (k, n), (m, n))] for _, m, k, n in shapes]

    @tf.function
    def one(a, b, d):
        return tf.matmul(a, b), tf.matmul(d, b, transpose_b=True), tf.matmul(a, d, transpose_a=True)

    def step():
        for (count, *_), values in zip(shapes, operands, strict=True):
            for _ in range(count):
                result = one(*values)
        result[-1].numpy()

    return step


def measure(size: str, precision: str, options) -> None:
    layers, hidden, heads, batch_size = SIZES[size]
    commands = {
        name: [sys.executable, "-m", "tests.benchmarks.training", "--worker", f"{name},{precision},{size}"]
        for name in ("ours", "recompute", "stock", "matmul")
        if name != "recompute" or options.recompute
    }
    if options.peer_python:
        peer = str(pathlib.Path(__file__).with_name("training_peer.py"))
        sizes = [str(value) for value in (batch_size, layers, hidden, heads, VOCAB)]
        for variant in ("eager", "compile"):
            commands[f"HF {variant}"] = [options.peer_python, peer, variant, precision, *sizes]
    variants = [Variant(name, command) for name, command in commands.items()]
    try:
        variants = [variant for variant in variants if variant.run(2, keep=False)]
        for _ in range(options.rounds):
            for variant in variants:
                variant.run(options.steps)
    finally:
        for variant in variants:
            variant.close()
    medians = {variant.name: statistics.median(variant.seconds) for variant in variants}
    processor = {variant.name: statistics.median(variant.processor) for variant in variants}
    work = flops(layers, hidden, batch_size)
    peers = [name for name in medians if name.startswith("HF")]
    for variant in variants:
        seconds = medians[variant.name]
        print(
            f"{size:6} {precision:9} {variant.name:11} {seconds * 1e3:8.1f} ms {batch_size / seconds:7.2f} examples/s "
            f"{processor[variant.name] * 1e3:8.1f} ms of processor {work / seconds / 1e9:5.0f} GFLOP/s "
            f"{medians['matmul'] / seconds:5.0%} of bare matmuls {variant.memory / 2**30:5.2f} GiB",
            flush=True,
        )
    for measure_name, values in (("wall time", medians), ("processor time", processor)):
        ratios = [f"{values['stock'] / values['ours']:.2f} x stock"]
        if peers:
            ratios.append(f"{min(values[name] for name in peers) / values['ours']:.2f} x the fastest HF")
        print(f"{size:6} {precision:9} ours = {', '.join(ratios)} by {measure_name}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer-python", help="an interpreter with torch and transformers")
    parser.add_argument("--sizes", default="tiny,mini,small,base")
    parser.add_argument("--precisions", default="float32,bfloat16")
    parser.add_argument("--recompute", action="store_true", help="ours with gradient checkpointing, too")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2, help="steps of each variant in a round")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(*options.worker.split(","))
        return
    for precision in options.precisions.split(","):
        for size in options.sizes.split(","):
            measure(size, precision, options)


if __name__ == "__main__":
    main()
