"""What a node's outputs held when it was done: files that have gone or are cut short since, as after a loss of power or
by hand, are not given to later steps from the cache; the node runs again.

Noted beside the outputs, which number their executions: `artifacts/<node>/.system/files/<output>-<execution>.json`.
"""

import json
import os
import pathlib

import ml_metadata
from ml_metadata.proto import metadata_store_pb2
from tfx.dsl.compiler import constants

from pipeline.history.homes import read_json
from pipeline.runs.record import Artifacts
from preprocessing import storage

_LIVE = metadata_store_pb2.Artifact.LIVE


def note(artifacts: Artifacts) -> None:
    """Of a node that has just run."""
    for entries in artifacts.values():
        for entry in entries:
            folder = pathlib.Path(entry["uri"])
            note = _note_of(folder)
            note.parent.mkdir(parents=True, exist_ok=True)
            storage.write_whole(json.dumps(_sizes(folder)), note)


def distrust(store: ml_metadata.MetadataStore, node: str) -> list[str]:
    """Marks the outputs of earlier runs of a node (its context's name) that are not whole as deleted, and says of each
    what is amiss."""
    context = store.get_context_by_type_and_name(constants.NODE_CONTEXT_TYPE_NAME, node)
    said, gone = [], []
    for artifact in store.get_artifacts_by_context(context.id) if context else ():
        if artifact.state == _LIVE and (files := _amiss(pathlib.Path(artifact.uri))):
            said.append(f"{artifact.uri}: no longer whole ({len(files)} of its files, as {files[0]}): made anew")
            artifact.state = metadata_store_pb2.Artifact.DELETED
            gone.append(artifact)
    if gone:
        store.put_artifacts(gone)
    return said


def _amiss(folder: pathlib.Path) -> list[str]:
    there = _sizes(folder)
    return sorted(name for name, size in read_json(_note_of(folder)).items() if there.get(name) != size)


def _note_of(folder: pathlib.Path) -> pathlib.Path:
    """`<node>/<output>/<execution>` -> the file."""
    output = folder.parent
    return output.parent / ".system" / "files" / f"{output.name}-{folder.name}.json"


def _sizes(folder: pathlib.Path) -> dict[str, int]:
    """In bytes, by path within the folder."""
    found = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(parent, name)
            found[os.path.relpath(path, folder)] = os.path.getsize(path)
    return found
