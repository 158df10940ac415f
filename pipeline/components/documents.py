"""Step 1: text of any supported format -> documents with their sentences, split into train and eval by content."""

import json
import os
import pathlib
import tempfile

import apache_beam as beam
import tensorflow as tf
from tfx.dsl.component.experimental.annotations import BeamComponentParameter, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types import artifact_utils, standard_artifacts

from pipeline import settings as pipeline_settings
from pipeline import split
from preprocessing import corpus, embedded


def encode(document: corpus.Document) -> bytes:
    """A document as a serialized tf.Example: `text` (a sentence a line), `id` and sizes for the statistics."""
    text = "\n".join(document.sentences).encode()
    sizes = {"num_sentences": len(document.sentences), "num_bytes": len(text), "num_words": len(text.split())}
    features = {name: tf.train.Feature(int64_list=tf.train.Int64List(value=[v])) for name, v in sizes.items()}
    features["text"] = tf.train.Feature(bytes_list=tf.train.BytesList(value=[text]))
    features["id"] = tf.train.Feature(bytes_list=tf.train.BytesList(value=[document.id.hex().encode()]))
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString(deterministic=True)


def decode(record: bytes) -> corpus.Document:
    """The inverse of `encode`."""
    feature = tf.train.Example.FromString(record).features.feature
    return corpus.Document(
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
    """Reads the corpus, drops exact duplicates and writes documents; the report stands beside them."""
    run = pipeline_settings.from_json(settings)
    with tempfile.TemporaryDirectory() as folder:
        corpus_settings = run.corpus
        if not corpus_settings.input:
            path = pathlib.Path(folder) / "embedded.txt"
            embedded.write(path, run.embedded_bytes)
            corpus_settings = embedded.corpus_settings(path)
        corpus.check_input(corpus_settings)
        _write(beam_pipeline, corpus_settings, documents, run.eval_share)


def _write(beam_pipeline, corpus_settings, documents, eval_share):
    with beam_pipeline as root:
        read = root | "Read" >> corpus.ReadDocuments(corpus_settings)
        parts = read | "Split" >> beam.Partition(split.partition, 2, eval_share)
        for name, part in zip(split.NAMES, parts, strict=True):
            (
                part
                | f"Encode{name}" >> beam.Map(encode)
                | f"Write{name}"
                >> beam.io.WriteToTFRecord(
                    os.path.join(artifact_utils.get_split_uri([documents], name), "documents"),
                    file_name_suffix=".gz",
                )
            )
    report = corpus.report(beam_pipeline.result.metrics(), corpus_settings)
    pathlib.Path(documents.uri, "report.json").write_text(json.dumps(report, indent=2))
