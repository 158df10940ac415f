import pytest
import tensorflow_data_validation as tfdv
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2
from tfx.types import artifact_utils, standard_artifacts
from tfx.utils import io_utils

from pipeline.components import drift
from pipeline.finetuning.rows import LABELS
from preprocessing.errors import InputError


def statistics(counts):
    """What TFDV says of so many rows of each label."""
    found = statistics_pb2.DatasetFeatureStatisticsList()
    total = sum(counts.values())
    data = found.datasets.add(num_examples=total)
    feature = data.features.add(type=statistics_pb2.FeatureNameStatistics.STRING)
    feature.path.step.append(LABELS)
    common = feature.string_stats.common_stats
    common.num_non_missing = common.tot_num_values = total
    common.min_num_values = common.max_num_values = 1
    feature.string_stats.unique = len(counts)
    for label, count in counts.items():
        feature.string_stats.rank_histogram.buckets.add(label=label, sample_count=count)
    return found


def check(tmp_path, train, held_out, most):
    artifact, schema = standard_artifacts.ExampleStatistics(), standard_artifacts.Schema()
    artifact.uri, schema.uri = str(tmp_path / "statistics"), str(tmp_path / "schema")
    artifact.split_names = artifact_utils.encode_split_names(["train", "eval"])
    artifact.set_string_custom_property("tfx_version", "1.16.0")
    wanted = schema_pb2.Schema()
    for name, counts in (("train", train), ("eval", held_out)):
        folder = artifact_utils.get_split_uri([artifact], name)
        io_utils.write_bytes_file(f"{folder}/FeatureStats.pb", statistics(counts).SerializeToString())
        wanted = tfdv.infer_schema(statistics(train))
    io_utils.write_pbtxt_file(f"{schema.uri}/schema.pbtxt", wanted)
    drift.DriftGate.test_call(statistics=artifact, schema=schema, most=most, code="")


def test_labels_in_like_shares_pass(tmp_path):
    check(tmp_path, {"wet": 60, "dry": 40}, {"wet": 13, "dry": 7}, most=0.1)


def test_labels_in_other_shares_stop_the_run(tmp_path):
    with pytest.raises(InputError, match=r"the eval rows are unlike those of train .*labels: .*0\.2"):
        check(tmp_path, {"wet": 60, "dry": 40}, {"wet": 8, "dry": 12}, most=0.1)
