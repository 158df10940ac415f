"""Counting the words of a corpus with Beam, in two parts: to learn from, and held out to judge what was learned."""

import collections
import json
import os
import uuid
from collections.abc import Sequence

import apache_beam as beam
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.transforms.window import GlobalWindows

from preprocessing import storage
from preprocessing.beam import runner
from preprocessing.corpus.reading import ReadDocuments
from preprocessing.errors import InputError
from preprocessing.settings import CorpusSettings

_TEXT_BATCH_BYTES = 2_000_000  # of words counted at a time
_HELD_OUT = 20  # one document in so many, by its id and so by its content


def count_corpus(
    settings: CorpusSettings, lower_case: bool, scratch: str, options: PipelineOptions
) -> tuple[dict[str, int], dict[str, int], dict[str, int]]:
    """Word counts of 19 documents in 20, and of the twentieth (of all, and nothing, where there are too few documents
    for both), and the counters of what was read; see `count_parts`."""
    pipeline = runner.make_pipeline(options)
    documents = pipeline | "Read" >> ReadDocuments(settings)
    parts = documents | beam.Partition(_part, 2)  # type: ignore[arg-type]
    (learn, held_out), counters = count_parts(pipeline, list(parts), lower_case, scratch)
    return (learn, held_out, counters) if learn else (held_out, {}, counters)


def count_parts(
    pipeline: beam.Pipeline, parts: Sequence[beam.PCollection], lower_case: bool, scratch: str
) -> tuple[list[dict[str, int]], dict[str, int]]:
    """Runs the pipeline and gives the word counts of each part, a collection of Documents, and its counters.

    `scratch` is a folder for the counts on their way from the workers, which must not exist and is removed; on a runner
    with machines of its own it must lie where they can write. Raises InputError for bad input or where it cannot be
    written.
    """
    try:
        FileSystems.mkdirs(scratch)
    except Exception as error:  # each filesystem has errors of its own
        raise InputError(f"{scratch}: cannot be written: {error}") from error
    try:
        for number, part in enumerate(parts):
            _ = (
                part
                | f"Count {number}" >> CountWords(lower_case)
                | f"Write {number}" >> beam.ParDo(_Write(FileSystems.join(scratch, f"part{number}-")))
            )
        counters = runner.counters(runner.run(pipeline))
        return [_read(scratch, f"part{number}") for number in range(len(parts))], counters
    finally:
        storage.delete(scratch)


def _part(document, _parts) -> int:
    return int(document.id[0] % _HELD_OUT == 0)


class _Write(beam.DoFn):
    """(word, count) -> a file for each bundle, whole or under another name; a bundle tried again says the same again.
    Beam's own text sink takes the folder's name for a glob."""

    def __init__(self, prefix: str):
        self._prefix = prefix

    def start_bundle(self):
        self._path = f"{self._prefix}{uuid.uuid4().hex}"
        self._file = FileSystems.create(f"{self._path}.tmp")

    def process(self, counted):
        self._file.write(json.dumps(counted).encode() + b"\n")

    def finish_bundle(self):
        self._file.close()
        FileSystems.rename([f"{self._path}.tmp"], [self._path])


def _read(folder: str, name: str) -> dict[str, int]:
    counts: dict[str, int] = {}
    for path in storage.listed(folder):
        if os.path.basename(path).startswith(f"{name}-") and not path.endswith(".tmp"):
            with FileSystems.open(path) as lines:
                counts |= dict(map(json.loads, lines))
    return counts


class CountWords(beam.PTransform):
    """Documents -> (word, count), the words as the tokenizer divides text (lower-cased and stripped of accents where
    `lower_case`), for vocabulary learning."""

    def __init__(self, lower_case: bool = True):
        super().__init__()
        self._lower_case = lower_case

    def expand(self, documents):
        return (
            documents
            | "Count" >> beam.ParDo(_CountWords(self._lower_case)).with_output_types(tuple[str, int])
            | "Sum" >> beam.CombinePerKey(sum)
        )


class _CountWords(beam.DoFn):
    _MAX_WORDS = 1_000_000  # held by a worker at a time

    def __init__(self, lower_case):
        self._lower_case = lower_case

    def start_bundle(self):
        self._texts, self._size = [], 0
        self._counts: collections.Counter[str] = collections.Counter()

    def process(self, document):
        self._texts.extend(document.sentences)
        self._size += sum(map(len, document.sentences))
        if self._size >= _TEXT_BATCH_BYTES:
            self._count()
            if len(self._counts) > self._MAX_WORDS:
                yield from self._counts.items()
                self._counts = collections.Counter()

    def finish_bundle(self):
        self._count()
        for item in self._counts.items():
            yield GlobalWindows.windowed_value(item)

    def _count(self):
        from preprocessing.tokenizer.words import count_words

        if self._texts:
            self._counts.update(count_words(self._texts, self._lower_case))
        self._texts, self._size = [], 0
