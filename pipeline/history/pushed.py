"""The folder that servers read, `<serving>/<version>`, and the record of what was pushed there.

The record, `.pushed.json`, says which model each version was, so that a version which was taken away is known. A model
was **rolled back** by `bert rollback`, or where the folder of its version is gone while an older pushed version still
stands: someone wanted that older one served. It is not pushed again, until it is promoted, its folder is put back or
the version taken out of the record. Where nothing of what was pushed is left, the folder was lost, not rolled back; and
a version that a newer one had replaced before it was removed was tidied away. Both may be pushed again.
"""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterator
from typing import Any

from preprocessing import storage
from preprocessing.errors import InputError

RECORD = ".pushed.json"
_LOCK, _PATIENCE = ".pushed.lock", 60  # seconds for which another process may change the record
_FINGERPRINT = "fingerprint.pb"  # of a SavedModel's graph and weights


def versions(serving: str) -> dict[int, str]:
    """Folders of whole models by version number."""
    numbers = [name for name in _names(serving) if name.isascii() and name.isdecimal()]
    folders = {int(name): os.path.join(serving, name) for name in numbers}
    return {number: path for number, path in folders.items() if _exists(os.path.join(path, "saved_model.pb"))}


def identity(model: str) -> str | None:
    """What tells a SavedModel from another, in 16 letters; None for a folder that some other program wrote."""
    path = os.path.join(model, _FINGERPRINT)
    return hashlib.sha256(storage.read(path)).hexdigest()[:16] if _exists(path) else None


def own_identity(model: str) -> str:
    """The same of a model that this pipeline has exported. Raises InputError where it has none."""
    name = identity(model)
    if name is None:
        raise InputError(
            f"{os.path.join(model, _FINGERPRINT)}: a model exported here has a fingerprint. Received: no file; "
            "remove the folder, and the next run exports it anew"
        )
    return name


def rolled_back(record: dict[str, Any]) -> set[str]:
    """Identities of the models that are not to be pushed, nor compared with."""
    return {record["versions"][number]["model"] for number in (*record["rolled_back"], *record["refused"])}


def read(serving: str) -> dict[str, Any]:
    """`versions` by number, with the model that each is and where it came from; the numbers `rolled_back` by taking
    their folders away, by this moment; those `refused` by `bert rollback`; `labels`: the versions that each has had.
    """
    path = os.path.join(serving, RECORD)
    record: dict[str, Any] = {"versions": {}, "rolled_back": [], "refused": [], "labels": {}}
    if _exists(path):
        try:
            record |= json.loads(storage.read(path))
        except ValueError as error:
            raise InputError(f"{path}: not JSON ({error}); remove it, and what was rolled back is forgotten") from None
    there = versions(serving)
    standing = [int(number) for number in record["versions"] if int(number) in there]
    gone = {number for number in record["versions"] if int(number) not in there}
    newly = {number for number in gone if standing and int(number) > max(standing)}
    record["refused"] = [number for number in record["refused"] if number in record["versions"]]
    record["rolled_back"] = sorted((newly | set(record["rolled_back"])) & gone)
    return record


@contextlib.contextmanager
def changing(serving: str) -> Iterator[dict[str, Any]]:
    """The record, for one process at a time (where the folder is local); it is written at the end of the block, and as
    it was where that raises. Raises InputError where another process holds it for a minute."""
    with contextlib.ExitStack() as stack:
        if not storage.is_remote(serving):
            os.makedirs(serving, exist_ok=True)
            stack.enter_context(_alone(serving))
        record = read(serving)
        yield record
        storage.write_whole(json.dumps(record, indent=2) + "\n", os.path.join(serving, RECORD))


def _alone(serving: str):
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            return storage.hold(os.path.join(serving, _LOCK))[0]
        except BlockingIOError:
            if time.monotonic() > until:
                raise InputError(f"{serving}: another process has been changing it for {_PATIENCE} s") from None
            time.sleep(0.1)


def _names(folder: str) -> list[str]:
    if not storage.is_remote(folder):
        return os.listdir(folder) if os.path.isdir(folder) else []
    with storage.gfiles() as gfile:
        return [name.strip("/") for name in gfile.listdir(folder)] if gfile.exists(folder) else []


def _exists(path: str) -> bool:
    if not storage.is_remote(path):
        return os.path.exists(path)
    with storage.gfiles() as gfile:
        return gfile.exists(path)
