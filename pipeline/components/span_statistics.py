"""Statistics by span, kept beside each other, and held to those of the span before: what the gates of data share.

The artifact is one of TFX's statistics whose splits are spans (`all` for data without), with `drift.json`, the table of
what was compared, and `schema.pbtxt`, the comparators and their bounds. Only an artifact of data that passed has a
`spans.json`: later spans are compared with the last one that did.
"""

import dataclasses
import json
import os
import zlib
from collections.abc import Callable, Iterable
from typing import Any, cast

import apache_beam as beam
from tfx.dsl.io import fileio
from tfx.types import artifact_utils, standard_artifacts
from tfx.utils import io_utils

from pipeline.components import kept
from pipeline.drift import comparing, statistics
from pipeline.drift.comparing import Moved
from pipeline.drift.measures import Measures
from preprocessing import storage

TABLE = "drift.json"
_ALL = "all"
Entries = dict[int | None, dict[str, Any]]  # by span, ascending
# Lines for two spans, or for one without another before it: (its name, its figures and statistics) of each.
Lines = Callable[[tuple[str, dict, statistics.Features] | None, tuple[str, dict, statistics.Features]], list[Moved]]


def measure(
    data: str,
    own: standard_artifacts.ExampleStatistics,
    of_record: Callable[[bytes], Measures],
    code: str,
    pipeline: beam.Pipeline,
    count: str,
    most: int,
) -> Entries:
    """Measures the spans of `data` that were not measured before, some `most` of the records of each, of which its
    report counts `count`. The first entry is that of the last span before them that passed, if there is one."""
    given = cast(Entries, kept.read(data))
    if not given:
        given[None] = {"key": "", "report": json.loads(storage.read(os.path.join(data, "report.json")))}
    entries: Entries = {}
    if (first := min(given, key=lambda span: span or 0)) is not None and (before := _passed_before(own.uri, first)):
        entries[before[0]] = kept.take_over(own.uri, *before) or {}
    entries = {span: entry for span, entry in entries.items() if entry}
    for span, read in given.items():
        wanted = kept.key(code, read["key"])
        entry = None if span is None else kept.take_over(own.uri, span, wanted)
        if entry is None:
            path = statistics.place(own.uri, split(span))
            fileio.makedirs(os.path.dirname(path))
            pattern = os.path.join(data, "Split-*", kept.prefix(span, "*.gz"))
            every = max(1, read["report"].get(count, 0) // most)
            with kept.another(pipeline) as own_pipeline:
                records = own_pipeline | "Read" >> beam.io.ReadFromTFRecord(pattern)
                drawn = records | "Draw" >> beam.Filter(_is_drawn, every)
                statistics.write(drawn, of_record, path)
            files = [os.path.relpath(path, own.uri)]
            entry = {"key": wanted, "taken_over": False, "files": files, "report": read["report"]}
        entries[span] = entry
    own.split_names = artifact_utils.encode_split_names([split(span) for span in entries])
    return entries


def _is_drawn(record: bytes, every: int) -> bool:
    return zlib.crc32(record) % every == 0


def split(span: int | None) -> str:
    return _ALL if span is None else f"span-{span}"


def _passed_before(own: str, span: int) -> tuple[int, str] | None:
    """(number, key) of the newest span before this one that an artifact beside has."""
    beside = os.path.dirname(own)
    found = [
        (number, name.strip("/"), entry["key"])
        for name in (fileio.listdir(beside) if fileio.exists(beside) else ())
        for number, entry in kept.read(os.path.join(beside, name.strip("/"))).items()
        if number < span
    ]
    number, _, key = max(found, key=lambda item: (item[0], len(item[1]), item[1]), default=(None, "", ""))
    return None if number is None else (number, key)


def compare(uri: str, entries: Entries, bounds: dict[str, Any], lines: Lines) -> list[Moved]:
    """Each span that was not measured before with the span before it, and by `lines`."""
    moved: list[Moved] = []
    before = None
    for span, entry in entries.items():
        name = "the data" if span is None else f"span {span}"
        found = statistics.load(statistics.place(uri, split(span)))
        now = name, entry["report"], statistics.by_name(found)
        if not entry["taken_over"]:
            if before:
                moved += comparing.compare(before[1], found, bounds, against=before[0][0], of=name)
            moved += lines(before and before[0], now)
        before = now, found
    return moved


def finish(uri: str, entries: Entries, moved: Iterable[Moved], bounds: dict[str, Any], way_out: str) -> None:
    """Writes the table and the schema. Raises InputError where something moved too far; else these are spans that later
    ones are compared with."""
    table = [dataclasses.asdict(line) | {"passes": line.passes} for line in moved]
    io_utils.write_string_file(os.path.join(uri, TABLE), json.dumps(table, indent=2))
    names = [name for span in entries for name in statistics.read(statistics.place(uri, split(span)))]
    io_utils.write_pbtxt_file(
        os.path.join(uri, "schema.pbtxt"), comparing.schema(bounds, "drift_comparator", set(names))
    )
    comparing.check(moved, way_out)
    if None not in entries:
        io_utils.write_string_file(os.path.join(uri, kept.SPANS), json.dumps(entries, indent=2))
