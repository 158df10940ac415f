"""Training on one GPU, through `model.training.train` with all that a user's run has: its input, its reports.

    python -m tests.benchmarks.gpu [--runs base-128-64-bfloat16-xla ...] [--peer-python PATH] [--output FILE]

A run is size-length-batch-precision-xla or -plain; `tf32` as precision is float32 whose matmuls the card may round to
TF32 (TensorFlow's default), `float32` is without that. 20 predictions an example at length 128, 77 at 512, vocabulary
30,522, no padding, AdamW, dropout 0.1, random tokens. Steady figures are medians of reports of 20 steps after the first
one; `first` is what lies between calling `train` and the first report, less 20 steady steps. FLOPs are those of the
matmuls that are done, counted by formula (the last layer works at the predictions and [CLS] only), over the rate of
one 8192 x 8192 x 8192 matmul in bfloat16, measured first.
"""

import argparse
import gc
import json
import pathlib
import statistics
import subprocess
import tempfile
import time

import numpy as np
import tensorflow as tf

from model import settings
from model.tasks.pretraining import Pretraining
from model.training import train
from preprocessing import features
from tests.model import small_examples

VOCAB = 30_522
PREDICTIONS = {128: 20, 512: 77}
RUNS = (
    *(f"base-128-{batch}-bfloat16-xla" for batch in (64, 128, 256)),
    *(f"base-{rest}" for rest in ("512-32-bfloat16-xla", "128-64-bfloat16-plain", "512-32-bfloat16-plain")),
    *(f"base-{rest}" for rest in ("128-64-tf32-xla", "128-64-tf32-plain", "128-64-float32-xla", "512-32-tf32-xla")),
    "large-128-64-bfloat16-xla",
)
PEER = pathlib.Path(__file__).with_name("gpu_peer.py")
REPORTS, STEPS = 6, 20


def examples(count: int, length: int) -> dict[str, np.ndarray]:
    """Random tokens, as many predictions as there may be, no padding."""
    random, predictions = np.random.default_rng(0), PREDICTIONS[length]
    ids = random.integers(5, VOCAB, (count, length))
    positions = np.sort(random.permuted(np.tile(np.arange(1, length), (count, 1)), axis=1)[:, :predictions], axis=1)
    return {
        features.INPUT_IDS: ids,
        features.INPUT_MASK: np.ones_like(ids),
        features.SEGMENT_IDS: np.zeros_like(ids),
        features.MASKED_LM_POSITIONS: positions,
        features.MASKED_LM_IDS: np.take_along_axis(ids, positions, axis=1),
        features.MASKED_LM_WEIGHTS: np.ones((count, predictions), np.float32),
        features.NEXT_SENTENCE_LABELS: random.integers(0, 2, (count, 1)),
    }


def flops(encoder: settings.EncoderSettings, length: int, predictions: int) -> float:
    """Of an example's matmuls in a step: two for a multiplication and addition, backward twice as much as forward."""
    hidden, inner = encoder.hidden_size, encoder.intermediate_size

    def layer(queries):
        projections = 2 * length * hidden**2 + 2 * queries * hidden**2  # keys and values; queries and output
        return projections + 2 * queries * length * hidden + 2 * queries * hidden * inner

    layers = (encoder.num_layers - 1) * layer(length) + layer(predictions + 1)
    return 6.0 * (layers + predictions * hidden * (hidden + encoder.vocab_size) + hidden**2)


def peak() -> float:
    """FLOP/s of one large matmul in bfloat16."""
    size, times = 8192, 20
    a, b = (tf.cast(tf.random.normal([size, size], stddev=size**-0.25), tf.bfloat16) for _ in range(2))

    @tf.function
    def several(a):
        for _ in range(times):
            a = tf.matmul(a, b)
        return a[0, 0]

    seconds = []
    for _ in range(4):
        start = time.perf_counter()
        several(a).numpy()
        seconds.append(time.perf_counter() - start)
    return 2.0 * size**3 * times / min(seconds)


