"""Folders of sentence-transformers: a chain of modules, the first a Hugging Face folder, then what makes one vector of
a text."""

import dataclasses
import json
import pathlib
from collections.abc import Sequence

from model.checkpoints.configs import read_json, write_json, write_whole
from preprocessing.errors import InputError

MODULES, LENGTH, PROMPTS = "modules.json", "sentence_bert_config.json", "config_sentence_transformers.json"
# Its names of poolings (`pooling_mode_...` each) -> ours.
POOLINGS = {"cls_token": "cls", "mean_tokens": "mean", "max_tokens": "max", "cls": "cls", "mean": "mean", "max": "max"}


@dataclasses.dataclass(frozen=True)
class Sentences:
    """How such a folder makes one vector of a text.

    Attributes:
        pooling: "mean", "cls", "max"; None for one that is not known here.
        unit_length: whether vectors are divided by their length.
        max_seq_length: tokens that texts are cut to, if it says so.
        unlike: what it asks for and is not done here, in lines that begin with the file.
        whole: whether its vectors can be made here.
    """

    pooling: str | None
    unit_length: bool
    max_seq_length: int | None
    unlike: Sequence[str]
    whole: bool


def transformer_in(folder: pathlib.Path) -> pathlib.Path:
    """The folder of the first module, which may be the folder itself; that too where there are no modules."""
    modules = _modules(folder)
    return folder / modules[0][1] if modules else folder


def read(folder: pathlib.Path) -> Sentences | None:
    """None where the folder has no modules. Raises InputError for files that cannot be read."""
    modules = _modules(folder)
    if not modules:
        return None
    pooling, unit_length, unlike = None, False, list[str]()
    for kind, path in modules[1:]:
        if kind == "Pooling":
            pooling = _pooling(folder / path / "config.json", unlike)
        elif kind == "Normalize":
            unit_length = True
        else:
            unlike.append(f"{folder / MODULES}: its module {kind} ({path}) is left out")
    whole = pooling is not None and not unlike
    inner = transformer_in(folder)
    stated = read_json(inner / LENGTH) if (inner / LENGTH).is_file() else {}
    prompts = read_json(folder / PROMPTS) if (folder / PROMPTS).is_file() else {}
    if (prompt := prompts.get("default_prompt_name")) is not None:
        unlike.append(f"{folder / PROMPTS}: its prompt {prompt!r} is not put before a text")
    if stated.get("do_lower_case") is True:
        unlike.append(f"{inner / LENGTH}: do_lower_case is passed over; the tokenizer's own rule counts")
    length = stated.get("max_seq_length")
    return Sentences(pooling, unit_length, length if type(length) is int else None, unlike, whole)


def write(folder: pathlib.Path, said: Sentences, hidden: int) -> None:
    """Beside a checkpoint whose vectors have so many numbers, and are to be made as is `said`."""
    normalize = [("2_Normalize", "Normalize")] if said.unit_length else []
    modules = [
        {"idx": place, "name": str(place), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for place, (path, kind) in enumerate([("", "Transformer"), ("1_Pooling", "Pooling"), *normalize])
    ]
    (folder / "1_Pooling").mkdir()
    poolings = {f"pooling_mode_{name}": POOLINGS[name] == said.pooling for name in POOLINGS if "_" in name}
    write_json(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": hidden, **poolings})
    if said.max_seq_length is not None:
        write_json(folder / LENGTH, {"max_seq_length": said.max_seq_length, "do_lower_case": False})
    write_whole(folder / MODULES, json.dumps(modules, indent=2) + "\n")


def _modules(folder: pathlib.Path) -> list[tuple[str, str]]:
    """(kind, folder inside) of each module, in order."""
    path = folder / MODULES
    if not path.is_file():
        return []
    # A list, which no other configuration is.
    modules = read_json(path, list)
    try:
        ordered = sorted(modules, key=lambda module: module["idx"])
        return [(module["type"].rpartition(".")[2], module["path"]) for module in ordered]
    except (TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{path}: each module must have an idx, a type and a path. Received: {modules!r}") from error


def _pooling(path: pathlib.Path, unlike: list[str]) -> str | None:
    config = read_json(path)
    modes = [key.removeprefix("pooling_mode_") for key, on in config.items() if on is True]
    modes = [mode for mode in modes if f"pooling_mode_{mode}" in config]
    if isinstance(config.get("pooling_mode"), str):  # of its later versions
        modes = [config["pooling_mode"]]
    if len(modes) == 1 and modes[0] in POOLINGS:
        return POOLINGS[modes[0]]
    unlike.append(f"{path}: the pooling must be one of {', '.join(POOLINGS)}. Received: {', '.join(modes) or 'none'}")
    return None
