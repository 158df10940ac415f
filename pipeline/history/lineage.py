"""What a pushed version was made of, traced through MLMD and the files that the steps left; on a claim of Kubeflow,
which has neither, as far as the version's own folder says it."""

import hashlib
import json
import os
import pathlib
from typing import Any

from pipeline.history import labels, parents, pushed, runs
from pipeline.history.homes import Home, read_json
from pipeline.history.store import Artifact, Execution, Store
from preprocessing.errors import InputError

NOT_RECORDED = "not recorded"  # by runs before this was
_NO_EVALUATION = dict.fromkeys(("artifact", "blessed", "metrics", "baseline"), NOT_RECORDED)


def version_of(home: Home, serving: str, name: str) -> str:
    """A version number from itself, a label or `latest`. Raises InputError for what was never pushed."""
    known = pushed.read(serving)["versions"]
    found = name
    if name == "latest":
        found = str(max(pushed.versions(serving), default=0))
    elif not name.isdecimal():
        found = str(labels.of(home.models_config, os.path.basename(serving)).get(name, name))
    if found not in known:
        given = ", ".join([*known, *labels.of(home.models_config, os.path.basename(serving))])
        raise InputError(
            f"{serving}: a version, its label or 'latest'. Received: {name!r}; there are {given or 'none'}"
        )
    return found


def trace(home: Home, serving: str, version: str) -> dict[str, Any]:
    """`version`, `folder`, `standing` (whether it is there), `rolled_back`, `labels`, `model`, `data`, `vocabulary`,
    `examples`, `settings`, `code`, `parent`, `evaluation`; NOT_RECORDED where the records say nothing of it. Of a
    fine-tuned version also `task`, and `data` has its splits and `answers`, the labels that it knows."""
    record = pushed.read(serving)
    entry = record["versions"][version]
    name = os.path.basename(serving)
    found: dict[str, Any] = {
        "version": version,
        "name": name,
        "folder": os.path.join(serving, version),
        "standing": int(version) in pushed.versions(serving),
        "rolled_back": entry["model"] in pushed.rolled_back(record),
        "labels": sorted(label for label, to in labels.of(home.models_config, name).items() if str(to) == version),
    }
    if home.is_claim():
        return found | _pushed_alone(found, entry, home.servings())
    if not home.has_store():
        raise InputError(f"{home.folder}: a version is traced through metadata.sqlite. Received: no such file there")
    store = Store(home)
    model = store.artifact(os.path.dirname(entry["from"]))
    trainer = store.producer(model) if model else None
    if not (model and trainer):
        raise InputError(
            f"{home.folder}: the model of version {version} must be known to ML Metadata there. Received: no artifact "
            f"of {os.path.dirname(entry['from'])}"
        )
    examples = store.inputs(trainer)["examples"][0]
    maker = store.producer(examples)
    if maker and "task" in json.loads(maker.properties["settings"]):
        parts = _tuned(examples, maker, found["folder"])
    else:
        parts = _pretrained(store, examples, maker)
    makers = parts.pop("makers")
    config = trainer.properties["custom_config"]
    config = json.loads(config) if isinstance(config, str) else config
    history = runs.kept(home)
    trained_by = store.runs_of(trainer)
    first = history.get(trained_by[0], ({}, {}))[0] if trained_by else {}
    run_settings = first.get("settings", {})
    return found | {
        "model": {
            "identity": entry["model"],
            "artifact": model.uri,
            "trained": trainer.began.isoformat(),
            "seconds": (trainer.ended - trainer.began).total_seconds(),
            "run": trained_by[0] if trained_by else NOT_RECORDED,
            "pushed_by": next(
                (run for run, (_, report) in history.items() if report.get("pushed_to") == found["folder"]),
                NOT_RECORDED,
            ),
        },
        **parts,
        "settings": {
            **_settings(*(made.properties["settings"] for made in makers.values() if made), config["settings"]),
            "gate": run_settings.get("gate", NOT_RECORDED),
            "recipe": run_settings.get("recipe"),
        },
        "code": {
            **{
                step: made.properties.get("code", made.properties.get("input_fingerprint"))
                for step, made in makers.items()
                if made
            },
            "training": config["fingerprint"],
            "state": first.get("code", NOT_RECORDED),
        },
        "parent": _parent(home, store, serving, json.loads(config["settings"]).get("init")),
        "evaluation": _evaluation(store, model, history),
    }


