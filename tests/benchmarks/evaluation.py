"""What it saves that held-out batches are cut to their lengths: `python -m tests.benchmarks.evaluation FINETUNED`.

FINETUNED is what `bert finetune --task classification` left, such as a folder of `tests.benchmarks.tasks`. Its dev rows
are evaluated as while it trained, and padded to the full length, in turn; processor time, the medians of --rounds.
"""

import argparse
import json
import pathlib
import statistics
import time

from model import checkpoints
from model.tasks.classification import Classification
from model.training.evaluation import Evaluation
from pipeline.finetuning.planning import BUCKETS
from preprocessing import batches, features


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("finetuned", type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    model = options.finetuned / "model"
    task = Classification(len(json.loads((model / "task.json").read_text())["labels"]))
    examples = batches.open_examples([str(*(options.finetuned / "examples").glob("*-dev.tfrecord"))], task.spec)
    encoder = checkpoints.load(model)
    length = examples.axes[features.LENGTH]
    print(f"{examples.count:,} rows of {examples.sums[features.INPUT_MASK] / examples.count:.1f} tokens")
    ways = {f"padded to {length}": (), "cut": tuple(bucket for bucket in BUCKETS if bucket < length)}
    evaluations = {way: Evaluation(task, encoder, examples, 32, buckets=buckets) for way, buckets in ways.items()}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(options.rounds + 1):
        for way, evaluation in evaluations.items():
            began = time.process_time()
            figures = evaluation()
            if turn:  # the first traces
                seconds[way].append(time.process_time() - began)
            else:
                print(f"{way}: {figures}")
    padded, cut = (statistics.median(found) for found in seconds.values())
    print(f"{padded:.1f} s of processor time padded, {cut:.1f} s cut: {padded / cut:.1f} times as fast")


if __name__ == "__main__":
    main()
