"""Counting the words of a corpus with Beam, in two parts: to learn from, and held out to judge what was learned."""

import json
from collections.abc import Sequence

import apache_beam as beam
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions

from preprocessing import beam_runner
from preprocessing.beam_transforms import CountWords
from preprocessing.corpus import ReadDocuments
from preprocessing.errors import InputError
from preprocessing.settings import CorpusSettings

_HELD_OUT = 20  # one document in so many, by its id and so by its content


def count_corpus(
    settings: CorpusSettings, lower_case: bool, scratch: str, options: PipelineOptions
) -> tuple[dict[str, int], dict[str, int]]:
    """Word counts of 19 documents in 20, and of the twentieth (of all where there is none); see `count_parts`."""
    pipeline = beam.Pipeline(options=options)
    documents = pipeline | "Read" >> ReadDocuments(settings)
    parts = documents | beam.Partition(_part, 2)  # type: ignore[arg-type]
    learn, held_out = count_parts(pipeline, list(parts), lower_case, scratch)
    return (learn, held_out) if learn and held_out else (learn or held_out, learn or held_out)


def count_parts(
    pipeline: beam.Pipeline, parts: Sequence[beam.PCollection], lower_case: bool, scratch: str
) -> list[dict[str, int]]:
    """Runs the pipeline and gives the word counts of each part, a collection of Documents.

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
                | f"Format {number}" >> beam.MapTuple(lambda word, count: json.dumps([word, count]))
                | f"Write {number}" >> beam.io.WriteToText(FileSystems.join(scratch, f"part{number}"))
            )
        beam_runner.run(pipeline)
        return [_read(scratch, f"part{number}") for number in range(len(parts))]
    finally:
        FileSystems.delete([scratch])


def _part(document, _parts) -> int:
    return int(document.id[0] % _HELD_OUT == 0)


def _read(folder: str, name: str) -> dict[str, int]:
    counts: dict[str, int] = {}
    for file in FileSystems.match([FileSystems.join(folder, f"{name}-*")])[0].metadata_list:
        with FileSystems.open(file.path) as lines:
            counts |= dict(map(json.loads, lines))
    return counts
