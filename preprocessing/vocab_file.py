"""A vocabulary as a file, taken as google and Hugging Face take it: a token a line, the line's number (from 0) its id.

The last of several equal lines counts, an empty line is an id that is never given, and no way out may move a line.
"""

import os
import re
from collections.abc import Iterable, Mapping, Sequence

from preprocessing.characters import is_uncased
from preprocessing.errors import InputError
from preprocessing.features import CLS, SEP, SPECIAL_TOKENS, UNK
from preprocessing.storage import read, write_whole


def with_usual_names(tokens: Sequence[str], names: Mapping[str, str] | None = None) -> list[str]:
    """The vocabulary with the special tokens under BERT's names. `names` says what they are called instead, by the
    usual name; any may stand there in small letters. No id changes."""
    tokens = list(tokens)
    for usual in SPECIAL_TOKENS:
        actual = (names or {}).get(usual, usual)
        actual = actual if actual in tokens else actual.lower()
        if actual != usual and actual in tokens:
            place = len(tokens) - 1 - tokens[::-1].index(actual)
            tokens = ["" if token == usual else token for token in tokens]
            tokens[place] = usual
    return tokens


def ids(tokens: Sequence[str]) -> dict[str, int]:
    """Token -> id, of the tokens that can be given."""
    return {token: number for number, token in enumerate(tokens) if token}


def infer_lower_case(tokens: Sequence[str] | None) -> bool | None:
    """Whether a vocabulary is of lower-cased text: no ordinary token has a capital or an accent, or is composed of what
    decomposes (Korean has no capitals, but syllables of letters). None without one."""
    if tokens is None:
        return None
    ordinary = (token for token in tokens if token[:1] + token[-1:] not in ("[]", "<>"))  # google's Chinese has <S>
    return all(is_uncased(token) and not re.search("[\uac00-\ud7a3]", token) for token in ordinary)


def check(tokens: Sequence[str], name: str = "the vocabulary") -> list[str]:
    """The tokens, the special ones under their usual names, if they are a vocabulary. Raises InputError for one that
    lacks a token without which no text can be encoded."""
    tokens = with_usual_names(tokens)
    missing = [token for token in (UNK, CLS, SEP) if token not in tokens]
    if missing:
        raise InputError(
            f"{name}: a vocabulary has one token per line, these among them. Missing: {', '.join(missing)}; write each "
            "on the line of a token that is not used, so that no id changes"
        )
    return tokens


def load(path: str | os.PathLike) -> list[str]:
    """Reads a vocabulary: UTF-8, a token per line, the line number (from 0) is the id. A byte order mark, Windows
    line ends and blanks around a token are read over. Raises InputError naming file and line."""
    name = os.fspath(path)
    try:
        data = read(name)
    except IsADirectoryError as error:
        raise InputError(f"{name}: a vocabulary is a file (vocab.txt). Received a folder") from error
    except OSError as error:
        raise InputError(f"{name}: the vocabulary cannot be read ({error.strerror or error})") from error
    tokens = []
    # Not str.splitlines: the Chinese vocabulary has U+2028 as a token.
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        try:
            tokens.append(line.strip(b" \t\r").decode())
        except UnicodeDecodeError as error:
            raise InputError(f"{name}:{number}: a vocabulary is UTF-8 text. Received: {line[:40]!r}") from error
    while tokens and not tokens[-1]:
        tokens.pop()
    return check(tokens, name)


def save(tokens: Iterable[str], path: str | os.PathLike) -> None:
    """Writes a vocabulary file whole or not at all. Raises InputError where it cannot be written."""
    write_whole("".join(f"{token}\n" for token in check(list(tokens))), path)
