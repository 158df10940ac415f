"""Step 1: text of any supported format -> documents with their sentences, split into train and eval by content."""

import dataclasses
import os
import pathlib
import tempfile
import types
from typing import Any

import apache_beam as beam
import tensorflow as tf
from apache_beam.metrics import Metrics
from tfx.dsl.component.experimental.annotations import BeamComponentParameter, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types import artifact_utils, standard_artifacts

from pipeline import values
from pipeline.components import kept, split
from preprocessing.beam import runner
from preprocessing.corpus import documents as corpu_documents
from preprocessing.corpus import embedded, hashes, inputs, reading, spans
from preprocessing.errors import InputError
from preprocessing.settings import CorpusSettings

INPUTS, SET_ASIDE, NEAR_DUPLICATES = _JOINED = ("inputs.jsonl", "set_aside.jsonl", "near_duplicates.jsonl")


def encode(document: corpu_documents.Document, split_name: str) -> bytes:
    """A document as a serialized tf.Example: `text` (a sentence a line), `id` and sizes for the statistics."""
    Metrics.counter(runner.NAMESPACE, f"documents_{split_name}").inc()
    text = "\n".join(document.sentences).encode()
    sizes = {"num_sentences": len(document.sentences), "num_bytes": len(text), "num_words": len(text.split())}
    features = {name: tf.train.Feature(int64_list=tf.train.Int64List(value=[v])) for name, v in sizes.items()}
    features["text"] = tf.train.Feature(bytes_list=tf.train.BytesList(value=[text]))
    features["id"] = tf.train.Feature(bytes_list=tf.train.BytesList(value=[document.id.hex().encode()]))
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString(deterministic=True)


def decode(record: bytes) -> corpu_documents.Document:
    """The inverse of `encode`."""
    feature = tf.train.Example.FromString(record).features.feature
    return corpu_documents.Document(
        bytes.fromhex(feature["id"].bytes_list.value[0].decode()),
        tuple(feature["text"].bytes_list.value[0].decode().split("\n")),
    )


@component(use_beam=True)
def CorpusGen(
    documents: OutputArtifact[standard_artifacts.Examples],
    settings: Parameter[str],
    input_fingerprint: Parameter[str],  # of the input's files, and of the code: another one means no cached result
    beam_pipeline: BeamComponentParameter[beam.Pipeline] = None,
) -> None:
    """Reads the corpus, drops duplicates, near ones, too, where the settings say so (`near_duplicates.jsonl` names
    them), and writes documents; beside them stand the report, the lines set aside, and the name, size and hash of each
    file that was read (`inputs.jsonl`). Of data in spans only those are read that were not read before as they are;
    duplicates are dropped within a span.
    """
    documents.split_names = artifact_utils.encode_split_names(list(split.NAMES))
    documents.set_string_custom_property("payload_format", "FORMAT_TF_EXAMPLE")
    run = values.read(settings, corpus=CorpusSettings, embedded_bytes=int, eval_share=float)
    entries: dict[int | None, dict[str, Any]] = {}
    for span, corpus in spans.narrowed(run.corpus):
        if span is None:
            entries[span] = _read(beam_pipeline, documents, corpus, run)
            continue
        wanted = kept.key(input_fingerprint.partition("-")[0], repr(corpus), repr(run.eval_share), _state_of(corpus))
        entry = kept.take_over(documents.uri, span, wanted)
        if entry is None:
            own = kept.another(beam_pipeline)
            entry = {"key": wanted, "taken_over": False, **_read(own, documents, corpus, run, span)}
        entries[span] = entry
    kept.finish(documents.uri, entries, _JOINED)


def _read(
    pipeline: beam.Pipeline,
    documents: standard_artifacts.Examples,
    settings: CorpusSettings,
    run: types.SimpleNamespace,
    span: int | None = None,
) -> dict[str, Any]:
    """Reads one span, or all where there is none; gives its `report` and the names of its `files`."""

    def path(name: str) -> str:
        return os.path.join(documents.uri, kept.prefix(span, name))

    with tempfile.TemporaryDirectory() as folder:
        if not settings.input:
            embedded_path = pathlib.Path(folder) / "embedded.txt"
            embedded.write(embedded_path, run.embedded_bytes)
            settings = dataclasses.replace(settings, input=(str(embedded_path),), format="paragraphs")
        read = pipeline | "Read" >> reading.ReadDocuments(
            settings, set_aside=path(SET_ASIDE), listed=path(NEAR_DUPLICATES)
        )
        for name in split.NAMES:
            part = read | f"Split-{name}" >> beam.Filter(split.is_in, name, run.eval_share)
            prefix = os.path.join(artifact_utils.get_split_uri([documents], name), kept.prefix(span, "documents"))
            encoded = part | f"Encode-{name}" >> beam.Map(encode, name)
            _ = encoded | f"Write-{name}" >> beam.io.WriteToTFRecord(prefix, file_name_suffix=".gz")
        survey = inputs.survey(settings)
        named = {chunk.path: chunk.path if run.corpus.input else "the embedded corpus" for chunk in survey.chunks}
        _ = pipeline | "Hash" >> hashes.WriteHashes(named, path(INPUTS))
        report = runner.counters(runner.run(pipeline)) | survey.report()
    counts = {name: report.setdefault(f"documents_{name}", 0) for name in split.NAMES}
    if min(counts.values()) < 2:
        of_span = "" if span is None else f"span {span}: "
        raise InputError(
            f"{of_span}a random next sentence comes from another document, so train and eval need at least 2 documents "
            f"each: give more text (a blank line divides documents) or another eval_share ({run.eval_share}). "
            f"Received: {counts}"
        )
    return {"report": report, "files": kept.files(documents.uri, span)}


def _state_of(settings: CorpusSettings) -> str:
    """Names, sizes and times of the files of an input."""
    files = inputs.files(settings.input)
    return repr([(file.path, file.size_in_bytes, file.last_updated_in_seconds) for file in files])
