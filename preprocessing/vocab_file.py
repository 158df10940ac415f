"""A vocabulary as a file: one token a line, the line's number its id."""

import os
from collections.abc import Iterable, Sequence

from preprocessing.errors import InputError
from preprocessing.features import SPECIAL_TOKENS
from preprocessing.storage import read, write_whole


def check(tokens: Sequence[str], name: str = "the vocabulary") -> list[str]:
    """The tokens, if they are a vocabulary: no empty token, none twice, all special tokens. Raises InputError."""
    lines: dict[str, int] = {}
    for number, token in enumerate(tokens, 1):
        if not token:
            raise InputError(f"{name}:{number}: empty token; a vocabulary has one token per line")
        if token in lines:
            raise InputError(f"{name}:{number}: token {token!r} stands on line {lines[token]} already; remove one")
        lines[token] = number
    missing = [token for token in SPECIAL_TOKENS if token not in lines]
    if missing:
        raise InputError(
            f"{name}: a vocabulary needs the special tokens. Missing: {', '.join(missing)}; add a line each"
        )
    return list(tokens)


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
