"""Step 3: documents and vocabulary -> masked sentence pairs, with the schema that they must obey."""

import dataclasses
import os
from typing import Any

import apache_beam as beam
from apache_beam.io.filesystems import FileSystems
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx.dsl.component.experimental.annotations import (
    BeamComponentParameter,
    InputArtifact,
    OutputArtifact,
    Parameter,
)
from tfx.dsl.component.experimental.decorators import component
from tfx.dsl.io import fileio
from tfx.types import artifact_utils, standard_artifacts
from tfx.utils import io_utils

from pipeline import terminal, values
from pipeline.components import kept, split
from pipeline.components.documents import decode
from pipeline.components.vocabulary import FILE, Vocabulary
from preprocessing import features, storage, vocab_file
from preprocessing.beam import runner
from preprocessing.corpus import documents as corpu_documents
from preprocessing.examples import phrases, writing
from preprocessing.settings import ExampleSettings
from preprocessing.tokenizer import BertTokenizer


def schema(settings: ExampleSettings, vocab_size: int) -> schema_pb2.Schema:
    """Fixed length and value range of every feature of a masked example (see preprocessing.features)."""
    highest = {
        features.INPUT_IDS: vocab_size - 1,
        features.MASKED_LM_IDS: vocab_size - 1,
        features.MASKED_LM_POSITIONS: settings.max_seq_length - 2,  # the last is [SEP] or padding
    }
    result = schema_pb2.Schema()
    for name, length in features.lengths(settings.max_seq_length, settings.max_predictions).items():
        feature = result.feature.add(name=name)
        feature.presence.min_fraction = 1.0
        feature.presence.min_count = 1
        feature.value_count.min = feature.value_count.max = length
        if name == features.MASKED_LM_WEIGHTS:
            feature.type = schema_pb2.FLOAT
            feature.float_domain.min, feature.float_domain.max = 0.0, 1.0
        else:
            feature.type = schema_pb2.INT
            feature.int_domain.min, feature.int_domain.max = 0, highest.get(name, 1)
    return result


@component(use_beam=True)
def MaskedExamplesGen(
    documents: InputArtifact[standard_artifacts.Examples],
    vocabulary_artifact: InputArtifact[Vocabulary],
    examples: OutputArtifact[standard_artifacts.Examples],
    example_schema: OutputArtifact[standard_artifacts.Schema],
    settings: Parameter[str],
    code: Parameter[str],
    beam_pipeline: BeamComponentParameter[beam.Pipeline] = None,
) -> None:
    """Writes the examples of both splits and, beside them, the vocabulary that their ids are of and a report.

    The train split holds `dupe_factor` copies of the text, differently masked; the eval split one. Of data in spans
    only the examples of those are made of which they were not before.
    """
    run = values.read(settings, examples=ExampleSettings)
    examples.split_names = artifact_utils.encode_split_names(list(split.NAMES))
    examples.set_string_custom_property("payload_format", "FORMAT_TF_EXAMPLE")
    vocab_path = os.path.join(vocabulary_artifact.uri, FILE)
    known = _phrases(run.examples, vocab_path)
    entries: dict[int | None, dict[str, Any]] = {}
    for span, read in kept.read(documents.uri).items():
        wanted = kept.key(code, repr(run.examples), read["key"], storage.read(vocab_path).decode())
        entry = kept.take_over(examples.uri, span, wanted)
        if entry is None:
            own = kept.another(beam_pipeline)
            report = _make(own, documents, examples, run.examples, vocab_path, span)
            files = kept.files(examples.uri, span)
            entry = {"key": wanted, "taken_over": False, "report": report, "files": files}
        entries[span] = entry
    if not entries:
        report = _make(beam_pipeline, documents, examples, run.examples, vocab_path)
        entries[None] = {"report": report}
    kept.finish(examples.uri, entries, told=known.report() if known else {})
    if known and known.set_aside:
        known.write_set_aside(os.path.join(examples.uri, phrases.SET_ASIDE))
    io_utils.copy_file(vocab_path, os.path.join(examples.uri, FILE), overwrite=True)
    vocab_size = len(vocab_file.load(vocab_path))
    io_utils.write_pbtxt_file(os.path.join(example_schema.uri, "schema.pbtxt"), schema(run.examples, vocab_size))


def _phrases(settings: ExampleSettings, vocab_path: str) -> phrases.PhraseList | None:
    if settings.phrases is None:
        return None
    words = BertTokenizer.from_vocab(vocab_path, settings.lower_case)
    return phrases.load(settings.phrases, words, settings.max_predictions)


def _make(
    pipeline: beam.Pipeline,
    documents: standard_artifacts.Examples,
    examples: standard_artifacts.Examples,
    settings: ExampleSettings,
    vocab_path: str,
    span: int | None = None,
) -> dict[str, float]:
    """Makes the examples of one span, or of all documents where there is none; gives its report."""
    tokens_folder = os.path.join(examples.uri, "tokens")
    with terminal.watch_workers("  examples", unit="examples") as progress_folder:
        for name in split.NAMES:
            split_settings = settings if name == "train" else dataclasses.replace(settings, dupe_factor=1)
            pattern = os.path.join(artifact_utils.get_split_uri([documents], name), kept.prefix(span, "*.gz"))
            (found,) = FileSystems.match([pattern])
            size = sum(file.size_in_bytes for file in found.metadata_list)
            read = pipeline | f"Read-{name}" >> beam.io.ReadFromTFRecord(pattern)
            decoded = read | f"Decode-{name}" >> beam.Map(decode).with_output_types(corpu_documents.Document)
            _ = decoded | f"Write-{name}" >> writing.WriteExamples(
                split_settings,
                vocab_path,
                artifact_utils.get_split_uri([examples], name),
                name=kept.prefix(span, "examples"),
                shards=writing.number_of_shards(size, split_settings.dupe_factor),
                compression="gzip",
                temp_folder=os.path.join(tokens_folder, name),
                progress_folder=progress_folder,
            )
        report = writing.report(runner.counters(runner.run(pipeline)))
    fileio.rmtree(tokens_folder)
    return report
