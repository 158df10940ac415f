"""WordPiece vocabularies: learning, the file and its checks."""

import contextlib
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence

from preprocessing.errors import InputError
from preprocessing.features import CLS, SEP, SPECIAL_TOKENS, UNK
from preprocessing.settings import VocabularySettings
from preprocessing.storage import is_remote
from preprocessing.vocab_file import with_usual_names
from preprocessing.vocabulary import merging


def check(tokens: Sequence[str], name: str = "the vocabulary") -> list[str]:
    """The tokens, the special ones under their usual names, if they are a vocabulary. Raises InputError for one that
    lacks a token without which no text can be encoded."""
    tokens = with_usual_names(tokens)
    missing = [token for token in (UNK, CLS, SEP) if token not in tokens]
    if missing:
        raise InputError(
            f"{name}: a vocabulary has one token per line, these among them. Missing: {', '.join(missing)}; write each on the line "
            "of a token that is not used, so that no id changes"
        )
    return tokens


def load(path: str | os.PathLike) -> list[str]:
    """Reads a vocabulary: UTF-8, a token per line, the line number (from 0) is the id. A byte order mark, Windows
    line ends and blanks around a token are read over; else see `preprocessing.vocab_file`. Raises InputError naming
    file and line."""
    name = os.fspath(path)
    try:
        data = _read(name)
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


def write_whole(text: str, path: str | os.PathLike) -> None:
    """Writes a text file under another name and then renames it, so that no half-written file has the name."""
    name = os.fspath(path)
    scratch = f"{name}.{os.getpid()}.tmp"
    try:
        if is_remote(name):
            with _gfile() as gfile:
                with gfile.GFile(scratch, "w") as file:
                    file.write(text)
                gfile.rename(scratch, name, overwrite=True)
            return
        try:
            pathlib.Path(scratch).write_text(text, "utf-8", newline="")
            os.replace(scratch, name)
        finally:
            pathlib.Path(scratch).unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"{name}: cannot be written ({error.strerror or error})") from error


def _read(name: str) -> bytes:
    """The content of a file, on any filesystem of TensorFlow's. Raises OSError."""
    if not is_remote(name):
        return pathlib.Path(name).read_bytes()
    with _gfile() as gfile:
        if gfile.isdir(name):
            raise IsADirectoryError(name)
        with gfile.GFile(name, "rb") as file:
            return file.read()


@contextlib.contextmanager
def _gfile():
    """TensorFlow's files, their errors as OSError. Imported where needed: it takes seconds."""
    import tensorflow as tf

    try:
        yield tf.io.gfile
    except tf.errors.OpError as error:
        raise OSError(error.message) from error


def learn(
    counts: Mapping[str, int], settings: VocabularySettings, report: Callable[[int], None] = lambda _: None
) -> list[str]:
    """Vocabulary of exactly `settings.size` tokens: the special ones, the alphabet, merged pieces; and, where the words
    give no more pieces, `[unused1]` and so on. The same for the same counts, in whatever order they come."""
    room = settings.size - len(SPECIAL_TOKENS)
    words = merging.choose_words(counts)
    if not words:
        raise InputError("a vocabulary needs words to learn from. Received: none; is the input text?")
    alphabet = merging.choose_alphabet(words, room)
    pieces = merging.merge_pairs(words, alphabet, room, report)
    unused = [f"[unused{number}]" for number in range(1, room - len(pieces) + 1)]
    return check([*SPECIAL_TOKENS, *pieces, *unused], "the learned vocabulary")
