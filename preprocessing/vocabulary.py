"""WordPiece vocabularies: learning, the file and its checks."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence

import tensorflow as tf

from preprocessing import wordpiece_learning
from preprocessing.errors import InputError
from preprocessing.features import SPECIAL_TOKENS
from preprocessing.settings import VocabularySettings


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
    """Reads a vocabulary: UTF-8, a token per line, the line number (from 0) is the id. A byte order mark and Windows
    line ends are read over. Raises InputError naming file and line."""
    name = os.fspath(path)
    try:
        if tf.io.gfile.isdir(name):
            raise InputError(f"{name}: a vocabulary is a file (vocab.txt). Received a folder")
        with tf.io.gfile.GFile(name, "rb") as file:
            data = file.read()
    except (OSError, tf.errors.OpError) as error:
        reason = error.message if isinstance(error, tf.errors.OpError) else error.strerror
        raise InputError(f"{name}: the vocabulary cannot be read ({reason})") from error
    tokens = []
    # Not str.splitlines: the Chinese vocabulary has U+2028 as a token.
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        try:
            tokens.append(line.removesuffix(b"\r").decode())
        except UnicodeDecodeError as error:
            raise InputError(f"{name}:{number}: a vocabulary is UTF-8 text. Received: {line[:40]!r}") from error
    while tokens and not tokens[-1]:
        tokens.pop()
    return check(tokens, name)


def save(tokens: Iterable[str], path: str | os.PathLike) -> None:
    """Writes a vocabulary file whole or not at all. Raises InputError where it cannot be written."""
    write_whole("".join(f"{token}\n" for token in check(list(tokens))), path)


def write_whole(text: str, path: str | os.PathLike) -> None:
    """Writes a text file under another name and then renames it, so that no half-written file has the name."""
    name = os.fspath(path)
    scratch = f"{name}.{os.getpid()}.tmp"
    try:
        with tf.io.gfile.GFile(scratch, "w") as file:
            file.write(text)
        tf.io.gfile.rename(scratch, name, overwrite=True)
    except (OSError, tf.errors.OpError) as error:
        if tf.io.gfile.exists(scratch):
            tf.io.gfile.remove(scratch)
        reason = error.message if isinstance(error, tf.errors.OpError) else error.strerror
        raise InputError(f"{name}: cannot be written ({reason})") from error


def learn(
    counts: Mapping[str, int], settings: VocabularySettings, report: Callable[[int], None] = lambda _: None
) -> list[str]:
    """Vocabulary of exactly `settings.size` tokens: the special ones, the alphabet, merged pieces; and, where the words
    give no more pieces, `[unused1]` and so on. The same for the same counts, in whatever order they come."""
    room = settings.size - len(SPECIAL_TOKENS)
    words = wordpiece_learning.choose_words(counts)
    if not words:
        raise InputError("a vocabulary needs words to learn from. Received: none; is the input text?")
    alphabet = wordpiece_learning.choose_alphabet(words, room)
    pieces = wordpiece_learning.merge_pairs(words, alphabet, room, report)
    unused = [f"[unused{number}]" for number in range(1, room - len(pieces) + 1)]
    return check([*SPECIAL_TOKENS, *pieces, *unused], "the learned vocabulary")
