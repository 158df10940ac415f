"""`bert examples`: text to masked sentence pairs, outside TFX."""

import contextlib
import glob
import json
import os
import platform
import uuid
from typing import get_args

import click

from pipeline import terminal
from preprocessing import settings as s
from preprocessing import storage, vocab_file
from preprocessing.beam import nursery
from preprocessing.errors import InputError, require
from preprocessing.features import MASK

DEFAULTS = s.ExampleSettings()
_BYTES_WORTH_WORKERS = 100 << 20
_SHOWN_WHERE_ANY = ("lines_without_text", "carriage_returns_in_lines", "files_read_in_part", "bytes_set_aside")
_REPORT, _SET_ASIDE, _SET_ASIDE_OF_FAILED = "report.json", "set_aside.jsonl", "set_aside_of_failed_run.jsonl"
_PHRASES_SET_ASIDE = "phrases_set_aside.jsonl"  # preprocessing.examples.phrases
_NEAR_DUPLICATES = "near_duplicates.jsonl"
_LABELS = {
    "next-sentence": ("B follows A", "B is random"),
    "sentence-order": ("B follows A", "A and B are swapped"),
    "none": ("A alone", "A alone"),
}


def _choice(kind) -> click.Choice:
    return click.Choice(get_args(kind))


@click.command("examples")
@click.option("--input", "inputs", multiple=True, metavar="GLOB", help="File, folder or glob; repeatable.")
@click.option("--vocab", required=True, metavar="FILE", help="WordPiece vocabulary, a token a line.")
@click.option("--output", required=True, metavar="DIR", help="Gets examples-00000-of-0000N.tfrecord and report.json.")
@click.option("--format", "format_", type=_choice(s.Format), default="auto", help="auto (the default): by content")
@click.option("--text-field", default="text", show_default=True, help="JSON field, Parquet column, tf.Example feature.")
@click.option("--language", default="en", show_default=True, help="ISO 639-1, for the sentence splitter.")
@click.option("--max-seq-length", type=int, default=DEFAULTS.max_seq_length, show_default=True)
@click.option("--max-predictions", type=int, default=DEFAULTS.max_predictions, show_default=True)
@click.option("--dupe-factor", type=int, default=DEFAULTS.dupe_factor, show_default=True, help="Copies of the text.")
@click.option("--masked-lm-prob", type=float, default=DEFAULTS.masked_lm_prob, show_default=True)
@click.option("--short-seq-prob", type=float, default=DEFAULTS.short_seq_prob, show_default=True)
@click.option("--seed", type=int, default=DEFAULTS.seed, show_default=True)
@click.option("--masking", type=_choice(s.Masking), default=DEFAULTS.masking, show_default=True)
@click.option("--phrases", metavar="FILE", help="Of --masking phrases: those that are masked whole, one a line.")
@click.option("--pairs", type=_choice(s.Pairs), default=DEFAULTS.pairs, show_default=True)
@click.option("--names", type=_choice(s.Names), default=DEFAULTS.names, show_default=True, help="Feature names.")
@click.option(
    "--lower-case/--cased", default=None, help="Kind of vocabulary; --cased keeps case and accents. By default uncased."
)
@click.option("--workers", type=int, default=0, help="Processes here; by default one a core for large input.")
@click.option("--shards", type=int, default=0, help="Output files. By default one for each 128 MB.")
@click.option("--compression", type=_choice(s.Compression), default="none", show_default=True)
@click.option("--max-bad-share", type=float, default=0.01, show_default=True, help="Of unusable lines.")
@click.option(
    "--near-duplicates",
    type=float,
    metavar="SHARE",
    help="Leave out documents of whose runs of five words an earlier one has as many (0.8, say); reads the text twice.",
)
@click.option("--overwrite", is_flag=True, help="Replace what an earlier run left in the output folder.")
@click.option("--show", type=int, default=0, metavar="N", help="Print N examples; without --input, earlier ones.")
@click.argument("beam_options", nargs=-1, type=click.UNPROCESSED)
def command(inputs, vocab, output, format_, text_field, language, max_bad_share, workers, shards, compression,
            overwrite, show, lower_case, near_duplicates, beam_options, **options):  # fmt: skip
    """Turns text into masked sentence pairs. Options of Beam (another runner, say) go after `--`.

    Tokens stand in temporary files in the output folder meanwhile: 4 bytes each, twice that from some 500 million on.
    Of each document some 60 bytes are held in memory. One run takes up to 524 billion tokens.
    """
    if beam_options and not beam_options[0].startswith("-"):
        raise InputError(f"unexpected argument {beam_options[0]!r}: quote a glob, or give --input for each file")
    if inputs or not show:
        corpus = s.CorpusSettings(
            tuple(inputs), format_, text_field, language, max_bad_share=max_bad_share, near_duplicates=near_duplicates
        )
        _check_vocabulary(vocab, lower_case, options["masking"])
        examples = s.ExampleSettings(lower_case=lower_case is not False, **options)
        s.require(workers >= 0, "--workers must not be negative", workers)
        s.require(shards >= 0, "--shards must not be negative", shards)
        _make(corpus, examples, vocab, output, workers, shards, compression, overwrite, beam_options)
    if show:
        _show(output, vocab, show)


