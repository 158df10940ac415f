"""The pipeline on this machine: the file that `tfx ... --engine local --pipeline_path` is given.

BERT_SETTINGS  demo (default), smoke, base, classification or a JSON file
BERT_CORPUS    files or globs of your own text, separated by blanks; none: the embedded corpus
BERT_SPAN      the newest span to read where the corpus has {SPAN}; none: the newest that is there
BERT_HOME      folder for everything that the pipeline keeps; default `.bert` in the current folder
"""

import os

from pipeline import terminal

terminal.quiet()  # before TensorFlow is imported

from pipeline.runs import run  # noqa: E402


def main() -> None:
    terminal.run_command(lambda: run.run(*run.from_environment(os.environ)))


if __name__ == "__main__":
    main()
