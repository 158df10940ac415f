"""Pushing a model into the folder that servers read; `pipeline.history.pushed` has the record of what is there."""

import os
import time
from typing import Any

from tfx.dsl.io import fileio
from tfx.utils import io_utils

from pipeline.history import labels, parents, pushed


def push(model: str, serving: str) -> str | None:
    """Makes a model the newest version of those that were not rolled back, if it is not; gives its folder. None where
    it was rolled back itself, or is outdated.

    Version numbers are seconds since 1970, and ever higher: a clock that was set back does not hide a model.
    """
    name = pushed.own_identity(model)
    with pushed.changing(serving) as record:
        there = pushed.versions(serving)
        newest = _newest(there, record)
        if not newest or pushed.identity(there[newest]) != name:
            if name in pushed.rolled_back(record) or _is_outdated(model, there.get(newest, "")):
                return None
            known = (*there, *map(int, record["versions"]))
            newest = max(max(known, default=0) + 1, int(time.time()))
            there[newest] = os.path.join(serving, str(newest))
            _copy(model, there[newest])
        record["versions"][str(newest)] = {"model": name, "from": model}
        labels.take_up_newest(serving, record)
    return there[newest]


def find(model: str, serving: str) -> str | None:
    """Folder of the newest version that is this model, if it was pushed and not rolled back."""
    name = pushed.own_identity(model)
    found = [number for number, path in pushed.versions(serving).items() if pushed.identity(path) == name]
    return os.path.join(serving, str(max(found))) if found and not is_rolled_back(model, serving) else None


def is_rolled_back(model: str, serving: str) -> bool:
    """Of a model that `push` did not take why: else it is outdated."""
    return pushed.own_identity(model) in pushed.rolled_back(pushed.read(serving))


def _is_outdated(model: str, newest: str) -> bool:
    """Whether a model of data in spans ends at one before the last of the newest version: the model of a day that is
    made late does not take the place of a later day's."""
    own, served = (parents.read(folder).get("spans") for folder in (model, newest))
    return bool(own and served and max(own) < max(served))


def _newest(there: dict[int, str], record: dict[str, Any]) -> int:
    back = labels.rolled_back_numbers(record)
    return max((number for number in there if str(number) not in back), default=0)


def _copy(model: str, folder: str) -> None:
    """No server takes up what is not whole: locally the folder gets its name last, elsewhere `saved_model.pb` comes
    last."""
    if "://" in folder:
        io_utils.copy_dir(model, folder, deny_regex_patterns=[r"saved_model\.pb"])
        io_utils.copy_file(os.path.join(model, "saved_model.pb"), os.path.join(folder, "saved_model.pb"))
        return
    partial = os.path.join(os.path.dirname(folder), f".{os.path.basename(folder)}")
    if fileio.exists(partial):  # of a run that was killed
        fileio.rmtree(partial)
    io_utils.copy_dir(model, partial)
    fileio.rename(partial, folder)
