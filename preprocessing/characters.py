"""What characters are, by one version of Unicode, whatever version the Python has that runs.

Python 3.10 to 3.13 have four versions, and a token, a word or a sentence that depended on them would differ between
machines: what decides ids, vocabularies and examples may only ask here. (White space needs no care: `str.split`,
`str.strip` and `\\s` take the same characters in all of them. Nor does decomposition, which the characters of a version
keep for ever.)
"""

import functools
import re

from preprocessing import unicode_table

Range = tuple[int, int]  # first and last code point


@functools.cache
def ranges(table: str) -> list[Range]:
    """The ranges of one of `unicode_table`'s classes, ascending."""
    ends = (item.partition("-") for item in table.split())
    return [(int(first, 16), int(last or first, 16)) for first, _, last in ends]


@functools.cache
def numbers(table: str) -> dict[int, int]:
    """Code point -> number, ascending, of `unicode_table.LOWER` or `COMBINING`."""
    found = {}
    for first, last, step, number in re.findall(r"(\w+)(?:-(\w+)(?:/(\d))?)?([+-]\d+)(?!\S)", table):
        found.update(dict.fromkeys(range(int(first, 16), int(last or first, 16) + 1, int(step or 1)), int(number)))
    return dict(sorted(found.items()))


def pattern(*classes: list[Range]) -> str:
    """Pattern of Python's `re` for one character of any of the classes.

    The characters beyond 16 bits stand apart: the others are found by table, but these by going through their list.
    """
    everything = sorted(span for ranges in classes for span in ranges)
    near, far = (
        "".join(rf"\U{first:08x}-\U{last:08x}" for first, last in everything if (first > 0xFFFF) is is_far)
        for is_far in (False, True)
    )
    return rf"(?:[{near}]|(?![\0-\uffff])[{far}])"


@functools.cache
def _of_cased_text() -> re.Pattern:
    capitals = [(code, code) for code in numbers(unicode_table.LOWER)]
    return re.compile(pattern(ranges(unicode_table.ACCENTED), capitals))


def is_uncased(text: str) -> bool:
    """Whether lower-casing and dropping accents, as uncased models do, leave a text as it is."""
    return not _of_cased_text().search(text)
