"""The gates of the pretraining pipeline's data: no anomaly may pass, no span that is unlike the one before it, and no
examples that their own rules could not have made."""

import dataclasses
import functools
import math
import os

import apache_beam as beam
from tfx.dsl.component.experimental.annotations import BeamComponentParameter, InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types import standard_artifacts

from pipeline import values
from pipeline.bounds import DataBounds
from pipeline.components import gates, span_statistics
from pipeline.components.vocabulary import FILE, Vocabulary
from pipeline.drift import measures, statistics
from pipeline.drift.comparing import Moved
from preprocessing import storage, vocab_file
from preprocessing.errors import InputError
from preprocessing.settings import ExampleSettings

_DOCUMENTS, _EXAMPLES = 20_000, 5_000  # of a span that are measured; more would say the same
_MASKED = 0.8  # of the predictions are [MASK], as google-research/bert writes them
_FEW = 20  # examples, of which nothing is said by shares


@component(use_beam=True)
def CorpusGate(
    anomalies: InputArtifact[standard_artifacts.ExampleAnomalies],
    documents: InputArtifact[standard_artifacts.Examples],
    statistics_artifact: OutputArtifact[standard_artifacts.ExampleStatistics],
    settings: Parameter[str],
    code: Parameter[str],
    beam_pipeline: BeamComponentParameter[beam.Pipeline] = None,
) -> None:
    """Raises InputError at an anomaly, and where the documents of a span are unlike those of the span before: their
    language, characters, words, the share of duplicates, or how much there is of them."""
    gates.check(anomalies)
    bounds = values.read(settings, bounds=DataBounds).bounds
    entries = span_statistics.measure(
        documents.uri, statistics_artifact, measures.of_document, code, beam_pipeline, "documents_train", _DOCUMENTS
    )
    uri, stated = statistics_artifact.uri, dataclasses.asdict(bounds)
    moved = span_statistics.compare(uri, entries, stated, functools.partial(_amounts, bounds))
    way_out = "Look at the text; where it is as it should be, widen `bounds` in the settings"
    span_statistics.finish(uri, entries, moved, stated, way_out)


def _amounts(bounds: DataBounds, before, now) -> list[Moved]:
    if before is None:
        return []
    (against, first, told), (of, second, telling) = before, now

    def documents(report):
        return report["documents_train"] + report["documents_eval"]

    def again(report):
        left_out = report.get("duplicates", 0) + report.get("near_duplicates", 0)
        return left_out / max(left_out + documents(report), 1)

    words, later = (
        documents(report) * statistics.mean(found[measures.WORDS])
        for report, found in ((first, told), (second, telling))
    )
    grown, missing = max(0.0, again(second) - again(first)), max(0.0, 1 - later / max(words, 1))
    return [
        Moved("duplicates", "share of documents", again(first), again(second), grown, bounds.duplicates, against, of),
        Moved("shrinkage", "words", words, later, missing, bounds.shrinkage, against, of),
    ]


@component(use_beam=True)
def ExampleGate(
    anomalies: InputArtifact[standard_artifacts.ExampleAnomalies],
    examples: InputArtifact[standard_artifacts.Examples],
    vocabulary_artifact: InputArtifact[Vocabulary],
    statistics_artifact: OutputArtifact[standard_artifacts.ExampleStatistics],
    settings: Parameter[str],
    code: Parameter[str],
    beam_pipeline: BeamComponentParameter[beam.Pipeline] = None,
) -> None:
    """Raises InputError at an anomaly; where tokens are unlike those of the span before; and for examples of another
    vocabulary, with predictions that do not stand where masks are, of one label, or of unknown words."""
    gates.check(anomalies)
    run = values.read(settings, bounds=DataBounds, examples=ExampleSettings)
    own, theirs = (os.path.join(artifact.uri, FILE) for artifact in (vocabulary_artifact, examples))
    if storage.read(theirs) != storage.read(own):
        raise InputError(f"{theirs}: the examples must be of the run's vocabulary, {own}. Received: another")
    of_record = functools.partial(measures.of_example, vocabulary=vocab_file.load(own))
    entries = span_statistics.measure(
        examples.uri, statistics_artifact, of_record, code, beam_pipeline, "examples", _EXAMPLES
    )
    uri, stated = statistics_artifact.uri, dataclasses.asdict(run.bounds)
    rules = functools.partial(_rules, run.bounds, run.examples.pairs != "none")
    moved = span_statistics.compare(uri, entries, stated, rules)
    way_out = "Look at the examples and at what made them (`bert examples --show 5`); `bounds` in the settings"
    span_statistics.finish(uri, entries, moved, stated, way_out)


def _rules(bounds: DataBounds, paired: bool, before, now) -> list[Moved]:
    """What holds of any examples. Few of them may be a little beyond by chance."""
    of, _, found = now
    count = found[measures.UNKNOWN].num_stats.common_stats.num_non_missing
    share = statistics.mean(found[measures.MASKED]) if measures.MASKED in found else 0.0
    slack = max(bounds.masked, 3 * math.sqrt(_MASKED * (1 - _MASKED) / max(count, 1)))
    unknown = statistics.mean(found[measures.UNKNOWN])
    against = "the rule"
    moved = [
        Moved("masked", "share of [MASK] at predictions", _MASKED, share, abs(share - _MASKED), slack, against, of),
        Moved("unknown", "share of [UNK]", 0.0, unknown, unknown, bounds.unknown, against, of),
    ]
    if paired and count >= _FEW:
        label = statistics.mean(found[measures.LABEL])
        moved.append(
            Moved("labels", "share of label 1", 0.5, label, max(label, 1 - label), bounds.one_label, against, of)
        )
    return moved
