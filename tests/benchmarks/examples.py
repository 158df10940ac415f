"""Masked examples from text to TFRecord on disk: ours, google's script, and a Hugging Face pipeline, in turns.

    python -m tests.benchmarks.examples --google-checkout PATH --peer-python PATH

Seconds are of processor time, so figures are per core, and steadier than the clock on a shared machine; set-up
(imports, vocabulary) is excluded. The script of google and the pipeline of Hugging Face read a part of the text, being
slow. With `--table SIZE` it measures time and peak memory of the command instead, on text repeated with changes.
"""

import contextlib
import json
import os
import pathlib
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import click

from tests import data
from tests.benchmarks.peers import Peer

_GOOGLE = """
import sys, os
import tensorflow.compat.v1 as tf
tf.disable_eager_execution()
sys.modules["tensorflow"] = tf  # the script wants TensorFlow 1
def load(a):
    sys.path.insert(0, a["checkout"])
    sys.argv = ["x", "--input_file=" + a["text"], "--vocab_file=" + a["vocab"], "--output_file=" + a["output"],
                "--dupe_factor=%d" % a["dupe_factor"]]
    import create_pretraining_data as script
    tf.flags.FLAGS(sys.argv)
    tf.logging.set_verbosity(tf.logging.ERROR)
    tf.logging.info = lambda *x: None
    return script, a
def work(loaded):
    script, a = loaded
    script.main(None)
    return sum(1 for _ in tf.python_io.tf_record_iterator(a["output"]))
"""

_HUGGING_FACE = """
import random, datasets, numpy, torch
from transformers import BertTokenizerFast, DataCollatorForLanguageModeling
datasets.disable_progress_bars()
datasets.disable_caching()
def load(a):
    torch.set_num_threads(1)
    return BertTokenizerFast(vocab_file=a["vocab"]), a
def work(loaded):
    tokenizer, a = loaded
    documents = [d.strip().split("\\n") for d in open(a["text"], encoding="utf8").read().split("\\n\\n") if d.strip()]
    data = datasets.Dataset.from_dict({"sentences": documents})
    def tokenize(batch):
        flat = [s for d in batch["sentences"] for s in d]
        ids = iter(tokenizer(flat, add_special_tokens=False, return_attention_mask=False,
                             return_token_type_ids=False)["input_ids"])
        return {"ids": [[next(ids) for _ in d] for d in batch["sentences"]]}
    data = data.map(tokenize, batched=True, batch_size=100, remove_columns=["sentences"])
    documents = data["ids"][:]
    collator = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15)
    def pairs(batch, indices):
        out = {"input_ids": [], "attention_mask": [], "token_type_ids": [], "next_sentence_label": []}
        for index, document in zip(indices, batch["ids"]):
            i, chunk, length = 0, [], 0
            target = 125 if random.random() > 0.1 else random.randint(2, 125)
            while i < len(document):
                chunk.append(document[i]); length += len(document[i])
                if i == len(document) - 1 or length >= target:
                    a_end = random.randint(1, len(chunk) - 1) if len(chunk) > 1 else 1
                    tokens_a = [t for s in chunk[:a_end] for t in s]; tokens_b = []
                    label = int(len(chunk) == 1 or random.random() < 0.5)
                    if label:
                        other = index
                        while other == index: other = random.randrange(len(documents))
                        start = random.randrange(len(documents[other]))
                        for s in documents[other][start:]:
                            tokens_b += s
                            if len(tokens_b) >= target - len(tokens_a): break
                        i -= len(chunk) - a_end
                    else:
                        tokens_b = [t for s in chunk[a_end:] for t in s]
                    while len(tokens_a) + len(tokens_b) > 125:
                        longer = tokens_a if len(tokens_a) > len(tokens_b) else tokens_b
                        longer.pop(0 if random.random() < 0.5 else -1)
                    ids = [tokenizer.cls_token_id, *tokens_a, tokenizer.sep_token_id, *tokens_b, tokenizer.sep_token_id]
                    types = [0] * (len(tokens_a) + 2) + [1] * (len(tokens_b) + 1)
                    pad = 128 - len(ids)
                    out["input_ids"].append(ids + [0] * pad)
                    out["attention_mask"].append([1] * len(ids) + [0] * pad)
                    out["token_type_ids"].append(types + [0] * pad)
                    out["next_sentence_label"].append(label)
                    chunk, length = [], 0
                i += 1
        return out
    def mask(batch):
        ids = torch.tensor(batch["input_ids"])
        special = (ids == tokenizer.cls_token_id) | (ids == tokenizer.sep_token_id) | (ids == 0)
        ids, labels = collator.torch_mask_tokens(ids, special_tokens_mask=special)
        return {"input_ids": ids.numpy(), "labels": labels.numpy()}
    count = 0
    for copy in range(a["dupe_factor"]):
        made = data.map(pairs, batched=True, batch_size=100, with_indices=True, remove_columns=["ids"])
        made = made.map(mask, batched=True, batch_size=1000)
        made.to_parquet(a["output"] + str(copy))
        count += len(made)
    return count
"""

