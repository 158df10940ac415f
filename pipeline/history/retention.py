"""What a home may lose, by `pipeline.settings.RetentionSettings`; and how it goes.

All artifacts of the newest runs stay. So do those of which a kept version was made, from the documents on, with its
evaluation, and the checkpoints of the models that it was warm-started from. A version is kept that is among the newest,
that has a label or is to be loaded by `models.config`, or that a label would go back to. Nothing else is needed: MLMD
and the records of all runs stay, and of an artifact the small files that lineage is told from. What was compiled for a
run of an orchestrator goes when the run has ended and is not among the newest, or was left alone for `training_days`.
"""

import dataclasses
import json
import os
import pathlib
import shutil
import time
from collections.abc import Iterable, Iterator

from pipeline import values
from pipeline.history import labels, pushed
from pipeline.history.homes import Home, read_json
from pipeline.history.store import Artifact, Execution, Store
from pipeline.settings import RetentionSettings

RECORDS = ("report.json", "inputs.jsonl", "vocab.txt", "baseline.json")
_DAY = 24 * 3600


@dataclasses.dataclass(frozen=True)
class Item:
    """`kind`: artifact, leftover (of a step that was killed), compiled (a run, for its steps), training or version.
    `bytes` is what would be freed."""

    kind: str
    path: str
    bytes: int
    artifact: int | None = None  # its id in MLMD


def rule_of(home: Home) -> RetentionSettings:
    """That of the run that ran last."""
    found = read_json(home.folder / "settings.json").get("retention", {})
    return values.build(RetentionSettings, found, f"{home.folder / 'settings.json'}: retention")


def plan(home: Home, rule: RetentionSettings) -> list[Item]:
    """What may go. The home's lock is to be held."""
    found: list[Item] = []
    if home.has_store():
        store = Store(home)
        found += _artifacts(home, store, rule)
        found += _compiled(home, _newest(store.runs(), rule), rule)
    for folder in broken_off(home.training, rule.training_days * _DAY):
        found.append(Item("training", str(folder), _bytes(folder)))
    for serving in home.servings():
        stays = kept_versions(serving, rule)
        for number, path in sorted(pushed.versions(serving).items()):
            if number not in stays:
                found.append(Item("version", path, _bytes(path)))
    return found


def carry_out(home: Home, items: Iterable[Item]) -> None:
    """First MLMD is told, so that no run is given what is about to go; what a killed one left, the next finds."""
    items = list(items)
    ids = [item.artifact for item in items if item.artifact is not None]
    if ids:
        Store(home).mark_deleted(ids)
    for item in items:
        if item.kind == "artifact":
            _empty(pathlib.Path(item.path))
        elif item.kind == "version":
            take_away(item.path)
        elif item.kind == "compiled":
            os.remove(item.path)
        else:
            shutil.rmtree(item.path)


def take_away(version: str) -> None:
    """Removes a pushed model; servers see it whole or not at all."""
    aside = os.path.join(os.path.dirname(version), f".{os.path.basename(version)}")
    shutil.rmtree(aside, ignore_errors=True)
    os.rename(version, aside)
    shutil.rmtree(aside)


def broken_off(work: pathlib.Path, seconds: float) -> Iterator[pathlib.Path]:
    """Trainings that nothing was written to for so long. One that ends removes its own folder, so each of these was
    broken off; the same settings would resume it, which no one did."""
    for folder in sorted(work.iterdir()) if work.is_dir() else ():
        if max(path.lstat().st_mtime for path in (folder, *folder.rglob("*"))) < time.time() - seconds:
            yield folder


