"""The console script `bert`. Each command is a module of `pipeline.commands`, imported only when it is asked for."""

import atexit
import importlib

import click

from pipeline import terminal
from pipeline.leftovers import remove_autograph_files

COMMANDS = {
    "vocab": "Learn a WordPiece vocabulary from text.",
    "examples": "Turn text into masked sentence pairs for pretraining.",
    "train": "Pretrain a BERT encoder on masked examples.",
    "finetune": "Train a checkpoint on a table of texts and labels.",
    "distil": "Train a smaller model to answer as a larger one does.",
    "evaluate": "Ask a model about a table of texts and compare its answers with the labels.",
    "features": "Make vectors of texts, and find out what they are worth.",
    "convert": "Convert a checkpoint between google, Hugging Face, keras-hub and our format.",
    "export": "Export a checkpoint as a SavedModel that takes raw text.",
    "serve": "Serve exported models over gRPC and REST.",
    "runs": "List the runs of the pipeline in a home.",
    "lineage": "Say what a pushed version was made of, and by which run.",
    "skew": "Compare what a server was asked with what its model was trained on.",
    "promote": "Give a pushed version a label that servers answer to.",
    "rollback": "Take a label back to the version that had it before.",
    "clean": "Remove what no run, server or lineage needs any more.",
    "predict": "Ask a server, or an exported model, from the command line.",
}


class _LazyGroup(click.Group):
    def list_commands(self, ctx):
        return list(COMMANDS)

    def get_command(self, ctx, name):
        if name not in COMMANDS:
            return None
        return importlib.import_module(f"pipeline.commands.{name}").command

    def format_commands(self, ctx, formatter):
        with formatter.section("Commands"):
            formatter.write_dl(COMMANDS.items())


@click.group(cls=_LazyGroup)
def bert():
    """BERT from raw text to an answering server."""


def main() -> None:
    """Runs a command; bad input is one line on standard error and exit status 1."""
    terminal.quiet()
    atexit.register(remove_autograph_files)
    terminal.run_command(bert)


if __name__ == "__main__":
    main()
