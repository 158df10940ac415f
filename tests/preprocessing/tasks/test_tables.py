import json
import tracemalloc

import pyarrow as pa
import pyarrow.parquet
import pytest

from preprocessing.errors import InputError
from preprocessing.tasks.records import MAX_ROW
from preprocessing.tasks.tables import Columns, Row, Table
from tests import data


def write(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(path, **columns):
    """([(line, text, second, label)], [(line, reason)], what is told)"""
    aside = []
    table = Table(path, Columns(**columns))
    rows = [
        (row.line, row.text, row.second, row.label) for row in table.rows(lambda line, why: aside.append((line, why)))
    ]
    return rows, aside, table.told


def test_tsv_is_split_at_tabs_alone(tmp_path):
    path = write(tmp_path, "a.tsv", 'a "quoted text\tx\r\n\nand another"\ty\n')
    rows, aside, told = read(path)
    assert rows == [(1, 'a "quoted text', None, "x"), (3, 'and another"', None, "y")]
    assert aside == []
    assert "text 1, label 2; the first line is taken for a row (--header if it is not)" in told


def test_csv_has_line_breaks_in_quotes_and_a_header(tmp_path):
    path = write(tmp_path, "a.csv", '\ufefftext,category\n"one, ""two""\nthree",a\n\n"",b\nfour,b\nfive,a\n')
    rows, aside, told = read(path)
    assert rows == [(2, 'one, "two"\nthree', None, "a"), (6, "four", None, "b"), (7, "five", None, "a")]
    assert aside == [(5, "text (text) is empty")]
    assert "text text, label category; the first line is taken for the columns' names (--no-header" in told


@pytest.mark.parametrize(
    ("content", "header"),
    [
        ("text\tlabel\na\tx\nb\tx\n", True),
        ("text\tlabel\nb\tx\nmore\tlabel\n", False),  # it is a label
        ("good film\trare\nbad film\tx\n", False),  # a row whose label is rare
        ("a\ttext\nb\ttext\n", False),
        ("text\ttext\nb\tx\n", False),
    ],
)
def test_a_header_is_guessed_where_no_row_could_look_so(tmp_path, content, header):
    path = write(tmp_path, "a.tsv", content)
    rows, _, told = read(path)
    assert rows[0][0] == (2 if header else 1)
    assert ("columns' names" in told) == header
    if not content.startswith("text\ttext"):
        assert read(path, header=True)[0][0][0] == 2
    assert read(path, header=False)[0][0][0] == 1


def test_columns_by_name_or_position(tmp_path):
    path = write(tmp_path, "a.csv", "id,first,then,kind\n1,a,b,x\n2,c,d,y\n")
    expected = [(2, "a", "b", "x"), (3, "c", "d", "y")]
    assert read(path, text="first", second="then", label="kind")[0] == expected
    assert read(path, text="2", second="3", label="4", header=True)[0] == expected
    assert read(path, text="first", labelled=False)[0] == [(2, "a", None, None), (3, "c", None, None)]


def test_jsonl_and_parquet(tmp_path):
    records = [
        {"text": "a", "label": True},
        {"text": "b", "label": 3},
        {"text": "", "label": 1},
        {"text": None, "label": 1},
        {"text": "c"},
        {"text": "d", "label": ""},
    ]
    path = write(tmp_path, "a.jsonl", "\n".join(map(json.dumps, records)) + '\n[1]\n{"text": 5}\n{"a\n')
    rows, aside, _ = read(path)
    assert rows == [(1, "a", None, "true"), (2, "b", None, "3"), (5, "c", None, None), (6, "d", None, None)]
    assert [line for line, _ in aside] == [3, 4, 7, 8, 9]
    assert [reason.split(":")[0] for _, reason in aside[2:4]] == [
        "not a JSON object",
        "text (text) must be text. Received",
    ]
    table = pa.table({"label": [1, None, 2], "other": [1, 2, 3], "text": ["a", "b", None]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    rows, aside, _ = read(tmp_path / "a.parquet")
    assert rows == [(1, "a", None, "1"), (2, "b", None, None)]
    assert aside == [(3, "text (text) must be text. Received: nothing")]


def test_what_cannot_be_used_is_set_aside_with_its_line(tmp_path):
    path = write(tmp_path, "a.tsv", b"good\tx\nbad \xff\tx\nnul \x00\tx\nonly one\n\tx\n \t y\na\tb\tc\nfine\t\n")
    rows, aside, _ = read(path)
    assert rows == [(1, "good", None, "x"), (8, "fine", None, None)]
    assert aside == [
        (2, "text (1) is not UTF-8, or holds a NUL"),
        (3, "text (1) is not UTF-8, or holds a NUL"),
        (4, "has 1 columns, the first row 2"),
        (5, "text (1) is empty"),
        (6, "text (1) is empty"),
        (7, "has 3 columns, the first row 2"),
    ]
    path = write(tmp_path, "a.csv", b"text,label\nnul \x00,x\nb,y\n")
    assert read(path)[1] == [(2, "text (text) is not UTF-8, or holds a NUL")]


@pytest.mark.parametrize(
    ("name", "content", "columns", "message"),
    [
        ("a.tsv", "", {}, "a.tsv: a table must have rows"),
        ("a.jsonl", "\n\n", {}, "a.jsonl: a table must have rows"),
        ("a.xlsx", "x", {}, r"a table's name must end in .tsv, .*Received: '.xlsx'"),
        ("a.tsv", "a\tx\n", {"label": "3"}, "no column '3' for the label. Its columns: 1, 2"),
        ("a.csv", "text,kind\na,x\n", {"label": "sort"}, "no column 'sort' for the label. Its columns: text, kind"),
        ("a.csv", "a,b,c\nd,e,f\n", {}, "which column is the text. Name it with --text"),
        ("a.csv", "text,b,c\nd,e,f\n", {}, "which column is the label. Name it with --label"),
        ("a.csv", "a,b\n", {"text": "1", "label": "1"}, "must be columns of their own"),
        ("a.tsv", "one\n", {}, "which column is the label. .*Its columns: 1"),
        ("a.csv", "text,label\n", {}, None),
        ("a.csv", 'text,label\na,x\n"b,y\nc,z\n', {}, "a.csv:3: the row that begins here is no CSV"),
        ("a.csv", "text,text\na,x\n", {"text": "text"}, "a.csv: the columns' names must differ"),
        ("a.tsv", "a\tx\n".encode("utf-16"), {}, "a.tsv:1: a table must be UTF-8. Received: UTF-16"),
        ("a.tsv", b"x" * (MAX_ROW + 1), {}, "a.tsv:1: a line must not exceed 16 MiB"),
        ("a.parquet", "no parquet", {}, "a.parquet: cannot be read as Parquet"),
        ("a.jsonl", '{"text": "a"}', {"header": True}, "only TSV and CSV have a line of names"),
    ],
)
def test_bad_tables(tmp_path, name, content, columns, message):
    path = write(tmp_path, name, content)
    if message is None:
        assert read(path, **columns)[0] == []
        return
    with pytest.raises(InputError, match=message):
        read(path, **columns)
    with pytest.raises(InputError, match="no such table"):
        Table(tmp_path / "none.tsv")


def test_memory_is_that_of_a_row(tmp_path):
    path = tmp_path / "a.csv"
    with path.open("w") as file:
        for number in range(100_000):
            file.write(f'"text of, row {number}",x\n')
        file.write(f"{'a' * 1_000_000},y\n")
    tracemalloc.start()
    count = sum(1 for _ in Table(path).rows(lambda line, reason: None))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 100_001
    assert peak < 15_000_000


def test_real_tables():
    rows, aside, told = read(data.require("banking77/train.csv"))
    assert (len(rows), len(aside), len({row[3] for row in rows})) == (10_003, 0, 77)
    assert "columns' names" in told
    rows, aside, told = read(data.require("sst2/train.tsv"))
    assert (len(rows), aside, {row[3] for row in rows}) == (6920, [], {"0", "1"})
    assert "taken for a row" in told
    rows, aside, told = read(data.require("reviews_long/train.tsv"))
    assert len(rows) + len(aside) == 1400
    assert "columns' names" in told


def test_ids_several_labels_and_other_columns(tmp_path):
    path = tmp_path / "a.jsonl"
    lines = [
        {"id": 7, "text": "a", "label": ["x", " y", "x"], "age": 3},
        {"id": None, "text": "b", "label": "x; z ", "age": None},
        {"text": "c", "label": ["x;y"]},
        {"text": "d", "label": ["x"], "age": []},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    table = Table(path, Columns(separator=";", more=("age",)))
    assert table.told == f"{path}: id id, text text, label label, several with ';' between them"
    aside = []
    first, second = table.rows(lambda line, reason: aside.append((line, reason)))
    assert (first.id, first.labels, first.more) == ("7", ("x", "y"), {"age": "3"})
    assert (second.id, second.labels, second.more) == (None, ("x", "z"), {"age": None})
    assert aside == [
        (3, "label (label) must be texts without ';'. Received: ['x;y']"),
        (4, "column age (age) must be text or a number. Received: list"),
    ]


def test_a_column_of_ids_is_no_text(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("id,sentence\n1,a\n")
    (row,) = Table(path, Columns(labelled=False, header=True)).rows(print)
    assert (row.id, row.text, row.label) == ("1", "a", None)
    (row,) = Table(path, Columns(text="id", label="sentence")).rows(print)
    assert (row.id, row.text, row.label) == (None, "1", "a")


@pytest.mark.parametrize(
    ("label", "number"), [("1.5", 1.5), ("-2e3", -2000.0), ("nan", None), ("inf", None), ("one", None), (None, None)]
)
def test_labels_that_are_numbers(label, number):
    assert Row("a", 1, "text", None, label).number == number
