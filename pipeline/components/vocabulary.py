"""Step 2: documents -> a WordPiece vocabulary."""

import json
import os
import tempfile

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
from pipeline.components.documents import decode
from preprocessing import beam_runner, beam_transforms, vocabulary

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
    """Counts the words of the train split with Beam and learns pieces from the counts."""
    run = pipeline_settings.from_json(settings)
    pattern = os.path.join(artifact_utils.get_split_uri([documents], "train"), "*.gz")
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "counts")
        _ = (
            beam_pipeline
            | "Read" >> beam.io.ReadFromTFRecord(pattern)
            | "Decode" >> beam.Map(decode)
            | "Count" >> beam_transforms.CountWords(run.vocabulary.lower_case)
            | "Format" >> beam.MapTuple(lambda word, count: json.dumps([word, count]))
            | "Write" >> beam.io.WriteToText(path)
        )
        beam_runner.run(beam_pipeline)
        counts: dict[str, int] = {}
        for name in os.listdir(folder):
            with open(os.path.join(folder, name), encoding="utf-8") as file:
                counts |= dict(map(json.loads, file))
    tokens = vocabulary.learn(counts, run.vocabulary)
    report = {"size": len(tokens), "words": sum(counts.values()), "different_words": len(counts)}
    io_utils.write_string_file(os.path.join(vocabulary_artifact.uri, "report.json"), json.dumps(report, indent=2))
    io_utils.write_string_file(os.path.join(vocabulary_artifact.uri, FILE), "\n".join(tokens) + "\n")
