import json
import pathlib
import shutil
import subprocess
import sys
import unicodedata

import pytest

from preprocessing import unicode_table
from preprocessing.characters import is_uncased
from preprocessing.corpus import sentences
from tests import data
from tests.golden import make_unicode_table
from tests.preprocessing.tokenizer.google_reference import members, split_words

DIGEST = "fd9679029cdbcea68586e321c6aae989a0e13b779791f11dcb9481036384204d"  # what every Python has to print
CHANGED = 0x1734  # a mark in Unicode 13 and before, and none later


def pythons() -> list:
    """Those of this machine that the project supports."""
    parameters = []
    installed = sorted(pathlib.Path("~/.pyenv/versions").expanduser().glob("3.*/bin"))
    for version in ("3.10", "3.11", "3.12", "3.13"):
        places = [None, *(str(folder) for folder in installed if folder.parent.name.startswith(version))]
        found = filter(None, (shutil.which(f"python{version}", path=place) for place in places))
        works = [path for path in found if subprocess.run([path, "-c", ""], capture_output=True).returncode == 0]
        skip = [] if works else [pytest.mark.skip(f"no Python {version} here")]
        parameters.append(pytest.param(*works[:1] or [None], id=version, marks=[*skip, pytest.mark.long]))
    return parameters


def check(python, *arguments):
    """Runs `every_character.py`. What a Python says otherwise than the table is said of characters that came later."""
    command = [python, "-m", "tests.preprocessing.tokenizer.every_character", *arguments]
    answer = json.loads(subprocess.run(command, capture_output=True, text=True, check=True, cwd=data.ROOT).stdout)
    otherwise = answer["differing"]
    assert otherwise["SPACES"] == []
    found = {code for codes in otherwise.values() for code in codes}
    assert bool(found) is (answer["version"] != unicode_table.VERSION)
    assert {code for code in found if chr(code) not in members(unicode_table.UNASSIGNED)} <= {CHANGED}
    return answer


def test_the_table_is_right():
    check(sys.executable)
    if unicodedata.unidata_version == unicode_table.VERSION:
        assert make_unicode_table.table() == make_unicode_table.PATH.read_text()


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("python", pythons())
def test_every_python_makes_the_same_of_every_character(python):
    assert check(python, "--digest")["digest"] == DIGEST


@pytest.mark.parametrize("later", ["\U00010570", "\U0001e4d0", "\U00031350"], ids=["14", "15", "15.1"])
def test_letters_of_later_versions_are_none(later):
    """Nothing is known of them: no initial that belongs to the next sentence, no part of a word before a full stop."""
    assert sentences.split(f"{later}.\nFoo") == [f"{later}.", "Foo"]
    assert sentences.split(f"{later}bzw. Foo", "de") == [f"{later}bzw. Foo"]
    assert is_uncased(later)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", True), ("straße 中 각", True), ("Aber", False), ("é", False), ("e\u0301", False), ("İ", False),
        ("Σ", False), ("ς", True), ("ǅ", False), ("Ⓐ", False), ("ɐ 1 _ ½", True), ("\U0001e943", True),
        ("\U0001e921", False), ("\u1734", False),
    ],
)  # fmt: skip
def test_is_uncased(text, expected):
    assert is_uncased(text) is expected


def test_a_letter_that_came_later_is_not_lowered():
    assert split_words("\u2c2f\ua7c0A", lower_case=True) == [[("\u2c2f", 0), ("\ua7c0", 1), ("a", 2)]]