def _check_vocabulary(vocab: str, lower_case: bool | None, masking: str) -> None:
    """Raises InputError for one without what masking needs, and for a cased one of which nothing was said: most of its
    words would be [UNK]."""
    tokens = vocab_file.load(vocab)
    if masking != "none" and MASK not in tokens:
        raise InputError(
            f"{vocab}: masking needs the token {MASK}; write it on the line of a token that is not used, or give "
            "--masking none"
        )
    if lower_case is None and vocab_file.infer_lower_case(tokens) is False:
        raise InputError(
            f"{vocab}: the vocabulary has capitals, accents or Korean syllables, which lower-cased text never has; "
            "give --cased, or --lower-case to lower-case the text all the same"
        )


def _make(corpus_settings, settings, vocab, output, workers, shards, compression, overwrite, beam_options):
    if workers > 1 and not beam_options:
        nursery.start()  # before Beam is imported: that takes seconds, here and there at the same time
    from apache_beam.io.filesystems import FileSystems

    from preprocessing.beam import runner
    from preprocessing.corpus import inputs, reading
    from preprocessing.examples import writing

    found = inputs.survey(corpus_settings)
    known = _phrases(settings, vocab) if settings.phrases else None
    size = sum(chunk.size for chunk in found.chunks)
    shards = shards or writing.number_of_shards(size, settings.dupe_factor)
    local = not runner.named_runner(beam_options)
    workers = workers or (os.cpu_count() or 1 if size * settings.dupe_factor > _BYTES_WORTH_WORKERS else 1)
    shards = max(shards, workers) if local else shards
    pipeline = runner.make_pipeline(runner.make_options(beam_options, workers))
    folder = _Folder(output, overwrite)
    try:
        with terminal.watch_workers("Examples", unit="examples") as progress_folder:
            set_aside = FileSystems.join(folder.scratch, _SET_ASIDE)
            source, read = pipeline, {"corpus": corpus_settings, "set_aside": set_aside}
            if corpus_settings.near_duplicates:
                listed = FileSystems.join(folder.scratch, _NEAR_DUPLICATES)
                source, read = pipeline | "Read" >> reading.ReadDocuments(corpus_settings, set_aside, listed), {}
            _ = source | "Examples" >> writing.WriteExamples(
                settings,
                os.path.abspath(vocab) if os.path.exists(vocab) else vocab,
                folder.scratch,
                shards=shards,
                compression=compression,
                temp_folder=folder.tokens,
                progress_folder=progress_folder if local else None,
                **read,
            )
            report = writing.report(runner.counters(runner.run(pipeline)))
        names = [writing.shard_name(shard, shards, compression) for shard in range(shards)]
        if report["lines"]:  # a runner without counters has none either
            require(
                report["examples"] > 0, f"{', '.join(corpus_settings.input)}: text must give at least one example", 0
            )
        report |= known.report() if known else {}
        told = {"pairs": settings.pairs, "lower_case": settings.lower_case}
        if known and known.set_aside:
            known.write_set_aside(FileSystems.join(folder.scratch, _PHRASES_SET_ASIDE))
        folder.keep(names, report | found.report() | told)
    except InputError as error:
        if "No space left" in str(error):
            raise InputError(f"{output}: no space left on the device; make room or choose another --output") from error
        if kept := folder.keep_set_aside():
            raise InputError(f"{error}; what was set aside is in {kept}") from error
        raise
    except OSError as error:
        raise InputError(f"{output}: cannot be written: {error.strerror or error}") from error
    finally:
        folder.clean()
    figures = {name: value for name, value in report.items() if value or name not in _SHOWN_WHERE_ANY}
    for name, value in {"files": found.files, **figures}.items():
        shown = f"{value:.2%}" if name.endswith("share") else terminal.number(value)
        click.echo(f"{name.replace('_', ' '):>20}  {shown}")
    for line in (*found.told(), *(known.told() if known else ())):
        click.echo(line)
    click.echo(f"{output}: {shards} {'shard' if shards == 1 else 'shards'} and report.json")


def _phrases(settings, vocab):
    """The list of phrases, read before a long run begins."""
    from preprocessing import tokenizer
    from preprocessing.examples import phrases

    words = tokenizer.BertTokenizer.from_vocab(vocab, settings.lower_case)
    return phrases.load(settings.phrases, words, settings.max_predictions)