class Enough(Exception):
    """Ends a run before it writes its checkpoint."""


def measure(name: str, folder: pathlib.Path, rate: float) -> dict:
    size, length, batch_size, precision, way = name.split("-")
    length, batch_size = int(length), int(batch_size)
    path = folder / f"{length}.tfrecord"
    if not path.exists():
        small_examples.write(path, examples(1024, length))
    tf.config.experimental.enable_tensor_float_32_execution(precision == "tf32")
    gpu = bool(tf.config.list_logical_devices("GPU"))
    if gpu:
        tf.config.experimental.reset_memory_stats("GPU:0")
    reports, start = [], time.perf_counter()

    def report(step, _, figures):
        reports.append((time.perf_counter() - start, figures))
        if len(reports) == REPORTS:
            raise Enough

    encoder = settings.NAMED[size]()
    run = settings.TrainingSettings(
        steps=1000,
        batch_size=batch_size,
        precision="bfloat16" if precision == "bfloat16" else "float32",
        xla=way == "xla",
        steps_per_call=STEPS,
        report_every=STEPS,
        checkpoint_every=1000,
    )
    try:
        with tempfile.TemporaryDirectory() as output:
            train(encoder, run, task=Pretraining(), train_files=[str(path)], output=output, report=report)
    except Enough:
        pass
    seconds = statistics.median(batch_size / figures["examples_per_second"] for _, figures in reports[1:])
    work = flops(encoder, length, PREDICTIONS[length]) * batch_size
    result = {
        "run": name,
        "ms": seconds * 1e3,
        "examples_per_second": batch_size / seconds,
        "tokens_per_second": batch_size * length / seconds,
        "tflops": work / seconds / 1e12,
        "share": work / seconds / rate,
        "first": reports[0][0] - STEPS * seconds,
        "input_wait_share": statistics.median(figures["input_wait_share"] for _, figures in reports[1:]),
        "loss": [figures["loss"] for _, figures in reports],
        "gib": tf.config.experimental.get_memory_info("GPU:0")["peak"] / 2**30 if gpu else 0.0,
    }
    print(
        f"{name:28} {result['ms']:7.2f} ms {result['examples_per_second']:8.1f} examples/s "
        f"{result['tokens_per_second']:9.0f} tokens/s {result['tflops']:6.1f} TFLOP/s {result['share']:5.1%} of the "
        f"matmul, first {result['first']:5.1f} s, {result['gib']:5.1f} GiB, waits {result['input_wait_share']:.1%}",
        flush=True,
    )
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", nargs="*", default=RUNS)
    parser.add_argument("--peer-python", help="an interpreter with torch and transformers")
    parser.add_argument("--peer-runs", nargs="*", default=[run for run in RUNS if run.endswith("bfloat16-xla")])
    parser.add_argument("--output", help="a JSON file of all figures")
    options = parser.parse_args()
    for device in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(device, True)  # leaves the peers their part
        print(tf.config.experimental.get_device_details(device))
    results = []
    if options.runs:
        rate = peak()
        print(f"matmul in bfloat16: {rate / 1e12:.0f} TFLOP/s", flush=True)
        results.append({"run": "matmul", "tflops": rate / 1e12})
    with tempfile.TemporaryDirectory() as folder:
        for name in options.runs:
            try:
                results.append(measure(name, pathlib.Path(folder), rate))
            except (tf.errors.OpError, RuntimeError) as error:
                results.append({"run": name, "error": str(error)[:3000]})
                print(f"{name:28} {str(error).strip()[:300]}", flush=True)
            gc.collect()
            if options.output:
                pathlib.Path(options.output).write_text(json.dumps(results, indent=1) + "\n")
    for name in options.peer_runs if options.peer_python else ():
        subprocess.run([options.peer_python, str(PEER), name], check=False)


if __name__ == "__main__":
    main()
