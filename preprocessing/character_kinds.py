"""Of what kind a character is: its script where it is a letter, else digit, space, punctuation or symbol; and outlines
of texts, which keep no more than that.

By one version of Unicode for letters, digits, spaces and punctuation (see `preprocessing.characters`), and by Unicode's
blocks for scripts.
"""

import bisect
import functools

from preprocessing import characters, unicode_table
from preprocessing.features import MASK

# By the blocks in which a script's letters lie, ascending, and the letter that stands for all of them in an outline.
_SCRIPTS = (
    ("latin", "x", ((0x41, 0x5A), (0x61, 0x7A), (0xAA, 0xAA), (0xBA, 0xBA), (0xC0, 0xD6), (0xD8, 0xF6),
                    (0xF8, 0x24F), (0x1E00, 0x1EFF), (0xFF21, 0xFF5A))),
    ("greek", "ω", ((0x370, 0x3FF), (0x1F00, 0x1FFF))),
    ("cyrillic", "ж", ((0x400, 0x52F),)),
    ("hebrew", "א", ((0x590, 0x5FF),)),
    ("arabic", "ع", ((0x600, 0x77F), (0x8A0, 0x8FF), (0xFB50, 0xFEFC))),
    ("indic", "अ", ((0x900, 0xDFF),)),
    ("thai", "ก", ((0xE00, 0xE7F),)),
    ("kana", "か", ((0x3040, 0x30FF),)),
    ("hangul", "가", ((0x1100, 0x11FF), (0x3130, 0x318F), (0xAC00, 0xD7A3))),
    ("han", "字", ((0x2E80, 0x2FDF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF))),
)  # fmt: skip
_OTHERS = {"space": " ", "digit": "0", "punctuation": ".", "letter": "ა", "symbol": "¤"}  # letter: of another script
_SIGNS = {name: sign for name, sign, _ in _SCRIPTS} | _OTHERS
KINDS = tuple(_SIGNS)


_Table = tuple[list[int], list[tuple[int, int, str]]]  # first code points, and (first, last, kind); none overlap


@functools.cache
def _tables() -> tuple[_Table, ...]:
    """What is asked in turn: spaces, digits and punctuation, that stand within blocks; blocks; letters elsewhere."""
    classes = (
        (
            ("space", unicode_table.SPACES),
            ("digit", unicode_table.DECIMALS),
            ("punctuation", unicode_table.PUNCTUATION),
        ),
        (("letter", unicode_table.LETTERS), ("letter", unicode_table.MARKS)),
    )
    signs, letters = ([(*span, name) for name, table in part for span in characters.ranges(table)] for part in classes)
    blocks = [(*span, name) for name, _, spans in _SCRIPTS for span in spans]
    return tuple(([span[0] for span in sorted(part)], sorted(part)) for part in (signs, blocks, letters))


@functools.lru_cache(maxsize=1 << 16)
def kind(character: str) -> str:
    """One of KINDS."""
    code = ord(character)
    for firsts, spans in _tables():
        place = bisect.bisect_right(firsts, code) - 1
        if place >= 0 and code <= spans[place][1]:
            return spans[place][2]
    return "symbol"


def sample(text: str, most: int = 100) -> list[str]:
    """The kinds of `most` characters of a text, evenly spaced; of all where it has no more."""
    step = max(1, -(-len(text) // most))
    return [kind(character) for character in text[::step]]


class _Signs(dict):
    def __missing__(self, code: int) -> str:
        sign = _SIGNS[kind(chr(code))]
        if len(self) < 1 << 16:
            self[code] = sign
        return sign


_signs = _Signs()


def outline(text: str) -> str:
    """The text with each character replaced by a sign for its kind, so that its length, its words and their scripts
    are left of it, and nothing that it says; [MASK] stays, as models look for it. The outline of an outline is itself.

    `Paris, 2024: ça va` -> `xxxxx. 0000. xx xx`
    """
    return MASK.join(part.translate(_signs) for part in text.split(MASK))
