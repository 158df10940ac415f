"""Step 2: documents -> a WordPiece vocabulary that was learned from them, or is pinned."""

import json
import os
from typing import Any

import apache_beam as beam
from tfx.dsl.component.experimental.annotations import (
    BeamComponentParameter,
    InputArtifact,
    OutputArtifact,
    Parameter,
)
from tfx.dsl.component.experimental.decorators import component
from tfx.dsl.io import fileio
from tfx.types import artifact, artifact_utils, standard_artifacts
from tfx.utils import io_utils

from pipeline import values
from pipeline.components import kept, split
from pipeline.components.documents import decode
from preprocessing import storage, vocab_file
from preprocessing.errors import InputError
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
    how it fits the eval split; one that was not learned here also how much of the train split is [UNK] to it.

    Of data in spans one that is taken is held to the newest span alone, and the report says the share of [UNK] of each
    span that it has seen. Raises InputError where that has grown by more than `max_unknown_increase` since the first.
    """
    run = values.read(settings, vocabulary=VocabularySettings).vocabulary
    spans = list(kept.read(documents.uri))
    newest = spans[-1] if spans else None
    pattern = kept.prefix(newest, "*.gz") if run.file else "*.gz"
    parts = [
        beam_pipeline
        | f"Read-{name}"
        >> beam.io.ReadFromTFRecord(os.path.join(artifact_utils.get_split_uri([documents], name), pattern))
        | f"Decode-{name}" >> beam.Map(decode)
        for name in split.NAMES
    ]
    scratch = os.path.join(vocabulary_artifact.uri, "counts")
    (counts, held_out), _ = counting.count_parts(beam_pipeline, parts, run.lower_case, scratch)
    tokens = vocab_file.load(run.file) if run.file else learning.learn(counts, run)
    text = "\n".join(tokens) + "\n"
    report: dict[str, Any] = dict(vocabulary_report.describe(tokens, held_out, run.lower_case))
    if run.file or spans:
        known = vocabulary_report.describe(tokens, counts, run.lower_case)
        report |= {"train_unknown_share": known["unknown_share"]} | ({"file": run.file} if run.file else {})
    if newest is not None:
        shares = _shares_before(vocabulary_artifact.uri, text) | {newest: report["train_unknown_share"]}
        report["unknown_share_by_span"] = dict(sorted(shares.items()))
        _check_drift(shares, newest, run.max_unknown_increase)
    io_utils.write_string_file(os.path.join(vocabulary_artifact.uri, "report.json"), json.dumps(report, indent=2))
    io_utils.write_string_file(os.path.join(vocabulary_artifact.uri, FILE), text)


def _check_drift(shares: dict[int, float], newest: int, bound: float) -> None:
    first = min(shares)
    if shares[newest] - shares[first] > bound:
        raise InputError(
            f"span {newest}: the share of [UNK] may grow by vocabulary.max_unknown_increase ({bound:.2%}) since span "
            f"{first}. Received: {shares[first]:.2%} then, {shares[newest]:.2%} now. Look at the text of the span, or "
            "learn a vocabulary anew (spans.keep_vocabulary false)"
        )


def _shares_before(uri: str, text: str) -> dict[int, float]:
    """What was said of earlier spans to the same vocabulary, by the artifacts beside this one."""
    found: dict[int, float] = {}
    beside = os.path.dirname(uri)
    for name in fileio.listdir(beside) if fileio.exists(beside) else ():
        folder = os.path.join(beside, name.strip("/"))
        files = [os.path.join(folder, file) for file in (FILE, "report.json")]
        if folder != uri and all(map(fileio.exists, files)) and storage.read(files[0]).decode() == text:
            said = json.loads(storage.read(files[1])).get("unknown_share_by_span", {})
            found |= {int(span): share for span, share in said.items()}
    return found
