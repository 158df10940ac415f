"""Prints, as JSON, what the Python that runs it makes of every character: run by `test_characters.py` with each Python
that is at hand, and needs the standard library alone."""

import hashlib
import json
import sys
import unicodedata

from preprocessing import unicode_table
from preprocessing.characters import is_uncased, numbers
from tests.golden.make_unicode_table import CLASSES, CODES
from tests.preprocessing.tokenizer import google_reference


def differing() -> dict[str, list[int]]:
    """Code points of which this Python says something else than the table."""
    found = {}
    for name, (_, is_in) in CLASSES.items():
        members = google_reference.members(getattr(unicode_table, name))
        found[name] = [code for code in CODES if is_in(chr(code)) != (chr(code) in members)]
    lower, combining = numbers(unicode_table.LOWER), numbers(unicode_table.COMBINING)
    found["LOWER"] = [c for c in CODES if chr(c).lower() != chr(c + lower.get(c, 0)) and c != 0x130]
    found["COMBINING"] = [c for c in CODES if unicodedata.combining(chr(c)) != combining.get(c, 0)]
    return found


def digest() -> str:
    """Of the words that a tokenizer finds in texts of every character, and of which are those of uncased text."""
    hashed = hashlib.sha256()
    for code in CODES:
        folded = google_reference.split_words(f"a{chr(code)}Σ {chr(code)}", lower_case=True)
        kept = google_reference.split_words(f"a{chr(code)}", lower_case=False)
        hashed.update(str([[ascii(c) for c, _ in word] for word in folded + kept]).encode())
        hashed.update(b"%d" % is_uncased(chr(code)))
    return hashed.hexdigest()


if __name__ == "__main__":
    answer = {"version": unicodedata.unidata_version, "differing": differing()}
    print(json.dumps(answer | ({"digest": digest()} if "--digest" in sys.argv else {})))