def _pushed_alone(found: dict[str, Any], entry: dict[str, str], servings: list[str]) -> dict[str, Any]:
    """The parts of what the folder of a version says, with the card that `pipeline.kubeflow.claim` has made whole."""
    folder, artifact = found["folder"], pathlib.Path(entry["from"])
    card = parents.read(folder)
    settings, report = json.loads(card.get("settings", "{}")), card.get("examples", {})
    data: dict[str, Any] = {"artifact": NOT_RECORDED, "report": {}, "files": NOT_RECORDED}
    task: dict[str, Any] = {}
    taken_from = settings.get("vocabulary", {"file": NOT_RECORDED})["file"]
    if "task" in settings:
        taken_from = "the checkpoint"
        task, data = {"task": settings["task"]}, data | {"report": report, "answers": _answers(folder)}
        report = {"rows": sum(part["rows"] for part in report.values())}
    # <root>/<pipeline>/<run>/Trainer/...
    run = next((path.parent.name for path in artifact.parents if path.name == "Trainer"), NOT_RECORDED)
    init = card.get("init")
    return task | {
        "model": {
            "identity": entry["model"],
            "artifact": str(artifact.parent),
            "trained": NOT_RECORDED,
            "seconds": NOT_RECORDED,
            "run": run,
            "pushed_by": NOT_RECORDED,
        },
        "data": data,
        "vocabulary": _file_of(pathlib.Path(folder, "assets", "vocab.txt")) | {"taken_from": taken_from},
        "examples": {"artifact": NOT_RECORDED, "report": report},
        "settings": settings,
        "code": {"training": card.get("code", NOT_RECORDED), "state": NOT_RECORDED},
        "parent": init and {
            "checkpoint": init,
            "versions": [
                _called(number, other, os.path.dirname(folder))
                for other in servings
                for number, path in pushed.versions(other).items()
                if parents.read(path).get("checkpoint") == init
            ],
        },
        "evaluation": _NO_EVALUATION | {"blessed": True},  # nothing else is pushed
    }  # fmt: skip


def _called(number: int | str, serving: str, own: str) -> str:
    return str(number) if serving == own else f"{number} of {os.path.basename(serving)}"


def _pretrained(store: Store, examples: Artifact, maker: Execution | None) -> dict[str, Any]:
    """What the examples of a pretraining were made of, and the `makers` of each part."""
    given = store.inputs(maker) if maker else {}
    documents = next(iter(given.get("documents", [])), None)
    vocabulary = next(iter(given.get("vocabulary_artifact", [])), None)
    learner = store.producer(vocabulary) if vocabulary else None
    return {
        "makers": {
            "corpus": store.producer(documents) if documents else None,
            "vocabulary": learner,
            "examples": maker,
        },
        "data": _data(documents),
        "vocabulary": _vocabulary(vocabulary, learner),
        "examples": _part(examples),
    }


