"""What stands between the steps: documents as records, the schema of the examples, the gate that it is held to."""

import os

import pytest
import tensorflow as tf
import tensorflow_data_validation as tfdv
from tensorflow_metadata.proto.v0 import anomalies_pb2
from tfx.types import artifact_utils, standard_artifacts

from pipeline.components import documents, examples, gates
from preprocessing import features
from preprocessing.corpus.documents import Document
from preprocessing.errors import InputError
from preprocessing.settings import ExampleSettings

SETTINGS = ExampleSettings(max_seq_length=12, max_predictions=3)
# The worked example of preprocessing.features.
EXAMPLE = {
    features.INPUT_IDS: [101, 1996, 103, 2253, 102, 2000, 1996, 3573, 102, 0, 0, 0],
    features.INPUT_MASK: [1] * 9 + [0] * 3,
    features.SEGMENT_IDS: [0] * 5 + [1] * 4 + [0] * 3,
    features.MASKED_LM_POSITIONS: [2, 7, 0],
    features.MASKED_LM_IDS: [2158, 3573, 0],
    features.MASKED_LM_WEIGHTS: [1.0, 1.0, 0.0],
    features.NEXT_SENTENCE_LABELS: [0],
}


def test_a_document_survives_being_written():
    document = Document(bytes(range(16)), ("Déjà vu.", "Second sentence."))
    assert documents.decode(documents.encode(document, "train")) == document


def anomalies(tmp_path, **changes) -> anomalies_pb2.Anomalies:
    """What TFDV finds in two examples, the second with the changes (None: the feature is missing)."""
    path = str(tmp_path / "examples")
    with tf.io.TFRecordWriter(path) as writer:
        for values in (EXAMPLE, {**EXAMPLE, **changes}):
            example = tf.train.Example()
            for name, value in values.items():
                if value is not None:
                    kind = "float_list" if isinstance(value[0], float) else "int64_list"
                    getattr(example.features.feature[name], kind).value.extend(value)
            writer.write(example.SerializeToString())
    options = documents.beam.options.pipeline_options.PipelineOptions(
        ["--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner"]
    )
    statistics = tfdv.generate_statistics_from_tfrecord(path, pipeline_options=options)
    return tfdv.validate_statistics(statistics, examples.schema(SETTINGS, 30_522))


def test_the_worked_example_obeys_the_schema(tmp_path):
    assert not anomalies(tmp_path).anomaly_info


@pytest.mark.parametrize(
    "changes",
    [
        {features.INPUT_IDS: EXAMPLE[features.INPUT_IDS][:-1]},
        {features.INPUT_IDS: [30_522, *EXAMPLE[features.INPUT_IDS][1:]]},
        {features.MASKED_LM_POSITIONS: [2, 11, 0]},
        {features.MASKED_LM_WEIGHTS: [1.0, 2.0, 0.0]},
        {features.NEXT_SENTENCE_LABELS: [2]},
        {features.SEGMENT_IDS: [2] * 12},
        {features.INPUT_MASK: None},
    ],
    ids=["length", "id out of range", "position", "weight", "label", "segment", "missing"],
)
def test_a_broken_generator_stops_the_run(tmp_path, changes):
    found = anomalies(tmp_path, **changes)
    assert set(found.anomaly_info) == set(changes)
    artifact = standard_artifacts.ExampleAnomalies()
    artifact.uri = str(tmp_path)
    artifact.split_names = artifact_utils.encode_split_names(["train"])
    folder = artifact_utils.get_split_uri([artifact], "train")
    os.makedirs(folder)
    with open(os.path.join(folder, "SchemaDiff.pb"), "wb") as file:
        file.write(found.SerializeToString())
    with pytest.raises(InputError, match=rf"split 'train' breaks its schema .*{next(iter(changes))}"):
        gates.AnomalyGate.test_call(anomalies=artifact, code="")
