"""`bert convert`: a checkpoint from one format into another, read back and compared."""

import contextlib
import dataclasses
import pathlib
from typing import get_args

import click

from model.settings import CheckpointFormat
from pipeline import keeping
from preprocessing import storage
from preprocessing.errors import InputError

TOLERANCE = 1e-5  # of outputs; the weights are the same bits, but sums may be ordered otherwise


@click.command()
@click.option("--input", "source", required=True, metavar="PATH", help="A folder, a file of it, or google's prefix.")
@click.option("--output", required=True, metavar="DIR", help="Folder to write; must be new or empty.")
@click.option("--to", required=True, type=click.Choice(get_args(CheckpointFormat)))
@click.option("--ignore", multiple=True, metavar="PATTERN", help="Arrays to leave out, for example 'classifier.*'.")
@keeping.options
def command(source, output, to, ignore, layers, tokens_of):
    """Convert a checkpoint; the input's format is recognised.

    Weights, heads, labels, vocabulary, lower-casing and sentence-transformers' pooling are carried along without
    loss. What was written is read back, and the largest difference of any output is shown. With --layers or
    --tokens-of it is a smaller model, to train further or to export; ids are then others, so examples have to be
    written anew.
    """
    target = pathlib.Path(output)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"--output must be a new or empty folder. Received: {output}")

    from model import checkpoints
    from model.checkpoints import keras_hub
    from model.encoder.smaller import smaller

    kind = checkpoints.recognise(source)
    encoder = checkpoints.load(source, ignore=ignore, report=click.echo)
    settings, tokenizer = encoder.settings, checkpoints.tokenizer(source)
    click.echo(
        f"{source}: {kind}, {settings.num_layers} layers, {settings.hidden_size} hidden, "
        f"{encoder.count_params():,} parameters, heads: {', '.join(encoder.heads) or 'none'}"
    )
    if tokens_of and tokenizer.tokens is None:
        raise InputError(
            f"{source}: --tokens-of keeps a part of a vocabulary; put the checkpoint's vocab.txt beside it"
        )
    kept = keeping.kept(source, layers, tokens_of, click.echo)
    encoder = smaller(encoder, kept)
    if kept.tokens is not None and tokenizer.tokens is not None:
        tokenizer = dataclasses.replace(tokenizer, tokens=[tokenizer.tokens[number] for number in kept.tokens])
    if tokenizer.tokens is None:
        click.echo("no vocabulary beside it")
    elif len(tokenizer.tokens) > encoder.settings.vocab_size:
        known = encoder.settings.vocab_size
        click.echo(f"{len(tokenizer.tokens)} tokens in its vocabulary, {known} in the model: left out")
        tokenizer = dataclasses.replace(tokenizer, tokens=None)
    with contextlib.ExitStack() as stack:
        try:
            # Beside the target, so that the move is one rename: the target is whole or absent.
            unfinished = storage.unfinished(target.parent, f".unfinished-{target.name}-")
            partial = stack.enter_context(unfinished)
        except OSError as error:
            raise InputError(f"--output must be writable: {error}") from error
        try:
            checkpoints.save_as(to, encoder, partial, tokenizer)
            if (task := checkpoints.read_task(source)) and task.head in encoder.heads:
                checkpoints.write_task(partial, task)
            for line in checkpoints.write_sentences(partial, encoder, source):
                click.echo(line)
            difference = checkpoints.largest_difference(encoder, checkpoints.load(partial, report=lambda line: None))
            if difference > TOLERANCE:
                raise InputError(
                    f"what was written does not give the same outputs: they differ by up to {difference:.3g}"
                )
            if to == "keras-hub":
                theirs = keras_hub.backbone_difference(encoder, partial)
                reason = ": it computes GELU by the tanh approximation only" if settings.activation == "gelu" else ""
                click.echo(f"keras-hub's own BertBackbone differs by up to {theirs:.3g}{reason}")
            if target.exists():
                target.rmdir()
            partial.rename(target)
        except OSError as error:
            raise InputError(f"{target}: cannot be written: {error}") from error
    files = sorted(str(path.relative_to(target)) for path in target.rglob("*") if path.is_file())
    click.echo(f"{target}: {to}: {', '.join(files)}")
    click.echo(f"largest difference of outputs after reading it back: {difference:.3g}")
