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
            if name in pushed.rolled_back(record) or is_outdated(model, serving):
                return None
            known = (*there, *map(int, record["versions"]))
            newest = max(max(known, default=0) + 1, int(time.time()))
            there[newest] = os.path.join(serving, str(newest))
            _copy(model, there[newest])
        record["versions"][str(newest)] = {"model": name, "from": model}
        labels.take_up_newest(serving, record)
    return there[newest]


def find(model: str, serving: str) -> str | None:
    """The newest version that is this model."""
    name = pushed.own_identity(model)
    return next(
        (path for _, path in sorted(pushed.versions(serving).items())[::-1] if pushed.identity(path) == name), None
    )


def is_outdated(model: str, serving: str) -> bool:
    """Whether a model of data in spans ends at one before the last of the newest version that was not rolled back: the
    model of a day that is made late does not take the place of a later day's."""
    there = pushed.versions(serving)
    newest = _newest(there, pushed.read(serving))
    own, served = (parents.read(folder).get("spans") for folder in (model, there.get(newest, "")))
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
