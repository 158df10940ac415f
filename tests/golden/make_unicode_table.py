"""Writes `preprocessing/unicode_table.py`: what the characters of one version of Unicode are, as Python tells it.

    python3.10 tests/golden/make_unicode_table.py

Runs with the standard library alone, and only on a Python that has that version. The table is frozen: another one
gives other ids, vocabularies and examples for some texts.
"""

import pathlib
import sys
import textwrap
import unicodedata

VERSION = "13.0.0"
PATH = pathlib.Path(__file__).parents[2] / "preprocessing" / "unicode_table.py"
HEAD = f'''"""The characters of Unicode {VERSION}, made by `tests/golden/make_unicode_table.py`; not to be edited.

Hexadecimal code points: `first-last` (inclusive) or one, ascending.
"""

VERSION = "{VERSION}"
'''
CODES = range(0x110000)


def ranges(is_in) -> list[tuple[int, int]]:
    """Code points for which `is_in(character)` holds, as ascending inclusive ranges."""
    found: list[tuple[int, int]] = []
    for code in CODES:
        if is_in(chr(code)):
            if found and found[-1][1] == code - 1:
                found[-1] = (found[-1][0], code)
            else:
                found.append((code, code))
    return found


def runs(values: dict[int, int]) -> list[tuple[int, int, int, int]]:
    """(first, last, step, value) of code points of the same value with the same distance, 1 or 2, between them."""
    found = []
    while values:
        first = min(values)
        lasts = {}
        for step in (1, 2):
            lasts[step] = first
            while values.get(lasts[step] + step) == values[first]:
                lasts[step] += step
        step = max(lasts, key=lambda step: lasts[step])
        found.append((first, lasts[step], step, values[first]))
        values = {code: value for code, value in values.items() if code not in range(first, lasts[step] + 1, step)}
    return sorted(found)


def _span(first: int, last: int, step: int = 1) -> str:
    return f"{first:x}" if first == last else f"{first:x}-{last:x}" + (f"/{step}" if step > 1 else "")


def _has_accent(character: str) -> bool:
    return any(unicodedata.category(part) == "Mn" for part in unicodedata.normalize("NFD", character))


CLASSES = {
    "DROPPED": ("categories Cc and Cf", lambda c: unicodedata.category(c) in ("Cc", "Cf")),
    "PUNCTUATION": ("categories P*", lambda c: unicodedata.category(c)[0] == "P"),
    "MARKS": ("category Mn", lambda c: unicodedata.category(c) == "Mn"),
    "ACCENTED": ("whose canonical decomposition (NFD) has a mark; marks are so themselves", _has_accent),
    "SPACES": ("`str.isspace`, which is what `str.split`, `str.strip` and `\\\\s` take", str.isspace),
    "DECIMALS": ("`str.isdecimal`, which is `\\\\d`", str.isdecimal),
    "UNASSIGNED": ("category Cn", lambda c: unicodedata.category(c) == "Cn"),
    "LETTERS": (
        "`str.isalnum` without the decimals; with them and `_`, `\\\\w`",
        lambda c: c.isalnum() and not c.isdecimal(),
    ),
}


def table() -> str:
    parts = [HEAD]

    def add(name, comment, items):
        lines = textwrap.wrap(" ".join(items), 120, break_on_hyphens=False)
        parts.append("\n".join([f"# {comment[0].upper()}{comment[1:]}.", f'{name} = """', *lines, '"""', ""]))

    for name, (comment, is_in) in CLASSES.items():
        add(name, comment.replace("\\\\", "\\"), [_span(first, last) for first, last in ranges(is_in)])
    lower = {code: ord(chr(code).lower()) - code for code in CODES if len(chr(code).lower()) == 1}
    lower = {code: distance for code, distance in lower.items() if distance}
    comment = "`str.lower` of one character, where it is another one: `first-last/step+distance`"
    add("LOWER", comment, [f"{_span(*run)}{distance:+d}" for *run, distance in runs(lower)])
    combining = {code: unicodedata.combining(chr(code)) for code in CODES}
    combining = {code: number for code, number in combining.items() if number}
    comment = "Canonical combining classes other than 0: `first-last/step+class`"
    add("COMBINING", comment, [f"{_span(*run)}{number:+d}" for *run, number in runs(combining)])
    return "\n".join(parts)


if __name__ == "__main__":
    if unicodedata.unidata_version != VERSION:
        sys.exit(f"the table is that of Unicode {VERSION}. This Python has {unicodedata.unidata_version}")
    PATH.write_text(table(), encoding="ascii")