_OURS = """
import os; os.environ.update(TF_CPP_MIN_LOG_LEVEL="3")
import warnings; warnings.simplefilter("ignore")
import shutil
import apache_beam as beam
from preprocessing.beam import runner
from preprocessing.examples import spilling, writing
from preprocessing.examples.maker import ExampleMaker
from preprocessing.settings import CorpusSettings, ExampleSettings
def load(a):
    tokenizer = spilling.load_tokenizer(a["vocab"], True)
    tokenizer.tokenize(["warm up", "é"])
    ExampleMaker(ExampleSettings(), tokenizer)
    return a
def work(a):
    shutil.rmtree(a["output"], ignore_errors=True)
    os.makedirs(a["output"])
    pipeline = beam.Pipeline(options=runner.make_options(workers=a.get("workers", 1)))
    _ = pipeline | writing.WriteExamples(
        ExampleSettings(dupe_factor=a["dupe_factor"]), a["vocab"], a["output"], shards=4, temp_folder=a["output"],
        corpus=CorpusSettings((a["text"],), format=a["format"]))
    return runner.counters(runner.run(pipeline))["examples"]
"""

_TOKENIZE = """
import os; os.environ.update(TF_CPP_MIN_LOG_LEVEL="3")
import warnings; warnings.simplefilter("ignore")
from preprocessing.tokenizer import BertTokenizer
def load(a):
    tokenizer = BertTokenizer.from_vocab(a["vocab"])
    lines = [line for line in open(a["text"], encoding="utf8").read().split("\\n") if line]
    tokenizer.tokenize(lines[:100] + ["é"])
    return tokenizer, lines
def work(loaded):
    tokenizer, lines = loaded
    return sum(int(tokenizer.tokenize(lines[at : at + 20000]).values.shape[0]) for at in range(0, len(lines), 20000))
"""


