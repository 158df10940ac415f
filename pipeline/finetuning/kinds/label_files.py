"""Labels, and weights of them, as a user gives them: in a file, or on the command line."""

import os
import pathlib
from collections.abc import Sequence

from preprocessing.errors import InputError, require


def declared(labels: str | None) -> list[str] | None:
    """Those of a file, one a line, or of a text with commas between them."""
    if labels is None:
        return None
    found = [line for line in _lines(labels) if line] if os.path.isfile(labels) else labels.split(",")
    require(len(set(found)) == len(found) and all(found), "--labels must be texts that differ", found)
    return found


def class_weights(said: str | None, labels: Sequence[str], balanced: tuple[float, ...]) -> tuple[float, ...]:
    """Those that `--class-weights` means: of a file, or the `balanced` ones; () without it."""
    if said is None:
        return ()
    return balanced if said == "balanced" else weights(said, labels)


def weights(path: str, labels: Sequence[str]) -> tuple[float, ...]:
    """Of each label, from a file of lines `label TAB weight`."""
    if not os.path.isfile(path):
        raise InputError(f"class weights must be balanced or a file of lines `label TAB weight`. Received: {path!r}")
    found: dict[str, float] = {}
    for number, line in enumerate(_lines(path), 1):
        label, _, weight = line.rpartition("\t")
        try:
            found[label] = float(weight)
        except ValueError as error:
            raise InputError(f"{path}:{number}: a line must be `label TAB weight`. Received: {line!r}") from error
        require(label in labels, f"{path}:{number}: a weight must be of one of the labels", label)
    missing = [label for label in labels if label not in found]
    require(not missing, f"{path}: each label needs a weight", missing)
    return tuple(found[label] for label in labels)


def _lines(path: str) -> list[str]:
    """Of a UTF-8 file, without blank ones at its end."""
    try:
        text = pathlib.Path(path).read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as UTF-8 text: {error}") from error
    return text.rstrip("\r\n").replace("\r\n", "\n").split("\n")
