"""`python -m pipeline.kubeflow.corpus_fingerprint`: what the corpus, and the code that reads it, are known by today."""

import argparse
import json
import pathlib

from pipeline import terminal
from pipeline.graphs import fingerprint
from pipeline.kubeflow import ending

GIVES = {"input_fingerprint": "CorpusGen"}  # a parameter, and the step that has it
READER = "pipeline.components.documents"  # by name: to import it is to import TFX


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--input", required=True, help="File names and globs, as JSON; [] for the embedded corpus")
    parser.add_argument("--input_fingerprint", required=True)
    arguments = parser.parse_args()
    output = pathlib.Path(arguments.input_fingerprint)
    found = fingerprint.of_input(READER, tuple(json.loads(arguments.input)))
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(found)


if __name__ == "__main__":
    terminal.quiet()
    ending.end(main)