def _prepare(folder: pathlib.Path, megabytes: float) -> tuple[str, str, str]:
    """Sentences, the same as paragraphs, and a part for slow peers: paths."""
    from preprocessing.corpus import sentences

    sources = [data.require("corpus_en/wikipedia_490_articles.txt"), *sorted(data.require("corpus_en/books").glob("*"))]
    documents = [text for path in sources for text in path.read_text().strip().split("\n\n")]
    kept, size = [], 0
    for document in documents:
        if size < megabytes * 1e6:
            kept.append(document)
            size += len(document.encode())
    given = ["\n".join(sentences.split(document)) for document in kept]
    part, size = [], 0
    for document in given[:: max(len(given) // 100, 1)]:
        if size < 3e6:
            part.append(document)
            size += len(document.encode())
    paths = []
    for name, texts in (("sentences", given), ("paragraphs", kept), ("part", part)):
        (folder / f"{name}.txt").write_text("\n\n".join(texts) + "\n")
        paths.append(str(folder / f"{name}.txt"))
    return tuple(paths)


@click.command()
@click.option("--google-checkout", type=click.Path(exists=True), help="A checkout of google-research/bert.")
@click.option("--peer-python", type=click.Path(exists=True), help="An interpreter with transformers and datasets.")
@click.option("--megabytes", default=20.0, show_default=True)
@click.option("--repeats", default=3, show_default=True)
@click.option("--dupe-factor", "dupe_factors", multiple=True, type=int, default=[1, 10], show_default=True)
@click.option("--table", multiple=True, type=int, metavar="MB", help="Memory and time at these sizes instead.")
@click.option("--workers", default=1, show_default=True, help="For --table.")
def main(google_checkout, peer_python, megabytes, repeats, dupe_factors, table, workers):
    """Prints MB/s and examples/s per core, and ratios."""
    vocab = str(data.uncased_vocabulary())
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        sentences, paragraphs, part = _prepare(folder, megabytes)
        for size in table:
            _measure_size(folder, pathlib.Path(sentences), vocab, size, workers)
        if table:
            return
        for dupe_factor in dupe_factors:
            _compare(folder, sentences, paragraphs, part, vocab, dupe_factor, google_checkout, peer_python, repeats)


def _compare(folder, sentences, paragraphs, part, vocab, dupe_factor, google_checkout, peer_python, repeats):
    common = {"vocab": vocab, "dupe_factor": dupe_factor, "format": "sentences"}
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "TOKENIZERS_PARALLELISM": "false", "PYTHONWARNINGS": "ignore",
             "HF_HUB_OFFLINE": "1"}  # fmt: skip
    peers: dict[str, tuple[str, str, str]] = {
        "ours, sentences": (sys.executable, _OURS, sentences),
        "ours, paragraphs": (sys.executable, _OURS, paragraphs),
        "tokenization alone": (sys.executable, _TOKENIZE, sentences),
    }
    if google_checkout:
        peers["google"] = (sys.executable, _GOOGLE, part)
    if peer_python:
        peers["Hugging Face"] = (peer_python, _HUGGING_FACE, part)
    seconds: dict[str, list[float]] = {name: [] for name in peers}
    counts = {}
    with contextlib.ExitStack() as stack:
        running = {}
        for number, (name, (python, program, text)) in enumerate(peers.items()):
            arguments = common | {"text": text, "output": str(folder / f"out-{number}"), "checkout": google_checkout}
            arguments["format"] = "paragraphs" if text == paragraphs else "sentences"
            running[name] = stack.enter_context(Peer(python, program, arguments, quiet))
        for _ in range(repeats):
            for name, peer in running.items():
                took, counts[name] = peer.run()
                seconds[name].append(took)
    print(f"dupe_factor {dupe_factor}")
    speed = {}
    for name, (_, _, text) in peers.items():
        took = statistics.median(seconds[name])
        speed[name] = os.path.getsize(text) / 1e6 / took
        rate = f"{counts[name] / took:>10,.0f} examples/s" if name != "tokenization alone" else ""
        spread = f"{min(seconds[name]):.2f}-{max(seconds[name]):.2f} s"
        print(f"  {name:<20} {speed[name]:>7.2f} MB/s {rate:<24} {spread}")
    for name in ("google", "Hugging Face"):
        if name in speed:
            print(f"  ours / {name}: {speed['ours, sentences'] / speed[name]:.1f}")
    print(f"  tokenization alone / ours: {speed['tokenization alone'] / speed['ours, sentences']:.2f}")


def _measure_size(folder, source, vocab, megabytes, workers):
    text, output = folder / "large.txt", folder / "large"
    write_large(text, source, megabytes)
    used = measured("examples", "--input", str(text), "--format", "sentences", "--vocab", vocab, "--output",
                    str(output), "--dupe-factor", "1", "--workers", str(workers))  # fmt: skip
    report = json.loads((output / "report.json").read_text())
    print(f"{megabytes:>6} MB, {workers} workers: {used}, {report['examples']:,} examples", flush=True)
    shutil.rmtree(output)
    text.unlink()


def write_large(path, source, megabytes):
    """`megabytes` of text: that of `source` repeated with changed words."""
    documents = source.read_text().strip().split("\n\n")
    written = 0
    with path.open("w") as file:
        while written < megabytes * 1e6:
            for document in documents:
                changed = document.replace(" the ", f" the {written:x} ") if written else document
                written += file.write(changed + "\n\n")
                if written >= megabytes * 1e6:
                    break


def measured(*arguments):
    """Time and peak memory of a run of the command, as a text."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.monotonic()
    command = [sys.executable, "-m", "pipeline.cli", *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wall = time.monotonic() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return f"{wall:.1f} s, {used:.1f} s of processor time, largest process {after.ru_maxrss / 1e6:.2f} GB"


if __name__ == "__main__":
    main()
