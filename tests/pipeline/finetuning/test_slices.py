import json

import pytest

from pipeline.finetuning import slices
from pipeline.finetuning.kinds.classification import CLASSIFICATION
from preprocessing.errors import InputError
from preprocessing.tasks.tables import Columns, Row, Table
from tests.pipeline.finetuning.answers import classified


def test_each_part_is_judged_alone(tmp_path):
    path = tmp_path / "a.jsonl"
    rows = [("a" * 64, "x", "old"), ("b" * 65, "y", None), ("c" * 128, "x", "new"), ("d", None, "old")]
    names = ("text", "label", "age")
    path.write_text("".join(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in rows))
    by = ["length", "label", "column:age"]
    parts = slices.Slices(CLASSIFICATION, by)
    table = Table(path, Columns(more=slices.columns(by)))
    for row, said in zip(table.rows(print), ("x", "x", "x", "y"), strict=True):
        parts.add(row, classified(said, ("x", "y")))
    found = parts.found()
    shown = {by: {part: (v["rows"], v["accuracy"]) for part, v in of.items()} for by, of in found.items()}
    assert shown["length"] == {"0 to 64 characters": (2, 0.5), "65 to 128 characters": (2, 0.5)}
    assert shown["label"] == {"x": (2, 1.0), "y": (1, 0.0), "(none)": (1, 0.0)}
    assert shown["column:age"] == {"old": (2, 0.5), "(none)": (1, 0.0), "new": (1, 1.0)}
    lines = list(slices.lines(found))
    assert lines[0] == "  length 0 to 64 characters    accuracy 0.5000  2 rows"
    assert len(lines) == 8


def test_parts_beyond_a_hundred_are_one():
    parts = slices.Slices(CLASSIFICATION, ["label"])
    for number in range(150):
        parts.add(Row("a", number, "text", None, str(number)), classified("x", ("x", "y")))
    found = parts.found()["label"]
    assert len(found) == slices.MOST + 1
    assert next(iter(found)) == slices.OTHERS
    assert found[slices.OTHERS]["rows"] == 50


def test_what_rows_cannot_be_told_apart_by():
    with pytest.raises(InputError, match=r"slices must be length, label or column:NAME. Received: 'lenght'"):
        slices.columns(["lenght"])
