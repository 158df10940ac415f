"""Step 1: text of any supported format -> documents with their sentences, split into train and eval by content."""

import dataclasses
import json
import os
import pathlib
import tempfile

import apache_beam as beam
import tensorflow as tf
from apache_beam.metrics import Metrics
from tfx.dsl.component.experimental.annotations import BeamComponentParameter, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types import artifact_utils, standard_artifacts
from tfx.utils import io_utils

from pipeline import values
from pipeline.components import split
from preprocessing.beam import runner
from preprocessing.corpus import documents as corpu_documents
from preprocessing.corpus import embedded, inputs, reading
from preprocessing.errors import InputError
from preprocessing.settings import CorpusSettings


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
    """Reads the corpus, drops exact duplicates and writes documents; the report and the lines set aside stand beside
    them."""
    documents.split_names = artifact_utils.encode_split_names(list(split.NAMES))
    documents.set_string_custom_property("payload_format", "FORMAT_TF_EXAMPLE")
    run = values.read(settings, corpus=CorpusSettings, embedded_bytes=int, eval_share=float)
    with tempfile.TemporaryDirectory() as folder:
        corpus_settings = run.corpus
        if not corpus_settings.input:
            path = pathlib.Path(folder) / "embedded.txt"
            embedded.write(path, run.embedded_bytes)
            corpus_settings = dataclasses.replace(corpus_settings, input=(str(path),), format="paragraphs")
        read = beam_pipeline | "Read" >> reading.ReadDocuments(
            corpus_settings, set_aside=os.path.join(documents.uri, "set_aside.jsonl")
        )
        for name in split.NAMES:
            part = read | f"Split-{name}" >> beam.Filter(split.is_in, name, run.eval_share)
            prefix = os.path.join(artifact_utils.get_split_uri([documents], name), "documents")
            encoded = part | f"Encode-{name}" >> beam.Map(encode, name)
            _ = encoded | f"Write-{name}" >> beam.io.WriteToTFRecord(prefix, file_name_suffix=".gz")
        report = runner.counters(runner.run(beam_pipeline)) | inputs.survey(corpus_settings).report()
    counts = {name: report.setdefault(f"documents_{name}", 0) for name in split.NAMES}
    if min(counts.values()) < 2:
        raise InputError(
            "a random next sentence comes from another document, so train and eval need at least 2 documents each: "
            f"give more text (a blank line divides documents) or another eval_share ({run.eval_share}). "
            f"Received: {counts}"
        )
    io_utils.write_string_file(os.path.join(documents.uri, "report.json"), json.dumps(report, indent=2))