def _tuned(examples: Artifact, maker: Execution, folder: str) -> dict[str, Any]:
    """The same of a fine-tuning: its rows, as they were given, and the vocabulary and labels of what was pushed."""
    settings = json.loads(maker.properties["settings"])
    report = read_json(pathlib.Path(examples.uri, "report.json"))
    files = []
    for split in report:
        kept = next(iter(pathlib.Path(examples.uri, "files").glob(f"{split}.*")), None)
        if kept is not None:
            content = kept.read_bytes()
            name = settings.get(split) or f"the embedded rows ({split})"
            files.append({"file": name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()})
    data = {"artifact": examples.uri, "report": report, "files": files or NOT_RECORDED}
    return {
        "makers": {"examples": maker},
        "task": settings["task"],
        "data": data | {"answers": _answers(folder)},
        "vocabulary": _file_of(pathlib.Path(folder, "assets", "vocab.txt")) | {"taken_from": "the checkpoint"},
        "examples": {"artifact": examples.uri, "report": {"rows": sum(part["rows"] for part in report.values())}},
    }


def _answers(folder: str) -> Any:
    return read_json(pathlib.Path(folder, "assets.extra", "finetuning.json")).get("labels", NOT_RECORDED)


def _part(artifact: Artifact | None) -> dict[str, Any]:
    """An artifact's place and the report beside it."""
    if artifact is None:
        return {"artifact": NOT_RECORDED, "report": {}}
    return {"artifact": artifact.uri, "report": read_json(pathlib.Path(artifact.uri, "report.json"))}


def _data(documents: Artifact | None) -> dict[str, Any]:
    found = _part(documents)
    inputs = pathlib.Path(found["artifact"], "inputs.jsonl")
    if not inputs.is_file():
        return found | {"files": NOT_RECORDED}
    return found | {"files": [json.loads(line) for line in inputs.read_text().splitlines()]}


def _vocabulary(vocabulary: Artifact | None, learner: Execution | None) -> dict[str, Any]:
    found = _part(vocabulary)
    settings = json.loads(learner.properties["settings"])["vocabulary"] if learner else {}
    known = _file_of(pathlib.Path(found["artifact"], "vocab.txt"))
    return known | found | {"taken_from": settings.get("file")}  # else it was learned


def _file_of(path: pathlib.Path) -> dict[str, Any]:
    """Of a vocabulary."""
    if not path.is_file():
        return {"sha256": NOT_RECORDED, "report": {}}
    data = path.read_bytes()
    return {"sha256": hashlib.sha256(data).hexdigest(), "report": {"size": len(data.splitlines())}}


def _settings(*parts: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for part in parts:
        found |= json.loads(part)
    return found


def _parent(home: Home, store: Store, serving: str, init: str | None) -> dict[str, Any] | None:
    """The checkpoint that training began with, and the versions that were pushed of it, by this pipeline or, under the
    name of the other, by one that pretrains; None for random weights."""
    if init is None:
        return None
    run = store.artifact(os.path.dirname(init))
    trainer = store.producer(run) if run else None
    models = [model.uri for model in store.outputs(trainer).get("model", [])] if trainer else []
    versions = [
        _called(number, folder, serving)
        for folder in dict.fromkeys((serving, *home.servings()))
        for number, entry in pushed.read(folder)["versions"].items()
        if os.path.dirname(entry["from"]) in models
    ]
    return {"checkpoint": init, "versions": versions}


def _evaluation(store: Store, model: Artifact, history: dict) -> dict[str, Any]:
    """What the gate said of it, the newest evaluation: figures, and the baseline that it was compared with."""
    ended = [found for found in store.users(model, "Evaluator") if found.state == "ran"]
    if not ended:
        return _NO_EVALUATION
    given, made = store.inputs(ended[-1]), store.outputs(ended[-1])
    (baseline,) = [artifact.properties.get("baseline") for artifact in given.get("baseline_model", [])] or [None]
    reports = [report for _, report in history.values() if report.get("model") == model.uri and "metrics" in report]
    return {
        "artifact": made["evaluation"][0].uri,
        "blessed": bool(made["blessing"][0].properties.get("blessed")),
        "refusals": reports[-1]["refusals"] if reports else NOT_RECORDED,
        "metrics": reports[-1]["metrics"] if reports else NOT_RECORDED,
        "baseline": None if baseline in (None, "none") else os.path.basename(baseline),
    }
