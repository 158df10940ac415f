import tracemalloc

from preprocessing.tasks.leakage import Ids, Leakage, key
from preprocessing.tasks.tables import Row


def test_each_row_of_dev_that_train_has_is_counted_once():
    dev = ["a", "b", "a", "c", "", "\ud800"]
    found = Leakage(map(key, dev))
    assert found.rows == 0
    for text in ("a", "a", "d", "", "\ud800"):
        found.see(key(text))
    assert found.rows == 4
    assert [key(text) in found for text in ("a", "b", "d", "", "\ud800")] == [True, False, False, True, True]
    nothing = Leakage([])
    nothing.see(key("a"))
    assert (nothing.rows, key("a") in nothing) == (0, False)


def test_memory_is_that_of_numbers():
    """A set of a hundred thousand rows would take some ten megabytes."""
    tracemalloc.start()
    found = Leakage(number * 2**40 for number in range(100_000))
    held, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.rows == 0
    assert held < 2e6
    assert most < 6e6


def test_rows_with_the_id_of_one_before_are_found():
    rows = [Row("f", line, "text", None, None, name) for line, name in enumerate(("a", "b", None, "a", None, "a"), 1)]
    ids = Ids()
    for row in rows:
        ids.see(row)
    assert ids.repeated == 2
    assert list(ids.places(rows)) == ["f:4 'a'", "f:6 'a'"]
    assert (Ids().repeated, list(Ids().places(rows))) == (0, [])
