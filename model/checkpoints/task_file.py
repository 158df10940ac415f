"""What the numbers of a fine-tuned head mean: `task.json` beside a checkpoint of any format, or a Hugging
Face configuration."""

import dataclasses
import os
import pathlib
from typing import Any

from model.checkpoints.configs import read_json, write_json
from model.checkpoints.huggingface import CONFIG
from model.checkpoints.ours import FORMAT
from model.encoder.heads import TAGGER
from model.settings import (
    TASK_SETTINGS,
    ClassificationSettings,
    QuestionAnsweringSettings,
    SimilaritySettings,
    TaggingSettings,
    TaskSettings,
)
from preprocessing.errors import InputError

TASK = "task.json"
# Hugging Face's names; without one its models with several labels say one of them.
PROBLEMS = {
    "classification": "single_label_classification",
    "multi-label": "multi_label_classification",
    "regression": "regression",
}


def read_task(path: str | os.PathLike) -> TaskSettings | None:
    """Of the checkpoint at `path` (a folder, a file of it, or google's prefix); None where nothing says it."""
    folder = pathlib.Path(path)
    folder = folder if folder.is_dir() else folder.parent
    if (folder / TASK).is_file():
        values = read_json(folder / TASK)
        settings = TASK_SETTINGS.get(values.get("kind", ""), ClassificationSettings)
        try:
            return settings(**values)
        except (TypeError, InputError) as error:
            raise InputError(f"{folder / TASK}: {error}".replace(f"{settings.__name__}.__init__() ", "")) from error
    config = read_json(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    names = config.get("id2label")
    if config.get("format") == FORMAT or not isinstance(names, dict) or not names:
        return None
    numbers = {str(number) for number in range(len(names))}
    if set(names) != numbers:
        raise InputError(f"{folder / CONFIG}: id2label must number the labels from 0 on. Received: {', '.join(names)}")
    said = config.get("problem_type") or PROBLEMS["classification"]
    kind = next((kind for kind, problem in PROBLEMS.items() if problem == said), said)
    if kind in ("classification", "regression"):  # several numbers of a text are not known here
        several = kind if kind == "classification" else "regression of several numbers"
        kind = several if len(names) > 1 else "regression"
    labels = tuple(names[str(number)] for number in range(len(names)))
    try:
        if TAGGER.architecture in (config.get("architectures") or ()):
            return TaggingSettings(labels)
        return ClassificationSettings(labels, kind)
    except InputError as error:
        raise InputError(f"{folder / CONFIG}: id2label: {error}") from error


def write_task(folder: str | os.PathLike, task: TaskSettings) -> None:
    """Beside a checkpoint; also into the Hugging Face configuration that is there."""
    folder = pathlib.Path(folder)
    write_json(folder / TASK, dataclasses.asdict(task))
    config = read_json(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    if "id2label" in config and not isinstance(task, SimilaritySettings | QuestionAnsweringSettings):
        said: dict[str, Any] = {"id2label": {str(number): label for number, label in enumerate(task.labels)}}
        said["label2id"] = {name: number for number, name in enumerate(task.labels)}
        if task.kind in PROBLEMS:
            said["problem_type"] = PROBLEMS[task.kind]
        write_json(folder / CONFIG, config | said)
