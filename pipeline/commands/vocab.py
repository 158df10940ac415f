"""`bert vocab`: a WordPiece vocabulary learned from text."""

import contextlib
import glob
import itertools
import json
import os
import uuid
from typing import Any, get_args

import click

from pipeline import terminal
from preprocessing.beam import nursery
from preprocessing.errors import InputError
from preprocessing.settings import CorpusSettings, Format, VocabularySettings


@click.command("vocab")
@click.option("--input", "inputs", multiple=True, required=True, metavar="GLOB...", help="Files, folders or globs.")
@click.option("--size", type=int, default=30_522, show_default=True, help="Tokens, the special ones included.")
@click.option("--output", required=True, metavar="FILE", help="The vocabulary; its report is written beside it.")
@click.option("--cased", is_flag=True, help="Keep capitals and accents.")
@click.option(
    "--format",
    "format_",
    type=click.Choice(get_args(Format)),
    default="auto",
    show_default=True,
    help="auto: by ending.",
)
@click.option(
    "--text-field", default="text", show_default=True, help="JSONL field, Parquet column, tf.Example feature."
)
@click.option("--max-bad-share", type=float, default=0.01, show_default=True, help="Of unusable lines.")
@click.option("--compare", metavar="FILE", help="Another vocabulary, to be described beside the learned one.")
@click.option("--workers", type=int, default=1, show_default=True, help="Processes that count words.")
@click.argument("more", nargs=-1, metavar="[GLOB...] [-- BEAM OPTIONS]")
def command(inputs, size, output, cased, format_, text_field, max_bad_share, compare, workers, more):
    """Learns a WordPiece vocabulary: the commonest words whole, the others in pieces.

    One document in twenty is held out to judge the vocabulary by. Options of Beam come last, after `--`.
    """
    globs = tuple(itertools.takewhile(lambda argument: not argument.startswith("-"), more))
    beam_options = more[len(globs) :]
    corpus_settings = CorpusSettings((*inputs, *globs), format_, text_field, max_bad_share=max_bad_share)
    settings = VocabularySettings(size=size, lower_case=not cased)
    if os.path.isdir(output):
        raise InputError(f"--output must be a file (vocab.txt, say). Received a folder: {output}")

    if workers > 1 and not beam_options:
        nursery.start()  # before Beam is imported: that takes seconds, here and there at the same time
    from preprocessing import storage, vocab_file
    from preprocessing.beam import runner
    from preprocessing.corpus.inputs import survey
    from preprocessing.vocabulary import learning
    from preprocessing.vocabulary import report as vocabulary_report
    from preprocessing.vocabulary.counting import count_corpus

    report_path = os.path.splitext(output)[0] + ".report.json"
    found = survey(corpus_settings)
    for path in {chunk.path for chunk in found.chunks}:
        for place in (output, report_path):
            if path == place or (os.path.exists(path) and os.path.exists(place) and os.path.samefile(path, place)):
                raise InputError(f"--output must not overwrite an input. Received: {place}, which is one")
    other = vocab_file.load(compare) if compare else None
    options = runner.make_options(beam_options, workers)
    click.echo("Counting words", err=True)
    with _scratch(output) as scratch:
        counts, held_out, counters = count_corpus(corpus_settings, settings.lower_case, scratch, options)
    judged = held_out or counts
    with terminal.Progress("Learning", total=size, unit="tokens") as progress:
        tokens = learning.learn(counts, settings, progress.update)
    vocab_file.save(tokens, output)
    report: dict[str, Any] = {"vocabulary": vocabulary_report.describe(tokens, judged, settings.lower_case)}
    if other:
        report["compared"] = {"path": compare} | vocabulary_report.describe(other, judged, settings.lower_case)
    report["learned_from"] = {"words": sum(counts.values()), "different_words": len(counts)} | found.report() | counters
    report["held_out"] = bool(held_out)
    storage.write_whole(json.dumps(report, indent=2) + "\n", report_path)
    for line in found.told():
        click.echo(line)
    if aside := counters.get("lines_set_aside"):
        click.echo(f"set aside {aside:,} of {counters['lines']:,} lines")
    _show(report, output)


@contextlib.contextmanager
def _scratch(output):
    """Name for a folder beside the output, where no other run is at it; what killed runs left there is removed."""
    from preprocessing import storage

    remote = storage.is_remote(output) or not os.path.isdir(os.path.dirname(output) or ".")
    leftovers = f"{glob.escape(output)}.counts-*/"
    with contextlib.nullcontext() if remote else storage.alone(f"{output}.lock", output, leftovers):
        yield f"{output}.counts-{uuid.uuid4().hex}"


def _show(report, output):
    learned, other = report["vocabulary"], report.get("compared")
    judged = "held-out text" if report["held_out"] else "the text it was learned from (too few documents to hold out)"
    click.echo(f"{output}: {learned['size']:,} tokens, on {judged}:")
    for name in ("coverage", "whole_words", "pieces_per_word", "unknown_share"):
        beside = f"   (compared: {other[name]:.4f})" if other else ""
        click.echo(f"  {name.replace('_', ' '):16}{learned[name]:.4f}{beside}")
