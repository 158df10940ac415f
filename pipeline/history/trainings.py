"""Folders of trainings, `<home>/training/<fingerprint>`: there until ML Metadata knows what came of them, so that a run
that is killed, or loses its store, after the last step has not trained for nothing."""

import json
import pathlib
import shutil
from collections.abc import Iterable

from pipeline.history.homes import read_json
from preprocessing import storage

_END = "end.json"


def end(work: pathlib.Path, model_run: str) -> None:
    """All that is worth it has been copied to `model_run`."""
    storage.write_whole(json.dumps({"model_run": model_run}), work / _END)


def remove_ended(folder: pathlib.Path, known: Iterable[str]) -> None:
    """Those whose results are among the artifacts that are known, by their URIs."""
    uris = {uri.rstrip("/") for uri in known}
    for note in folder.glob(f"*/{_END}"):
        if read_json(note).get("model_run", "").rstrip("/") in uris:
            shutil.rmtree(note.parent)
