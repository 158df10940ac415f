"""`bert vocab`: a WordPiece vocabulary learned from text."""

import json
import os

import click

from pipeline import terminal
from preprocessing import worker_nursery
from preprocessing.errors import InputError
from preprocessing.settings import CorpusSettings, VocabularySettings


@click.command("vocab")
@click.option("--input", "inputs", multiple=True, required=True, metavar="GLOB...", help="Files, folders or globs.")
@click.option("--size", type=int, default=30_522, show_default=True, help="Tokens, the special ones included.")
@click.option("--output", required=True, metavar="FILE", help="The vocabulary; its report is written beside it.")
@click.option("--cased", is_flag=True, help="Keep capitals and accents.")
@click.option(
    "--format", "format_", default="auto", show_default=True, help="auto, sentences, paragraphs, document ..."
)
@click.option(
    "--text-field", default="text", show_default=True, help="JSONL field, Parquet column, tf.Example feature."
)
@click.option("--compare", metavar="FILE", help="Another vocabulary, to be described beside the learned one.")
@click.option("--workers", type=int, default=1, show_default=True, help="Processes that count words.")
@click.argument("more", nargs=-1, metavar="[GLOB...] [-- BEAM OPTIONS]")
def command(inputs, size, output, cased, format_, text_field, compare, workers, more):
    """Learns a WordPiece vocabulary: the commonest words whole, the others in pieces.

    One document in twenty is held out to judge the vocabulary by. Options of Beam come last, after `--`.
    """
    inputs = (*inputs, *(argument for argument in more if not argument.startswith("-")))
    beam_options = [argument for argument in more if argument.startswith("-")]
    corpus_settings = CorpusSettings(input=inputs, format=format_, text_field=text_field)
    settings = VocabularySettings(size=size, lower_case=not cased)
    if os.path.isdir(output):
        raise InputError(f"--output must be a file (vocab.txt, say). Received a folder: {output}")

    if workers > 1 and not beam_options:
        worker_nursery.start()  # before Beam is imported: that takes seconds, here and there at the same time
    from preprocessing import beam_runner, corpus, vocabulary, vocabulary_report
    from preprocessing.vocabulary_counting import count_corpus

    corpus.check_input(corpus_settings)
    other = vocabulary.load(compare) if compare else None
    options = beam_runner.make_options(beam_options, workers)
    click.echo("Counting words", err=True)
    counts, held_out = count_corpus(corpus_settings, settings.lower_case, f"{output}.counts-{os.getpid()}", options)
    with terminal.Progress("Learning", total=size, unit="tokens") as progress:
        tokens = vocabulary.learn(counts, settings, progress.update)
    vocabulary.save(tokens, output)
    report = {"vocabulary": vocabulary_report.describe(tokens, held_out, settings.lower_case)}
    if other:
        report["compared"] = {"path": compare} | vocabulary_report.describe(other, held_out, settings.lower_case)
    report["learned_from"] = {"words": sum(counts.values()), "different_words": len(counts)}
    vocabulary.write_whole(json.dumps(report, indent=2) + "\n", os.path.splitext(output)[0] + ".report.json")
    _show(report, output)


def _show(report, output):
    learned, other = report["vocabulary"], report.get("compared")
    click.echo(f"{output}: {learned['size']:,} tokens, on held-out text:")
    for name in ("coverage", "whole_words", "pieces_per_word", "unknown_share"):
        beside = f"   (compared: {other[name]:.4f})" if other else ""
        click.echo(f"  {name.replace('_', ' '):16}{learned[name]:.4f}{beside}")
