"""The vocabulary file beside a checkpoint."""

import os
import pathlib
from collections.abc import Mapping, Sequence

from model.checkpoints.configs import write_whole
from model.checkpoints.tokenizer_files import CheckpointTokenizer
from preprocessing.errors import InputError
from preprocessing.vocab_file import infer_lower_case, with_usual_names

VOCAB = "vocab.txt"


def read_vocab(path: pathlib.Path) -> list[str]:
    """Tokens of a vocab.txt, one per line; only newline ends a line. A byte order mark, Windows line ends and blank
    lines at the end are read over."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as UTF-8 text: {error}") from error
    return text.rstrip("\r\n").replace("\r\n", "\n").split("\n")


def tokens_of(vocab: str | os.PathLike | Sequence[str] | None, vocab_size: int) -> list[str] | None:
    """The tokens of a vocabulary given as a file or as tokens, none more than the model has embeddings."""
    if vocab is None:
        return None
    tokens = read_vocab(pathlib.Path(vocab)) if isinstance(vocab, str | os.PathLike) else list(vocab)
    tokens = with_usual_names(tokens)
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


def tokenizer_of(vocab_file: pathlib.Path | None, lower_case: object, config: Mapping) -> CheckpointTokenizer:
    """Of a vocabulary file, with `lower_case` where a configuration states it, else as the vocabulary tells."""
    tokens = with_usual_names(read_vocab(vocab_file)) if vocab_file else None
    lower_case = lower_case if isinstance(lower_case, bool) else infer_lower_case(tokens)
    return CheckpointTokenizer(tokens, lower_case).with_stated(config)
