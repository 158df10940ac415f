"""The vocabulary beside a checkpoint, and whether it is of lower-cased text."""

import os
import pathlib
from collections.abc import Sequence

from model.checkpoints.configs import write_whole
from preprocessing.characters import is_uncased
from preprocessing.errors import InputError

VOCAB = "vocab.txt"


def read_vocab(path: pathlib.Path) -> list[str]:
    """Tokens of a vocab.txt, one per line; only newline ends a line. A byte order mark, Windows line ends and blank
    lines at the end are read over."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as UTF-8 text: {error}") from error
    return text.rstrip("\r\n").replace("\r\n", "\n").split("\n")


def infer_lower_case(tokens: Sequence[str] | None) -> bool | None:
    """Whether a vocabulary is of lower-cased text: no ordinary token has a capital or an accent. None without one."""
    if tokens is None:
        return None
    ordinary = (token for token in tokens if token[:1] + token[-1:] not in ("[]", "<>"))  # google's Chinese has <S>
    return all(map(is_uncased, ordinary))


def tokens_of(vocab: str | os.PathLike | Sequence[str] | None, vocab_size: int) -> list[str] | None:
    """The tokens of a vocabulary given as a file or as tokens, none more than the model has embeddings."""
    if vocab is None:
        return None
    tokens = read_vocab(pathlib.Path(vocab)) if isinstance(vocab, str | os.PathLike) else list(vocab)
    if len(tokens) > vocab_size:
        rule = f"the vocabulary must not have more tokens than the model has embeddings ({vocab_size})"
        raise InputError(f"{rule}. Received: {len(tokens)}")
    return tokens


def write_vocab(folder: pathlib.Path, tokens: Sequence[str] | None) -> None:
    if tokens is not None:
        write_whole(folder / VOCAB, "".join(f"{token}\n" for token in tokens))


def vocab_in(folder: pathlib.Path) -> pathlib.Path | None:
    """The vocab.txt of a folder, or None."""
    path = folder / VOCAB
    return path if path.is_file() else None


def stated_or_inferred(lower_case: object, vocab_file: pathlib.Path | None) -> bool | None:
    """`lower_case` where a configuration states it, else what the vocabulary tells."""
    if isinstance(lower_case, bool):
        return lower_case
    return infer_lower_case(read_vocab(vocab_file)) if vocab_file else None
