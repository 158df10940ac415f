"""The model that a run over spans of data goes on from: that which was pushed last of earlier spans.

A model that is pushed has a card, `assets.extra/training.json`: the `spans` that it was trained on, the `checkpoint` of
its weights, and that which it began with itself. By the spans, and not by time, so that a run that is repeated goes on
from the same model, and is answered from the cache.
"""

import dataclasses
import json
import os
from typing import Any

from pipeline.history import pushed
from preprocessing import storage
from preprocessing.errors import InputError

CARD = os.path.join("assets.extra", "training.json")


@dataclasses.dataclass(frozen=True)
class Parent:
    version: int
    vocabulary: str  # its file
    checkpoint: str


def find(serving: str, span: int) -> Parent | None:
    """The version with the highest number of those that were trained on spans before this one alone, and not rolled
    back."""
    back = pushed.rolled_back(pushed.read(serving))
    for number, folder in sorted(pushed.versions(serving).items(), reverse=True):
        card = read(folder)
        if card.get("spans") and max(card["spans"]) < span and pushed.identity(folder) not in back:
            return Parent(number, os.path.join(folder, "assets", "vocab.txt"), card["checkpoint"])
    return None


def newest_checkpoint(serving: str) -> str | None:
    """The weights of the newest version that was not rolled back, if they are still there."""
    back = pushed.rolled_back(pushed.read(serving))
    for _, folder in sorted(pushed.versions(serving).items(), reverse=True):
        if pushed.identity(folder) not in back:
            found = read(folder).get("checkpoint")
            return found if found and (storage.is_remote(found) or os.path.exists(found)) else None
    return None


def checkpoint_of(path: str) -> str:
    """What a person means by a checkpoint: itself, or of a folder that models were pushed to, or of one of them, the
    weights that it was made with. Raises InputError where those are gone."""
    if pushed.versions(path):
        found = newest_checkpoint(path)
    elif "checkpoint" in (card := read(path)):
        found = card["checkpoint"]
        found = found if found and os.path.exists(found) else None
    else:
        return path
    if found is None:
        raise InputError(f"{path}: the checkpoint that this was made with must be there. Received: none, or it is gone")
    return found


def read(model: str) -> dict[str, Any]:
    """The card of a model; empty where it has none."""
    try:
        return json.loads(storage.read(os.path.join(model, CARD)))
    except (OSError, ValueError):
        return {}


def write(model: str, **card: Any) -> None:
    storage.write_whole(json.dumps(card, indent=2) + "\n", os.path.join(model, CARD))
