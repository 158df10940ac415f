"""Vocabulary learning beside Hugging Face's trainer and tensorflow-text's learner.

    python -m tests.benchmarks.vocabulary --peer-python PATH [--tensorflow-text]
    python -m tests.benchmarks.vocabulary --large
    python -m tests.benchmarks.vocabulary --megabytes 1000 [--workers 2]

5 MB of English prose, from text to vocabulary on one core; quality as mean pieces per word on prose held out, with the
same (our) tokenizer for all. `--large` learns 30,000 pieces from the counts of 2.5 million different words, as 1 GB of
text has, made by joining halves of real words. `--megabytes` runs the command for 30,000 pieces on text repeated with
changed words.
"""

import argparse
import itertools
import json
import pathlib
import random
import resource
import tempfile
import time
from collections import Counter

from tests import data
from tests.benchmarks.examples import measured, write_large
from tests.benchmarks.peers import Peer

MEGABYTES = 5
HUGGING_FACE = """
import os, tempfile, tokenizers
def load(arguments):
    return arguments
def work(arguments):
    tokenizer = tokenizers.BertWordPieceTokenizer(lowercase=True)
    tokenizer.train_from_iterator(arguments["lines"], vocab_size=arguments["size"], show_progress=False)
    return [token for token, _ in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])]
"""


def prose():
    """(lines to learn from, lines held out)"""
    text = (data.folder() / "corpus_en" / "wikipedia_490_articles.txt").read_text(encoding="utf-8")
    lines = [line for line in text.split("\n") if line.strip()]
    ends = itertools.accumulate(len(line.encode()) for line in lines)
    count = sum(end < MEGABYTES * 1e6 for end in ends)
    return lines[:count], lines[count:][-3000:]


def count(lines):
    lines = list(lines)
    from preprocessing.tokenizer.words import count_words

    counts = Counter()
    for start in range(0, len(lines), 1000):
        counts.update(count_words(lines[start : start + 1000], lower_case=True))
    return counts


def ours(lines, size):
    from preprocessing.settings import VocabularySettings
    from preprocessing.vocabulary import learning

    return learning.learn(count(lines), VocabularySettings(size))


def tensorflow_text(lines, size):
    import tensorflow as tf
    from tensorflow_text.tools.wordpiece_vocab import bert_vocab_from_dataset

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    dataset = tf.data.Dataset.from_tensor_slices(lines).batch(1000)
    return bert_vocab_from_dataset.bert_vocab_from_dataset(dataset, size, special, {"lower_case": True})


def timed(function, *arguments):
    start = time.process_time()
    result = function(*arguments)
    return time.process_time() - start, result


def compare(options):
    from preprocessing.vocabulary import report

    learn, held_out = prose()
    held_out = count(held_out)  # also warms our splitter up
    print(f"{sum(len(line.encode()) for line in learn) / 1e6:.1f} MB; processor seconds; figures on held-out prose")
    for size in (8_000, 30_522):
        rows = [("ours", *timed(ours, learn, size)), ("ours again", *timed(ours, learn, size))]
        if options.peer_python:
            one_thread = {"RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
            with Peer(options.peer_python, HUGGING_FACE, {"lines": learn, "size": size}, one_thread) as peer:
                rows += [("Hugging Face", *peer.run()), ("Hugging Face again", *peer.run())]
        if options.tensorflow_text and size == 8_000:
            rows.append(("tensorflow-text", *timed(tensorflow_text, learn, size)))
        first = {name.removesuffix(" again"): vocab for name, _, vocab in reversed(rows)}
        for name, seconds, vocab in rows:
            figures = report.describe(vocab, held_out, lower_case=True)
            same = "" if vocab == first[name.removesuffix(" again")] else "  differs from the first run"
            print(
                f"  {name:20}{seconds:7.1f} s  {len(vocab):6,} tokens  {figures['pieces_per_word']:.4f} pieces/word"
                f"  [UNK] {figures['unknown_share']:.4%}{same}"
            )
    official = data.folder() / "vocab" / "bert-base-uncased-vocab.txt"
    if official.exists():
        figures = report.describe(official.read_text().split("\n")[:-1], held_out, lower_case=True)
        print(f"  official, 30,522: {figures['pieces_per_word']:.4f} pieces/word  [UNK] {figures['unknown_share']:.4%}")


def large():
    from preprocessing.settings import VocabularySettings
    from preprocessing.vocabulary import learning

    real = [word for word in count(itertools.chain.from_iterable(prose())) if word.isalpha() and len(word) > 3]
    draw = random.Random(1)
    words = dict.fromkeys(real)
    while len(words) < 2_500_000:
        left, right = draw.choice(real), draw.choice(real)
        words[left[: draw.randint(2, len(left))] + right[draw.randint(1, len(right) - 2) :]] = None
    counts = {word: 1 + int(2e8 / (rank + 10) ** 1.1) for rank, word in enumerate(words)}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    seconds, vocab = timed(learning.learn, counts, VocabularySettings(30_005))
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(
        f"{len(counts):,} different words, {sum(counts.values()):,} in all: {len(vocab):,} tokens in {seconds:.0f}"
        f" processor seconds; peak memory {after:.1f} GB, of which {before:.1f} GB before learning"
    )


def whole_command(megabytes, workers):
    source = data.folder() / "corpus_en" / "wikipedia_490_articles.txt"
    with tempfile.TemporaryDirectory() as folder:
        text, output = pathlib.Path(folder, "large.txt"), pathlib.Path(folder, "vocab.txt")
        write_large(text, source, megabytes)
        used = measured("vocab", "--input", str(text), "--size", "30000", "--output", str(output), "--workers",
                        str(workers))  # fmt: skip
        learned = json.loads(output.with_suffix(".report.json").read_text())
    words = learned["learned_from"]
    print(
        f"{megabytes} MB, {workers} workers: {used}; {learned['vocabulary']['size']:,} tokens from "
        f"{words['different_words']:,} different words, {words['words']:,} in all"
    )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--megabytes", type=int)
    parser.add_argument("--workers", type=int, default=1, help="with --megabytes")
    parser.add_argument("--peer-python", help="interpreter that has `tokenizers`")
    parser.add_argument("--tensorflow-text", action="store_true", help="takes minutes")
    parser.add_argument("--large", action="store_true")
    options = parser.parse_args()
    if options.large:
        large()
    elif options.megabytes:
        whole_command(options.megabytes, options.workers)
    else:
        compare(options)


if __name__ == "__main__":
    main()
