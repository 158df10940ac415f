import dataclasses
import os

import pytest
import tensorflow as tf

from pipeline.finetuning import rows
from tests.pipeline.finetuning.test_every_kind import CASES


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_row_survives_being_written(case, tmp_path):
    source = case.source(case.files(tmp_path)[1])
    found = list(source.rows(lambda line, reason: None))
    assert found
    for row in found:
        assert isinstance(row, case.kind.row())
        record = rows.encode(case.kind, row)
        assert rows.decode(case.kind, record) == dataclasses.replace(row, file=os.path.basename(row.file))
        feature = tf.train.Example.FromString(record).features.feature
        assert [label.decode() for label in feature[rows.LABELS].bytes_list.value] == list(case.kind.labels(row))
        assert feature[rows.SIZE].int64_list.value[0] == case.kind.size(row)
