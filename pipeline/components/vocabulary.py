"""Step 2: documents -> a WordPiece vocabulary."""

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

from pipeline import settings as pipeline_settings
from pipeline import split
from pipeline.components.documents import decode
from preprocessing import vocabulary, vocabulary_counting, vocabulary_report

FILE = "vocab.txt"


class Vocabulary(artifact.Artifact):
    """A WordPiece vocabulary: `vocab.txt`, one token a line, and the report of how it was learned."""

    TYPE_NAME = "Vocabulary"


@component(use_beam=True)
def VocabularyGen(
    documents: InputArtifact[standard_artifacts.Examples],
    vocabulary_artifact: OutputArtifact[Vocabulary],
    settings: Parameter[str],
    code: Parameter[str],
    beam_pipeline: BeamComponentParameter[beam.Pipeline] = None,
) -> None:
    """Counts words with Beam, learns pieces from those of the train split and reports how they fit the eval split."""
    run = pipeline_settings.from_json(settings)
    lower_case = run.vocabulary.lower_case
    parts = [
        beam_pipeline
        | f"Read-{name}"
        >> beam.io.ReadFromTFRecord(os.path.join(artifact_utils.get_split_uri([documents], name), "*.gz"))
        | f"Decode-{name}" >> beam.Map(decode)
        for name in split.NAMES
    ]
    scratch = os.path.join(vocabulary_artifact.uri, "counts")
    counts, held_out = vocabulary_counting.count_parts(beam_pipeline, parts, lower_case, scratch)
    tokens = vocabulary.learn(counts, run.vocabulary)
    report = vocabulary_report.describe(tokens, held_out, lower_case)
    io_utils.write_string_file(os.path.join(vocabulary_artifact.uri, "report.json"), json.dumps(report, indent=2))
    io_utils.write_string_file(os.path.join(vocabulary_artifact.uri, FILE), "\n".join(tokens) + "\n")
