"""A vocabulary is learned, or taken as it is; then the report says how much of either split is [UNK] to it."""

import json
import os

import apache_beam as beam
import pytest
import tensorflow as tf
from tfx.types import artifact_utils, standard_artifacts

from pipeline.components import documents, vocabulary
from pipeline.settings import PipelineSettings, VocabularySettings
from preprocessing.corpus.documents import Document
from preprocessing.features import SPECIAL_TOKENS

TEXTS = {"train": "one two three four", "eval": "one two two five"}


@pytest.fixture
def learn(tmp_path):
    given = standard_artifacts.Examples()
    given.uri = str(tmp_path / "documents")
    given.split_names = artifact_utils.encode_split_names(list(TEXTS))
    for name, text in TEXTS.items():
        folder = artifact_utils.get_split_uri([given], name)
        os.makedirs(folder)
        with tf.io.TFRecordWriter(os.path.join(folder, "documents.gz"), "GZIP") as writer:
            writer.write(documents.encode(Document(bytes(16), (text,)), name))

    def run(settings):
        out = vocabulary.Vocabulary()
        out.uri = str(tmp_path / "vocabulary")
        pipeline = beam.Pipeline(runner="apache_beam.runners.portability.fn_api_runner.FnApiRunner")
        vocabulary.VocabularyGen.test_call(
            documents=given,
            vocabulary_artifact=out,
            settings=PipelineSettings(vocabulary=settings).to_json(),
            code="",
            beam_pipeline=pipeline,
        )
        folder = tmp_path / "vocabulary"
        return (folder / vocabulary.FILE).read_text().split(), json.loads((folder / "report.json").read_text())

    return run


def test_a_vocabulary_that_is_taken_as_it_is(learn, tmp_path):
    tokens = [*SPECIAL_TOKENS, "two", "one", "three"]
    path = tmp_path / "mine.txt"
    path.write_text("\r\n".join(tokens))
    found, report = learn(VocabularySettings(file=str(path)))
    assert found == tokens
    assert report["size"] == 8
    assert report["file"] == str(path)
    assert report["unknown_share"] == 0.25
    assert report["train_unknown_share"] == 0.25


def test_one_that_is_learned(learn):
    found, report = learn(VocabularySettings(size=40))
    assert len(found) == 40
    assert "file" not in report
