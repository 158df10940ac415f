"""Results by span: what an earlier execution of a step made of the same span is taken over, not made again.

Beside its results a step leaves `spans.json`: for each span a `key`, the hash of all that its results depend on, its
`report`, and the names of its `files`. The artifacts of a step lie beside each other; an earlier one that holds the
same key has the same files. Without spans there is none, and a step makes all that it makes.
"""

import hashlib
import json
import os
import types
from collections.abc import Mapping
from typing import Any

import apache_beam as beam
from tfx.dsl.io import fileio
from tfx.utils import io_utils

from preprocessing import storage

SPANS = "spans.json"


def prefix(span: int | None, name: str) -> str:
    """Of the names of a span's files."""
    return name if span is None else f"span-{span}-{name}"


def key(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


def read(uri: str) -> dict[int, dict[str, Any]]:
    """The entries of an artifact, ascending; none where it has no spans."""
    path = os.path.join(uri, SPANS)
    if not fileio.exists(path):
        return {}
    return {int(span): entry for span, entry in json.loads(storage.read(path)).items()}


def another(pipeline: beam.Pipeline) -> beam.Pipeline:
    """An empty pipeline with the same runner and options: each span has its own, and counters of its own."""
    return beam.Pipeline(runner=pipeline.runner, options=pipeline.options)


def files(uri: str, span: int | None) -> list[str]:
    """The files of a span, by their names within the artifact; for no span none are listed."""
    if span is None:
        return []
    start, found = prefix(span, ""), []
    for name in (name.strip("/") for name in fileio.listdir(uri)):
        if name.startswith(start):
            found.append(name)
        elif name.startswith("Split-"):
            inside = [part.strip("/") for part in fileio.listdir(os.path.join(uri, name))]
            found += [os.path.join(name, part) for part in inside if part.startswith(start)]
    return sorted(found)


def finish(
    uri: str,
    entries: dict[int | None, dict[str, Any]],
    joined: tuple[str, ...] = (),
    told: Mapping[str, Any] = types.MappingProxyType({}),
) -> None:
    """Writes the report of all spans, and the files that are `joined` from those of each.

    The report of one without spans is its own; else counts are sums, and `spans` has each span's, with `taken_over`.
    What is `told` of all together stands there, too.
    """
    if list(entries) == [None]:
        report = entries[None]["report"]
    else:
        report = _sum([entry["report"] for entry in entries.values()])
        report["spans"] = {
            span: entry["report"] | {"taken_over": entry["taken_over"]} for span, entry in entries.items()
        }
        for name in joined:
            parts = [os.path.join(uri, prefix(span, name)) for span in entries]
            text = b"".join(storage.read(part) for part in parts if fileio.exists(part))
            if text:
                io_utils.write_string_file(os.path.join(uri, name), text.decode())
        io_utils.write_string_file(os.path.join(uri, SPANS), json.dumps(entries, indent=2))
    io_utils.write_string_file(os.path.join(uri, "report.json"), json.dumps({**report, **told}, indent=2))


def _sum(reports: list[dict[str, Any]]) -> dict[str, Any]:
    """Counts are added, by name; shares are weighted alike, and lists follow each other."""
    total: dict[str, Any] = {}
    for name in dict.fromkeys(name for report in reports for name in report):
        values = [report[name] for report in reports if name in report]
        if isinstance(values[0], dict):
            total[name] = _sum(values)
        elif isinstance(values[0], list):
            total[name] = [item for value in values for item in value]
        else:
            total[name] = sum(values) / len(values) if isinstance(values[0], float) else sum(values)
    return total


def take_over(uri: str, span: int, wanted: str) -> dict[str, Any] | None:
    """The entry of an earlier artifact beside this one that has the span under the same key, its files with it (hard
    links where that goes). None where there is none, or it has lost its files."""
    beside = os.path.dirname(uri.rstrip("/"))
    for name in fileio.listdir(beside) if fileio.exists(beside) else ():
        other = os.path.join(beside, name.strip("/"))
        entry = read(other).get(span)
        if other != uri and entry and entry["key"] == wanted:
            paths = [(os.path.join(other, file), os.path.join(uri, file)) for file in entry["files"]]
            if all(fileio.exists(source) for source, _ in paths):
                for source, target in paths:
                    _copy(source, target)
                return entry | {"taken_over": True}
    return None


def _copy(source: str, target: str) -> None:
    fileio.makedirs(os.path.dirname(target))
    if fileio.exists(target):  # of a try that was killed; it may be the source itself, by another name
        fileio.remove(target)
    try:
        os.link(source, target)
    except OSError:  # another file system, or none of this machine's
        fileio.copy(source, target)
