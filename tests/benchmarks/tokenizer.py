"""Speed of the tokenizer beside `tf_text.FastBertTokenizer` and Hugging Face's `tokenizers`, one core each.

    python -m tests.benchmarks.tokenizer [--peer-python PATH]

All take turns on the same lines in batches of 1,000; medians of the rounds, in seconds of processor time (which others'
work on the machine disturbs less). FastBertTokenizer and Hugging Face do not
give google's ids for every string; the share of lines on which they differ is printed too.
"""

import argparse
import statistics
import time

from tests import data
from tests.benchmarks.peers import Peer

BATCH = 1000
HUGGING_FACE = """
import tokenizers
def load(arguments):
    tokenizer = tokenizers.BertWordPieceTokenizer(arguments["vocab"], lowercase=True)
    lines = arguments["lines"]
    return tokenizer, [lines[i:i + 1000] for i in range(0, len(lines), 1000)]
def work(loaded):
    tokenizer, batches = loaded
    return [[encoding.ids for encoding in tokenizer.encode_batch(batch, add_special_tokens=False)] for batch in batches]
"""
# The ids come back through a pipe, which is not timed.


def corpora(megabytes: float) -> dict[str, list[str]]:
    def take(lines):
        taken, size = [], 0
        for line in lines:
            if size >= megabytes * 1e6:
                break
            if line.strip():
                taken.append(line)
                size += len(line.encode())
        return taken

    english = (data.folder() / "corpus_en" / "wikipedia_490_articles.txt").read_text(encoding="utf-8").split("\n")
    files = sorted((data.folder() / "corpus_intl").glob("*.txt"))
    languages = [line for path in files for line in path.read_text(encoding="utf-8").split("\n")]
    parts = {
        "ASCII": take(line for line in english if line.isascii()),
        "English": take(english),
        "17 texts, 13 languages": take(languages),
    }
    return parts | {"mixed (the last two)": parts["English"] + parts["17 texts, 13 languages"]}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--peer-python", help="interpreter that has `tokenizers`")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--megabytes", type=float, default=3.0)
    options = parser.parse_args()

    import tensorflow as tf
    import tensorflow_text as text

    from preprocessing.tokenizer import BertTokenizer

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    vocab_path = data.uncased_vocabulary()
    ours = BertTokenizer.from_vocab(vocab_path)
    stock = text.FastBertTokenizer(ours.vocab, token_out_type=tf.int32, lower_case_nfd_strip_accents=True)
    stock_graph = tf.function(stock.tokenize, input_signature=[tf.TensorSpec([None], tf.string)])

    for name, lines in corpora(options.megabytes).items():
        megabytes = sum(len(line.encode()) for line in lines) / 1e6
        batches = [tf.constant(lines[start : start + BATCH]) for start in range(0, len(lines), BATCH)]
        methods = {
            "ours": lambda batches=batches: [ours.tokenize(batch) for batch in batches],
            "ours, with spans": lambda batches=batches: [ours.tokenize_with_offsets(batch).ids for batch in batches],
            "FastBertTokenizer": lambda batches=batches: [stock_graph(batch) for batch in batches],
        }
        answers = {method: [row for ids in run() for row in ids.to_list()] for method, run in methods.items()}
        seconds = {method: [] for method in methods}
        peer = None
        if options.peer_python:
            arguments = {"vocab": str(vocab_path), "lines": lines}
            threads = {"RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
            peer = Peer(options.peer_python, HUGGING_FACE, arguments, threads)
            answers["Hugging Face tokenizers"] = [row for rows in peer.run()[1] for row in rows]
            seconds["Hugging Face tokenizers"] = []
        for _ in range(options.rounds):
            for method, run in methods.items():
                start = time.process_time()
                run()
                seconds[method].append(time.process_time() - start)
            if peer:
                seconds["Hugging Face tokenizers"].append(peer.run()[0])
        print(f"{name}: {len(lines):,} lines, {megabytes:.1f} MB")
        for method, times in seconds.items():
            ratio = statistics.median(b / a for a, b in zip(seconds["ours"], times, strict=True))
            differing = sum(a != b for a, b in zip(answers["ours"], answers[method], strict=True)) / len(lines)
            print(
                f"  {method:24} {megabytes / statistics.median(times):6.1f} MB/s   ours is {ratio:5.2f} times as fast"
                f"   other ids on {differing:.2%} of the lines"
            )
        if peer:
            peer.__exit__()


if __name__ == "__main__":
    main()
