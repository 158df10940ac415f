"""`bert examples`: text to masked sentence pairs, outside TFX."""

import json
import os
import pathlib
import platform
import shutil
from typing import get_args

import click

from pipeline import terminal
from preprocessing import settings as s
from preprocessing import worker_nursery
from preprocessing.errors import InputError

DEFAULTS = s.ExampleSettings()
_BYTES_WORTH_WORKERS = 100 << 20


def _choice(kind) -> click.Choice:
    return click.Choice(get_args(kind))


@click.command("examples")
@click.option("--input", "inputs", multiple=True, metavar="GLOB", help="File, folder or glob; may be repeated.")
@click.option("--vocab", required=True, metavar="FILE", help="WordPiece vocabulary, a token a line.")
@click.option("--output", required=True, metavar="DIR", help="Gets examples-00000-of-0000N.tfrecord and report.json.")
@click.option("--format", "format_", type=_choice(s.Format), default="auto", show_default=True, help="auto: by ending.")
@click.option("--text-field", default="text", show_default=True, help="JSON field, Parquet column, tf.Example feature.")
@click.option("--language", default="en", show_default=True, help="ISO 639-1, for the sentence splitter.")
@click.option("--max-seq-length", type=int, default=DEFAULTS.max_seq_length, show_default=True)
@click.option("--max-predictions", type=int, default=DEFAULTS.max_predictions, show_default=True)
@click.option("--dupe-factor", type=int, default=DEFAULTS.dupe_factor, show_default=True, help="Copies of the text.")
@click.option("--masked-lm-prob", type=float, default=DEFAULTS.masked_lm_prob, show_default=True)
@click.option("--short-seq-prob", type=float, default=DEFAULTS.short_seq_prob, show_default=True)
@click.option("--seed", type=int, default=DEFAULTS.seed, show_default=True)
@click.option("--masking", type=_choice(s.Masking), default=DEFAULTS.masking, show_default=True)
@click.option("--pairs", type=_choice(s.Pairs), default=DEFAULTS.pairs, show_default=True)
@click.option("--names", type=_choice(s.Names), default=DEFAULTS.names, show_default=True, help="Feature names.")
@click.option("--cased", is_flag=True, help="Keep case and accents; for a cased vocabulary.")
@click.option("--workers", type=int, default=0, help="Processes here; by default one a core for large input.")
@click.option("--shards", type=int, default=0, help="Output files. By default one for each 128 MB.")
@click.option("--compression", type=_choice(s.Compression), default="none", show_default=True)
@click.option("--max-bad-share", type=float, default=0.01, show_default=True, help="Of unusable lines.")
@click.option("--overwrite", is_flag=True, help="Replace what an earlier run left in the output folder.")
@click.option("--show", type=int, default=0, metavar="N", help="Print N examples; without --input, earlier ones.")
@click.argument("beam_options", nargs=-1, type=click.UNPROCESSED)
def command(inputs, vocab, output, format_, text_field, language, max_bad_share, workers, shards, compression,
            overwrite, show, cased, beam_options, **options):  # fmt: skip
    """Turns text into masked sentence pairs. Options of Beam (another runner, say) go after `--`."""
    if beam_options and not beam_options[0].startswith("-"):
        raise InputError(f"unexpected argument {beam_options[0]!r}: quote a glob, or give --input for each file")
    if inputs or not show:
        corpus = s.CorpusSettings(tuple(inputs), format_, text_field, language, max_bad_share=max_bad_share)
        examples = s.ExampleSettings(lower_case=not cased, **options)
        s.require(workers >= 0, "--workers must not be negative", workers)
        s.require(shards >= 0, "--shards must not be negative", shards)
        _make(corpus, examples, vocab, output, workers, shards, compression, overwrite, beam_options)
    if show:
        _show(output, vocab, show)