class _Folder:
    """The output folder. What is being written stands in a folder of its own inside until all of it is whole."""

    def __init__(self, output: str, overwrite: bool):
        from apache_beam.io.filesystems import FileSystems

        self._files, self._output, self._held = FileSystems, output, contextlib.ExitStack()
        self.scratch = FileSystems.join(output, f".unfinished-{platform.node()}-{uuid.uuid4().hex}")
        self.tokens = FileSystems.join(self.scratch, "tokens")
        try:
            if not storage.is_remote(output):
                os.makedirs(output, exist_ok=True)
                unfinished = os.path.join(glob.escape(output), f".unfinished-{platform.node()}-*")
                self._held.enter_context(storage.alone(os.path.join(output, ".lock"), output, unfinished))
            self._old = storage.listed(output)
            if not overwrite and any(os.path.basename(path) != _SET_ASIDE_OF_FAILED for path in self._old):
                raise InputError(f"{output}: the output folder is not empty; choose another or give --overwrite")
            FileSystems.mkdirs(self.tokens)
        except InputError:
            self._held.close()
            raise
        except Exception as error:  # each filesystem has errors of its own
            self._held.close()
            raise InputError(f"{output}: the output folder cannot be written: {_reason(error)}") from error

    def keep(self, names: list[str], report: dict) -> None:
        """Puts what was written in place, report.json last: where that stands, the shards are complete."""
        new = [path for path in storage.listed(self._output) if _is_result(path) and path not in self._old]
        if new:
            raise InputError(
                f"{self._output}: no other run may write there meanwhile; choose another --output. Received: {new[0]}"
            )
        for path in sorted(filter(_is_result, self._old), key=lambda path: os.path.basename(path) != _REPORT):
            storage.delete(path)
        more = (_SET_ASIDE, _PHRASES_SET_ASIDE, _NEAR_DUPLICATES)
        names = [*names, *(name for name in more if self._files.exists(self._files.join(self.scratch, name)))]
        sources, places = ([self._files.join(at, name) for name in names] for at in (self.scratch, self._output))
        self._files.rename(sources, places)
        with self._files.create(self._files.join(self._output, _REPORT)) as file:
            file.write(json.dumps(report, indent=2).encode() + b"\n")

    def keep_set_aside(self) -> str | None:
        """Where the lines are now that were set aside, if there are any, by a run that failed."""
        source = self._files.join(self.scratch, _SET_ASIDE)
        place = self._files.join(self._output, _SET_ASIDE_OF_FAILED)
        if not self._files.exists(source):
            return None
        if self._files.exists(place):
            storage.delete(place)
        self._files.rename([source], [place])
        return place

    def clean(self) -> None:
        with self._held:
            if self._files.exists(self.scratch):
                storage.delete(self.scratch)


def _is_result(path: str) -> bool:
    name = os.path.basename(path)
    return name in (_REPORT, _SET_ASIDE, _PHRASES_SET_ASIDE, _NEAR_DUPLICATES, _SET_ASIDE_OF_FAILED) or (
        name.startswith("examples-") and ".tfrecord" in name
    )


def _reason(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _show(output: str, vocab: str, count: int) -> None:
    """Prints examples: A and B in two colours, what is to be predicted beside what stands there."""
    from tfx_bsl.coders.example_coder import ExampleToNumpyDict

    from preprocessing import features, tfrecord
    from preprocessing.corpus import chunks

    pieces = vocab_file.load(vocab)
    shards = [path for path in storage.listed(output) if os.path.basename(path).startswith("examples-")]
    if not shards:
        raise InputError(f"{output}: no examples there; give --input to make some")
    labels = _LABELS[_pairs(output)]
    try:
        with chunks.open_file(shards[0]) as handle:
            for record, _ in zip(tfrecord.records(handle), range(count), strict=False):
                example = ExampleToNumpyDict(record)
                example |= {own: example[name] for own, name in features.MODEL_GARDEN_NAMES.items() if name in example}
                ids = [*example[features.INPUT_IDS], *example[features.MASKED_LM_IDS]]
                require(
                    max(ids) < len(pieces),
                    f"{shards[0]}: token ids must lie in {vocab} ({len(pieces)} tokens)",
                    int(max(ids)),
                )
                click.echo(_readable({name: values.tolist() for name, values in example.items()}, pieces, labels))
    except (OSError, EOFError) as error:
        raise InputError(f"{shards[0]}: a shard must be whole; make it anew. Received: {_reason(error)}") from error


def _pairs(output: str) -> str:
    """How the examples there were paired: what their report says."""
    from apache_beam.io.filesystems import FileSystems

    path = FileSystems.join(output, _REPORT)
    if not FileSystems.exists(path):
        return DEFAULTS.pairs
    with FileSystems.open(path) as file:
        return json.load(file).get("pairs", DEFAULTS.pairs)


def _readable(example: dict, pieces: list[str], labels: tuple[str, str]) -> str:
    from preprocessing import features

    label = labels[example[features.NEXT_SENTENCE_LABELS][0]]
    masks = {
        position: pieces[original]
        for position, original, weight in zip(*(example[name] for name in features.PREDICTION_FEATURES), strict=True)
        if weight
    }
    words = []
    for position in range(sum(example[features.INPUT_MASK])):
        piece = pieces[example[features.INPUT_IDS][position]]
        if position in masks:
            words.append(click.style(f"{piece}→{masks[position]}", fg="red", bold=True))
        elif piece in features.SPECIAL_TOKENS:
            words.append(click.style(piece, dim=True))
        else:
            words.append(click.style(piece, fg="blue" if example[features.SEGMENT_IDS][position] else "green"))
    return f"{click.style(label, bold=True)}\n{' '.join(words)}\n"
