from preprocessing.corpus import embedded


def test_code_tables_and_headings_are_left_out():
    text = """Returns the sorted copy of an array, which is never the array itself but a new one.

    Parameters
    ----------
    a : array

    >>> sort([2, 1])
    [1, 2]

    The sorting is stable, so equal elements keep the order in which
    they stood in the array that was given.
    """
    assert embedded.prose(text) == [
        "Returns the sorted copy of an array, which is never the array itself but a new one.",
        "The sorting is stable, so equal elements keep the order in which they stood in the array that was given.",
    ]


def test_the_corpus_is_the_same_every_time_and_within_its_bound(tmp_path):
    count = embedded.write(tmp_path / "a.txt", 300_000)
    embedded.write(tmp_path / "b.txt", 300_000)
    text = (tmp_path / "a.txt").read_text()
    assert text == (tmp_path / "b.txt").read_text()
    assert 250_000 < len(text.encode()) <= 300_000
    assert text.count("\n\n") == count
    assert "exception" in text