def _make(corpus_settings, settings, vocab, output, workers, shards, compression, overwrite, beam_options):
    if workers > 1 and not beam_options:
        worker_nursery.start()  # before Beam is imported: that takes seconds, here and there at the same time
    from apache_beam import Pipeline
    from apache_beam.io.filesystems import FileSystems
    from apache_beam.options.pipeline_options import PipelineOptions

    from preprocessing import beam_runner, beam_transforms, corpus, vocabulary

    vocabulary.load(vocab)
    chunks = corpus.find_chunks(corpus_settings)
    size = sum(chunk.size for chunk in chunks)
    shards = shards or beam_transforms.number_of_shards(size, settings.dupe_factor)
    local = not PipelineOptions(list(beam_options)).get_all_options().get("runner")
    workers = workers or (os.cpu_count() or 1 if size * settings.dupe_factor > _BYTES_WORTH_WORKERS else 1)
    shards = max(shards, workers) if local else shards
    folder = _Folder(output, overwrite)
    try:
        with terminal.watch_workers("Examples", unit="examples") as progress_folder:
            pipeline = Pipeline(options=beam_runner.make_options(beam_options, workers))
            _ = pipeline | "Examples" >> beam_transforms.WriteExamples(
                settings,
                os.path.abspath(vocab) if os.path.exists(vocab) else vocab,
                folder.scratch,
                shards=shards,
                compression=compression,
                temp_folder=folder.tokens,
                progress_folder=progress_folder if local else None,
                corpus=corpus_settings,
                set_aside=FileSystems.join(folder.scratch, "set_aside.jsonl"),
            )
            report = beam_transforms.report(beam_runner.counters(beam_runner.run(pipeline)))
        names = [beam_transforms.shard_name(shard, shards, compression) for shard in range(shards)]
        folder.keep(names, report)
    except InputError as error:
        if "No space left" in str(error):
            raise InputError(f"{output}: no space left on the device; make room or choose another --output") from error
        raise
    except OSError as error:
        raise InputError(f"{output}: cannot be written: {error.strerror or error}") from error
    finally:
        folder.clean()
    for name, value in report.items():
        shown = f"{value:.2%}" if name.endswith("share") else terminal.number(value)
        click.echo(f"{name.replace('_', ' '):>20}  {shown}")
    click.echo(f"{output}: {shards} {'shard' if shards == 1 else 'shards'} and report.json")


class _Folder:
    """The output folder. What is being written stands in a folder of its own inside until all of it is whole."""

    def __init__(self, output: str, overwrite: bool):
        from apache_beam.io.filesystems import FileSystems

        self._files, self._output = FileSystems, output
        try:
            self._old = self._list("*") if FileSystems.exists(output) else []
            if self._old and not overwrite:
                raise InputError(f"{output}: the output folder is not empty; choose another or give --overwrite")
            self._remove_stale()
            self.scratch = FileSystems.join(output, f".unfinished-{platform.node()}-{os.getpid()}")
            self.tokens = FileSystems.join(self.scratch, "tokens")
            FileSystems.mkdirs(self.tokens)
        except InputError:
            raise
        except Exception as error:  # each filesystem has errors of its own
            raise InputError(f"{output}: the output folder cannot be written: {_reason(error)}") from error

    def _remove_stale(self) -> None:
        """Removes what killed runs of this machine left here."""
        for path in pathlib.Path(self._output).glob(f".unfinished-{platform.node()}-*"):
            process = path.name.rsplit("-", 1)[1]
            if process.isdecimal() and not _is_another(int(process)):
                shutil.rmtree(path, ignore_errors=True)

    def _list(self, pattern: str) -> list[str]:
        return [file.path for file in self._files.match([self._files.join(self._output, pattern)])[0].metadata_list]

    def keep(self, names: list[str], report: dict) -> None:
        """Puts what was written in place, report.json last: where that stands, the shards are complete."""
        old = [
            path
            for path in self._old
            if os.path.basename(path) in ("report.json", "set_aside.jsonl")
            or (os.path.basename(path).startswith("examples-") and ".tfrecord" in path)
        ]
        if old:
            self._files.delete(old)
        if self._files.exists(self._files.join(self.scratch, "set_aside.jsonl")):
            names = [*names, "set_aside.jsonl"]
        sources, places = ([self._files.join(at, name) for name in names] for at in (self.scratch, self._output))
        self._files.rename(sources, places)
        with self._files.create(self._files.join(self._output, "report.json")) as file:
            file.write(json.dumps(report, indent=2).encode() + b"\n")

    def clean(self) -> None:
        if self._files.exists(self.scratch):
            self._files.delete([self.scratch])


def _reason(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _show(output: str, vocab: str, count: int) -> None:
    """Prints examples: A and B in two colours, what is to be predicted beside what stands there."""
    from apache_beam.io.filesystems import FileSystems
    from tfx_bsl.coders.example_coder import ExampleToNumpyDict

    from preprocessing import features, readers, tfrecord, vocabulary

    pieces = vocabulary.load(vocab)
    shards = sorted(file.path for file in FileSystems.match([FileSystems.join(output, "examples-*")])[0].metadata_list)
    if not shards:
        raise InputError(f"{output}: no examples there; give --input to make some")
    with readers.open_file(shards[0]) as handle:
        for record, _ in zip(tfrecord.records(handle), range(count), strict=False):
            example = ExampleToNumpyDict(record)
            example |= {own: example[other] for own, other in features.MODEL_GARDEN_NAMES.items() if other in example}
            click.echo(_readable({name: values.tolist() for name, values in example.items()}, pieces))


def _readable(example: dict, pieces: list[str]) -> str:
    from preprocessing import features

    label = "B is random" if example[features.NEXT_SENTENCE_LABELS][0] else "B follows A"
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


def _is_another(process: int) -> bool:
    """Whether another process with that number runs; what bears ours is an earlier one's (of a restarted container)."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return process != os.getpid()
