"""google-research/bert's tokenization in plain Python, written from its description: the measure for ours.

Every character carries the index of the original character it comes from, so that spans can be stated too. What
characters are is frozen for it as for ours; `test_characters.py` holds the table to the Python that has that version.
"""

import functools
import unicodedata

from preprocessing import characters, unicode_table

CHINESE_RANGES = (
    ("\u4e00", "\u9fff"),
    ("\u3400", "\u4dbf"),
    ("\U00020000", "\U0002a6df"),
    ("\U0002a700", "\U0002b73f"),
    ("\U0002b740", "\U0002b81f"),
    ("\U0002b820", "\U0002ceaf"),
    ("\uf900", "\ufaff"),
    ("\U0002f800", "\U0002fa1f"),
)
NEVER_ASSIGNED, MARK = "\uffff", "\u0300"
CHANGED = "\u1734"  # a mark in Unicode 13, none since


@functools.cache
def members(*tables):
    return frozenset(chr(code) for table in tables for a, b in characters.ranges(table) for code in range(a, b + 1))


def is_dropped(character):
    if character in "\t\n\r":
        return False
    return character == "\ufffd" or character in members(unicode_table.DROPPED)


def is_chinese(character):
    return any(first <= character <= last for first, last in CHINESE_RANGES)


def is_punctuation(character):
    if character.isascii():
        return character.isprintable() and not character.isalnum() and character != " "
    return character in members(unicode_table.PUNCTUATION)


def split_words(text, lower_case):
    """List of words; a word is a list of (character, index in the text)."""
    words, word = [], []
    for index, character in enumerate(text):
        if is_dropped(character):
            continue
        if is_chinese(character):
            words += [word, [(character, index)]]
            word = []
        elif character.isspace():
            words.append(word)
            word = []
        else:
            word.append((character, index))
    words.append(word)
    return [piece for word in words if word for piece in split_punctuation(fold(word) if lower_case else word)]


def fold(word):
    """Lower case, NFD, no marks. Each step is done on the whole word; the origin of a character follows from doing it
    on one character, in whose stead the k-th character keeps the k-th origin where canonical ordering swaps marks."""
    lowered = lower("".join(character for character, _ in word))
    origins = [index for character, index in word for _ in lower(character)]
    assert len(lowered) == len(origins)
    decomposed = unicodedata.normalize("NFD", lowered)
    origins = [
        i for c, i in zip(lowered, origins, strict=True) for d in unicodedata.normalize("NFD", c) if not is_mark(d)
    ]
    return list(zip([c for c in decomposed if not is_mark(c)], origins, strict=True))


def lower(text):
    """`str.lower` of the table's version: letters that came later have no case, and are none to a sigma beside them;
    U+1734 is a mark, which it looks past."""
    hidden = [c for c in text if c in members(unicode_table.UNASSIGNED) or c in (CHANGED, MARK)]
    if not hidden:
        return text.lower()
    given = iter(hidden)
    shown = text.translate(str.maketrans({c: MARK if c in (CHANGED, MARK) else NEVER_ASSIGNED for c in hidden}))
    return "".join(next(given) if c in (MARK, NEVER_ASSIGNED) else c for c in shown.lower())


def is_mark(character):
    return character in members(unicode_table.MARKS)


def split_punctuation(word):
    pieces, current = [], []
    for character, index in word:
        if is_punctuation(character):
            pieces += [current, [(character, index)]]
            current = []
        else:
            current.append((character, index))
    return [piece for piece in [*pieces, current] if piece]


def wordpiece(word, ids):
    """List of (id, first, last): the longest piece that the vocabulary knows, again and again, or [UNK]."""
    unknown = [(ids["[UNK]"], 0, len(word) - 1)]
    if len(word) > 200:
        return unknown
    pieces, start = [], 0
    while start < len(word):
        for end in range(len(word), start, -1):
            piece = ("##" if start else "") + word[start:end]
            if piece in ids:
                pieces.append((ids[piece], start, end - 1))
                break
        else:
            return unknown
        start = end
    return pieces


def tokenize_with_spans(text, ids, lower_case):
    """List of (id, first character, character behind the last), in characters of the original text."""
    result = []
    for word in split_words(text, lower_case):
        for token, first, last in wordpiece("".join(character for character, _ in word), ids):
            end = word[last][1] + 1
            while lower_case and end < len(text) and is_mark(text[end]):
                end += 1
            result.append((token, word[first][1], end))
    return result


def tokenize(text, ids, lower_case):
    return [token for token, _, _ in tokenize_with_spans(text, ids, lower_case)]
