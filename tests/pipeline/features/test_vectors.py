import numpy as np
import pyarrow.parquet
import pytest

from pipeline.features import files, vectors
from preprocessing.tasks.tables import Row


def rows(texts, second=None):
    return [Row("f", line, text, second and second[line - 1], None) for line, text in enumerate(texts, 1)]


def test_vectors_are_in_the_order_of_the_rows(monkeypatch):
    monkeypatch.setattr(vectors, "MOST_ROWS", 100)
    lengths = np.random.default_rng(0).integers(1, 1000, 250)
    sizes, told = [], []

    def ask(texts):
        sizes.append((len(texts), max(map(len, texts))))
        numbers = np.array([[len(text)] for text in texts], np.float32)
        return [numbers, np.repeat(-numbers, 3, 1)], np.array([len(text) > 990 for text in texts])

    parts = list(vectors.encoded(rows(["x" * length for length in lengths]), ask, (1, 3), False, told.append))
    assert [len(part.rows) for part in parts] == [100, 100, 50]
    assert [row.line for part in parts for row in part.rows] == list(range(1, 251))
    one, other = (np.concatenate([part.by_choice[choice] for part in parts]) for choice in (0, 1))
    assert one[:, 0].tolist() == lengths.tolist()
    assert (other == -one).all()
    assert sum(part.cut for part in parts) == (lengths > 990).sum()
    assert told == sorted(told)
    assert told[-1] == 250
    assert all(count <= vectors.BATCH and count * longest <= vectors.CHARACTERS for count, longest in sizes)
    assert len(sizes) < 20  # texts of like length together


def test_a_text_that_is_too_long_for_company_goes_alone():
    sizes = []

    def ask(texts):
        sizes.append(len(texts))
        return [np.zeros((len(texts), 1))], np.zeros(len(texts), bool)

    list(vectors.encoded(rows(["a", "b" * 10**6, "c"]), ask, (1,), False, lambda done: None))
    assert sizes == [1, 2]


def test_pairs_are_compared_by_their_cosine():
    vector = {"up": [0, 2], "right": [3, 0], "down": [0, -1], "none": [0, 0]}

    def ask(texts):
        return [np.array([vector[text] for text in texts], np.float32)], np.zeros(len(texts), bool)

    pairs = rows(["up", "up", "right", "up"], ["up", "down", "down", "none"])
    told = []
    (part,) = vectors.encoded(pairs, ask, (2,), True, told.append)
    assert part.by_choice[0].tolist() == [1, -1, 0, 0]
    assert told == [4]


@pytest.mark.parametrize("width", [None, 3])
def test_files_hold_what_was_written(width, tmp_path):
    values = np.arange(4 * (width or 1), dtype=np.float32).reshape([4, width] if width else [4])
    for name in ("a.npy", "a.parquet"):
        with files.written(tmp_path / name, 4, width, {"features": "layers 6"}) as add:
            add([1, 2], values[:2])
            add([4, 5], values[2:])
    assert np.load(tmp_path / "a.npy").tolist() == values.tolist()
    table = pyarrow.parquet.read_table(tmp_path / "a.parquet")
    assert table.column_names == ["line", "vector" if width else "score"]
    assert table["line"].to_pylist() == [1, 2, 4, 5]
    assert table[1].to_pylist() == values.tolist()
    assert table.schema.metadata[b"features"] == b"layers 6"


@pytest.mark.parametrize("name", ["a.npy", "a.parquet"])
def test_nothing_is_left_of_a_run_that_fails(name, tmp_path):
    (tmp_path / name).write_text("before")
    with pytest.raises(KeyboardInterrupt), files.written(tmp_path / name, 2, 1):
        raise KeyboardInterrupt
    assert [path.read_text() for path in tmp_path.iterdir()] == ["before"]
