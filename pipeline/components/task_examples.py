"""Rows of any kind of fine-tuning, in any of its formats -> tf.Examples, and the files as they are, for training."""

import collections
import hashlib
import json
import pathlib
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any, TextIO

import tensorflow as tf
from tfx.dsl.component.experimental.annotations import OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types import artifact_utils, standard_artifacts

from pipeline.components import split
from pipeline.finetuning import kinds, rows
from pipeline.finetuning.kinds.kind import Kind, Source
from preprocessing.errors import InputError
from preprocessing.storage import local, write_whole
from preprocessing.tasks import packages
from preprocessing.tasks.tables import Columns

FILES, REPORT, SET_ASIDE = "files", "report.json", "set_aside.tsv"


@component
def TaskExamplesGen(
    examples: OutputArtifact[standard_artifacts.Examples],
    settings: Parameter[str],
    input_fingerprint: Parameter[str],  # of the files, and of the code: another one means no cached result
) -> None:
    """Reads both splits, and writes a tf.Example a row (see `pipeline.finetuning.rows`). Rows that cannot be used stand
    with file and line in `set_aside.tsv`, and are counted in `report.json`."""
    run = json.loads(settings)
    kind = kinds.named(run["task"])
    examples.split_names = artifact_utils.encode_split_names(list(split.NAMES))
    examples.set_string_custom_property("payload_format", "FORMAT_TF_EXAMPLE")
    folder = pathlib.Path(examples.uri)
    (folder / FILES).mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {}
    with (
        tempfile.TemporaryDirectory(prefix="embedded-") as scratch,
        (folder / SET_ASIDE).open("w", encoding="utf-8") as aside,
    ):
        files = run["train"], run["eval"]
        if run["train"] is None:
            files = packages.write(pathlib.Path(scratch), run["embedded_rows"])
        for name, path in zip(split.NAMES, files, strict=True):
            source = kind.source(path, Columns(**run["columns"]))
            found[name] = _write(kind, source, pathlib.Path(artifact_utils.get_split_uri([examples], name)), aside)
            shutil.copy(local(path), folder / FILES / f"{name}{pathlib.Path(path).suffix.lower()}")
    write_whole(json.dumps(found, ensure_ascii=False, indent=2), folder / REPORT)


def file_of(examples: str, name: str) -> str:
    """The rows of a split as they were given."""
    (found,) = pathlib.Path(examples, FILES).glob(f"{name}.*")
    return str(found)


def report(examples: str) -> dict[str, Any]:
    return json.loads(pathlib.Path(examples, REPORT).read_text("utf-8"))


def first_rows(examples: str, name: str, kind: Kind, count: int) -> Iterator[Any]:
    """Of a split."""
    files = sorted(str(path) for path in pathlib.Path(examples, f"Split-{name}").iterdir())
    for record in tf.data.TFRecordDataset(files, "GZIP").take(count):
        yield rows.decode(kind, record.numpy())


def _write(kind: Kind, source: Source, folder: pathlib.Path, aside: TextIO) -> dict[str, Any]:
    """Writes a split; gives what is told of it: how many rows, unlabelled and set aside, and a hash of them."""
    counts = collections.Counter({"rows": 0, "unlabelled": 0, "set_aside": 0})
    first: list[str] = []
    digest = hashlib.sha256()

    def set_aside(line: int, reason: str) -> None:
        counts["set_aside"] += 1
        aside.write(f"{source.path}\t{line}\t{reason}\n")
        if not first:
            first.append(f"{source.path}:{line} {reason}")

    folder.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(folder / "rows.gz"), "GZIP") as writer:
        for row in source.rows(set_aside):
            record = rows.encode(kind, row)
            digest.update(record)
            counts["rows"] += 1
            counts["unlabelled"] += not kind.labels(row)
            writer.write(record)
    if not counts["rows"]:
        raise InputError(f"{source.path}: there must be usable rows. Received: {first[0] if first else 'none'}")
    return {**counts, "first_set_aside": first, "told": source.told, "hash": digest.hexdigest()[:16]}
