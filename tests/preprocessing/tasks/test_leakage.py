import tracemalloc

from preprocessing.tasks.leakage import Leakage, key


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