def _artifacts(home: Home, store: Store, rule: RetentionSettings) -> list[Item]:
    runs = store.runs()
    newest = _newest(runs, rule)
    stays: dict[int, Artifact] = {}
    at_work = {execution.id for run in newest for execution in runs[run]}
    for run in newest:
        for execution in runs[run]:
            _add(stays, *store.outputs(execution).values())
    for serving in home.servings():
        record = pushed.read(serving)
        for number in kept_versions(serving, rule):
            if str(number) in record["versions"]:
                _add_made_of(stays, store, os.path.dirname(record["versions"][str(number)]["from"]), rule.parents)
    for artifact in list(stays.values()):  # a step's results are found again all together or not at all
        producer = store.producer(artifact)
        if producer:
            _add(stays, *store.outputs(producer).values())
    root, known, found = home.artifacts.resolve(), set(), []
    for artifact in store.artifacts():
        folder = pathlib.Path(artifact.uri).resolve()
        known.add(folder)
        if artifact.id not in stays and folder.is_relative_to(root):
            size = _bytes(folder, *RECORDS)
            if artifact.live or size:
                found.append(Item("artifact", str(folder), size, artifact.id))
    for folder in root.glob("*/[!.]*/*/"):  # <node>/<output>/<execution>
        if folder not in known and folder.name.isdecimal() and int(folder.name) not in at_work:
            found.append(Item("leftover", str(folder), _bytes(folder)))
    return found


def _newest(runs: dict[str, list[Execution]], rule: RetentionSettings) -> set[str]:
    by_pipeline: dict[str, list[str]] = {}
    for run, executions in runs.items():  # in the order in which they began
        for pipeline in {execution.pipeline for execution in executions}:
            by_pipeline.setdefault(pipeline, []).append(run)
    return {run for ids in by_pipeline.values() for run in ids[-rule.runs :]}


def _compiled(home: Home, newest: set[str], rule: RetentionSettings) -> Iterator[Item]:
    """Of older runs that have ended, or in which nothing was done for as long as in a training that was broken off: an
    orchestrator whose run has not ended reads it at each step, between which no lock is held."""
    for path in sorted((home.folder / "compiled").glob("*.json")):
        spec = read_json(path).get("runtimeSpec", {})
        run = spec.get("pipelineRunId", {}).get("fieldValue", {}).get("stringValue", path.stem)
        record = home.reports / "runs" / run / "run.json"
        touched = max(file.stat().st_mtime for file in (path, record) if file.exists())
        idle = time.time() - touched > max(rule.training_days, 1) * _DAY
        if run not in newest and (idle or read_json(record).get("state") == "done"):
            yield Item("compiled", str(path), path.stat().st_size)


def _add(stays: dict[int, Artifact], *groups: Iterable[Artifact]) -> None:
    for group in groups:
        stays |= {artifact.id: artifact for artifact in group}


def _add_made_of(stays: dict[int, Artifact], store: Store, uri: str, parents: int | None) -> None:
    """The model of that URI, with what it was made of and judged by."""
    model = store.artifact(uri)
    trainer = store.producer(model) if model else None
    if model is None or trainer is None:
        return
    for judged in store.users(model, "Evaluator"):
        _add(stays, *store.outputs(judged).values())
    left = [trainer]
    while left:
        execution = left.pop()
        _add(stays, *store.outputs(execution).values())
        given = [artifact for group in store.inputs(execution).values() for artifact in group]
        left += [producer for producer in map(store.producer, given) if producer]
    config = trainer.properties.get("custom_config")
    while config and parents != 0:
        init = json.loads(json.loads(config)["settings"]).get("init")
        run = store.artifact(os.path.dirname(init)) if init else None
        parent = store.producer(run) if run else None
        if parent is None:
            return
        _add(stays, *store.outputs(parent).values())
        config, parents = parent.properties.get("custom_config"), None if parents is None else parents - 1


def kept_versions(serving: str, rule: RetentionSettings) -> set[int]:
    """Of the folder of pushed models, the numbers of those that stay."""
    record, there = pushed.read(serving), pushed.versions(serving)
    back = labels.rolled_back_numbers(record)
    stays = set(sorted(number for number in there if str(number) not in back)[-rule.versions :])
    stays |= set(labels.to_load(labels.file_of(serving), os.path.basename(serving)))
    for history in record["labels"].values():
        stays |= {int(number) for number in history[-2:]}
    return stays


def _bytes(folder: str | pathlib.Path, *but: str) -> int:
    """Of the files in a folder; those at its top whose names are in `but` aside."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            if not (parent == str(folder) and name in but):
                total += os.lstat(os.path.join(parent, name)).st_size
    return total


def _empty(folder: pathlib.Path) -> None:
    """Removes what an artifact holds, its records aside."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name not in RECORDS:
            path.unlink()
