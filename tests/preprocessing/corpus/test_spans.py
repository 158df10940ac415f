"""`{SPAN}` in the input: which files are which span's, and which spans are read."""

import pytest

from preprocessing.corpus import spans
from preprocessing.errors import InputError
from preprocessing.settings import CorpusSettings


@pytest.fixture
def days(tmp_path):
    for day in ("20261124", "20261125", "20261126"):
        for name in ("a.txt", "b.txt"):
            path = tmp_path / f"day-{day}" / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(day)
    (tmp_path / "day-late").mkdir()
    (tmp_path / "day-late" / "a.txt").write_text("no span")
    return tmp_path


def found(*patterns, **settings):
    return {span.number: span.input for span in spans.window(CorpusSettings(input=patterns, **settings))}


def test_the_newest_spans_are_read(days):
    pattern = f"{days}/day-{{SPAN}}/*.txt"
    assert found(pattern) == {20261126: (f"{days}/day-20261126/*.txt",)}
    assert list(found(pattern, window=2)) == [20261125, 20261126]
    assert list(found(pattern, window=9)) == [20261124, 20261125, 20261126]
    assert list(found(pattern, window=2, newest_span=20261125)) == [20261124, 20261125]


@pytest.mark.parametrize(
    "pattern", ["day-{SPAN}", "day-{SPAN}/a.txt", "*-{SPAN}/?.txt", "{d,d}ay-{SPAN}/*", "d[a]y-{SPAN}/*"]
)
def test_a_span_may_be_a_folder_and_stand_beside_signs_of_globs(days, pattern):
    assert list(found(f"{days}/{pattern}", window=9)) == [20261124, 20261125, 20261126]


def test_several_inputs_and_a_span_in_the_name_of_a_file(days):
    for number in (7, 8):
        (days / f"part-{number:03d}-x.txt").write_text("x")
    assert found(f"{days}/part-{{SPAN}}-*.txt", window=2) == {
        7: (f"{days}/part-007-*.txt",),
        8: (f"{days}/part-008-*.txt",),
    }
    (days / "part-20261126-x.txt").write_text("x")
    both = found(f"{days}/day-{{SPAN}}/*", f"{days}/part-{{SPAN}}-*")
    assert both == {20261126: (f"{days}/day-20261126/*", f"{days}/part-20261126-*")}


def test_a_span_that_is_not_there_or_is_written_twice(days):
    pattern = f"{days}/day-{{SPAN}}/*.txt"
    with pytest.raises(InputError, match=r"span 20261127 must be there for \{SPAN\}\. Received: 20261124, 20261125"):
        found(pattern, newest_span=20261127)
    with pytest.raises(InputError, match="a number must be there"):
        found(f"{days}/day-l{{SPAN}}/*")
    (days / "day-020261126").mkdir()
    (days / "day-020261126" / "a.txt").write_text("x")
    with pytest.raises(InputError, match="a span must be written in one way"):
        found(pattern)


def test_an_input_with_spans_and_one_without():
    assert not spans.are_in(CorpusSettings(input=("a.txt",)))
    with pytest.raises(InputError, match=r"all inputs must have \{SPAN\} where one has\. Received: 'b'"):
        spans.are_in(CorpusSettings(input=("a{SPAN}", "b")))
    (only,) = spans.narrowed(CorpusSettings(input=("a.txt",)))
    assert only == (None, CorpusSettings(input=("a.txt",)))
