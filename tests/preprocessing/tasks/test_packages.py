import itertools

import pytest

from preprocessing.corpus import embedded
from preprocessing.tasks import packages
from preprocessing.tasks.tables import Table

TEXTS = itertools.count()


def paragraph(words):
    return f"{words} and many other things that are said of it in a long sentence."


@pytest.fixture
def found(monkeypatch, tmp_path):
    """rows -> (label, text) of both files, of packages of 50 docstrings each."""

    def docstrings(package):
        yield package, paragraph("This stands in every one of the packages")
        yield package, f"{paragraph(f'What {package} does')}\n\n{paragraph(f'The one after {package[::-1]}')}"
        for number in range(50):
            yield package, paragraph(f"Number {number} of {package[::-1]}")

    monkeypatch.setattr(embedded, "docstrings", docstrings)

    def of(rows):
        paths = packages.write(tmp_path, rows)
        return [[(row.label, row.text) for row in Table(path).rows(print)] for path in paths]

    return of


def test_rows_are_of_all_packages_and_none_stands_on_both_sides(found):
    train, held_out = found(1000)
    rows = [*train, *held_out]
    assert len({text for _, text in rows}) == len(rows)
    assert {label for label, _ in train} == {label for label, _ in held_out} == set(packages.PACKAGES)
    assert len(rows) == len(packages.PACKAGES) * 51
    assert 0.4 < len(held_out) / len(rows) < 0.6


def test_nothing_names_its_package_or_stands_in_two(found):
    for label, text in itertools.chain(*found(1000)):
        assert label not in text.lower()
        assert "every one of the packages" not in text


def test_fewer_rows_are_some_of_them_on_the_same_side(found):
    whole, part = found(1000), found(10)
    assert sum(map(len, part)) == 10 * len(packages.PACKAGES)
    for some, all_ in zip(part, whole, strict=True):
        assert set(some) <= set(all_)
