"""The folder that servers read, `<serving>/<version>`, and the record of what was pushed there.

The record, `.pushed.json`, says which model each version was, so that a version which was taken away is known. A model
was **rolled back** where the folder of its version is gone while an older pushed version still stands: someone wanted
that older one served. It is not pushed again, until its folder is put back or the version taken out of the record.
Where nothing of what was pushed is left, the folder was lost, not rolled back; and a version that a newer one had
replaced before it was removed was tidied away. Both may be pushed again.
"""

import hashlib
import json
import os
import time
from typing import Any

from tfx.dsl.io import fileio
from tfx.utils import io_utils

from preprocessing.errors import InputError

RECORD = ".pushed.json"
_FINGERPRINT = "fingerprint.pb"  # of a SavedModel's graph and weights


def versions(serving: str) -> dict[int, str]:
    """Folders of whole models by version number."""
    names = [name.strip("/") for name in fileio.listdir(serving)] if fileio.exists(serving) else []
    folders = {int(n): os.path.join(serving, n) for n in names if n.isascii() and n.isdecimal()}
    return {number: path for number, path in folders.items() if fileio.exists(os.path.join(path, "saved_model.pb"))}


def identity(model: str) -> str | None:
    """What tells a SavedModel from another, in 16 letters; None for a folder that some other program wrote."""
    path = os.path.join(model, _FINGERPRINT)
    if not fileio.exists(path):
        return None
    with fileio.open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()[:16]


def own_identity(model: str) -> str:
    """The same of a model that this pipeline has exported. Raises InputError where it has none."""
    name = identity(model)
    if name is None:
        raise InputError(
            f"{os.path.join(model, _FINGERPRINT)}: a model exported here has a fingerprint. Received: no file; "
            "remove the folder, and the next run exports it anew"
        )
    return name


def newest_checkpoint(serving: str) -> str | None:
    """The checkpoint of the newest model that stands there, by the record of where it came from: of the folders that
    the Trainer's execution wrote, `model/N/Format-Serving` and `model_run/N/model`."""
    there = versions(serving)
    source = _read(serving)["versions"].get(str(max(there, default=0)), {}).get("from")
    if source is None:
        return None
    execution = os.path.dirname(source)
    found = os.path.join(execution, "..", "..", "model_run", os.path.basename(execution), "model")
    return os.path.normpath(found) if fileio.exists(found) else None


def push(model: str, serving: str) -> str | None:
    """Makes a model the newest version, if it is not; gives its folder. None where it was rolled back.

    Version numbers are seconds since 1970, and ever higher: a clock that was set back does not hide a model.
    """
    name, there, record = own_identity(model), versions(serving), _read(serving)
    newest = max(there, default=0)
    if not newest or identity(there[newest]) != name:
        if any(record["versions"][number]["model"] == name for number in record["rolled_back"]):
            _write(serving, record)
            return None
        newest = max(newest + 1, int(time.time()), *(int(number) + 1 for number in record["versions"]))
        there[newest] = os.path.join(serving, str(newest))
        _copy(model, there[newest])
    record["versions"][str(newest)] = {"model": name, "from": model}
    _write(serving, record)
    return there[newest]


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


def _read(serving: str) -> dict[str, Any]:
    """`versions` by number, with the model that each is and where it came from; the numbers `rolled_back`, by this
    moment."""
    path = os.path.join(serving, RECORD)
    record: dict[str, Any] = {"versions": {}, "rolled_back": []}
    if fileio.exists(path):
        try:
            with fileio.open(path) as file:
                record |= json.loads(file.read())
        except ValueError as error:
            raise InputError(f"{path}: not JSON ({error}); remove it, and what was rolled back is forgotten") from None
    there = versions(serving)
    standing = [int(number) for number in record["versions"] if int(number) in there]
    gone = {number for number in record["versions"] if int(number) not in there}
    newly = {number for number in gone if standing and int(number) > max(standing)}
    record["rolled_back"] = sorted((newly | set(record["rolled_back"])) & gone)
    return record


def _write(serving: str, record: dict[str, Any]) -> None:
    io_utils.write_string_file(os.path.join(serving, f"{RECORD}.tmp"), json.dumps(record, indent=2) + "\n")
    fileio.rename(os.path.join(serving, f"{RECORD}.tmp"), os.path.join(serving, RECORD), overwrite=True)
