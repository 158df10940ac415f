"""Step 2: documents -> a WordPiece vocabulary that was learned from them, or is pinned."""

import json
import os

import apache_beam as beam
from tfx.dsl.component.experimental.annotations import (
    BeamComponentParameter,
    InputArtifact,
    OutputArtifact,
    Parameter,
)
from tfx.dsl.component.experimental.decorators import component
from tfx.types import artifact, artifact_utils, standard_artifacts
from tfx.utils import io_utils

from pipeline import values
from pipeline.components import split
from pipeline.components.documents import decode
from preprocessing import vocab_file
from preprocessing.settings import VocabularySettings
from preprocessing.vocabulary import counting, learning
from preprocessing.vocabulary import report as vocabulary_report

FILE = "vocab.txt"


class Vocabulary(artifact.Artifact):
    """A WordPiece vocabulary: `vocab.txt`, one token a line, and the report of how it was learned."""

    TYPE_NAME = "bert.Vocabulary"  # Kubeflow takes `word.Class` only


@component(use_beam=True)
def VocabularyGen(
    documents: InputArtifact[standard_artifacts.Examples],
    vocabulary_artifact: OutputArtifact[Vocabulary],
    settings: Parameter[str],
    code: Parameter[str],
    beam_pipeline: BeamComponentParameter[beam.Pipeline] = None,
) -> None:
    """Counts words with Beam, learns pieces from those of the train split, or takes a vocabulary as it is, and reports
    how it fits the eval split; one that was not learned here also how much of the train split is [UNK] to it."""
    run = values.read(settings, vocabulary=VocabularySettings).vocabulary
    parts = [
        beam_pipeline
        | f"Read-{name}"
        >> beam.io.ReadFromTFRecord(os.path.join(artifact_utils.get_split_uri([documents], name), "*.gz"))
        | f"Decode-{name}" >> beam.Map(decode)
        for name in split.NAMES
    ]
    scratch = os.path.join(vocabulary_artifact.uri, "counts")
    (counts, held_out), _ = counting.count_parts(beam_pipeline, parts, run.lower_case, scratch)
    tokens = vocab_file.load(run.file) if run.file else learning.learn(counts, run)
    report = vocabulary_report.describe(tokens, held_out, run.lower_case)
    if run.file:
        known = vocabulary_report.describe(tokens, counts, run.lower_case)
        report |= {"file": run.file, "train_unknown_share": known["unknown_share"]}
    io_utils.write_string_file(os.path.join(vocabulary_artifact.uri, "report.json"), json.dumps(report, indent=2))
    io_utils.write_string_file(os.path.join(vocabulary_artifact.uri, FILE), "\n".join(tokens) + "\n")
