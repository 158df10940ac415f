"""A student of a teacher that was fine-tuned for the same task: what it begins as, and what it is taught."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from model import checkpoints
from model.encoder.smaller import Kept, layers_of, smaller
from model.settings import TaskSettings
from model.tasks.distillation import digest_of
from model.tasks.task import Task
from model.tasks.taught import Answering, Taught
from preprocessing import storage
from preprocessing.errors import InputError, require

if TYPE_CHECKING:
    from pipeline.finetuning.planning import Options, Start


def cut(start: "Start", said: str, folder: pathlib.Path) -> "Start":
    """The checkpoint with some of its layers only, which `folder` keeps: of other weights it is another. Raises
    InputError for layers that it does not have."""
    layers = layers_of(said, start.encoder.num_layers, last=False)
    student = smaller(checkpoints.load(start.path), Kept(layers))
    place = folder / f"start-{'-'.join(map(str, layers))}-{digest_of(student)[:8]}"
    if not place.is_dir():
        with storage.unfinished(folder, ".unfinished-start-") as partial:
            checkpoints.save(student, partial, start.said_tokenizer)
            partial.rename(place)
    return dataclasses.replace(start, path=str(place), encoder=student.settings)


def taught(task: Task, settings: TaskSettings, start: "Start", teacher: "Start", options: "Options") -> Taught:
    """The task, learned from the teacher too. Raises InputError where they do not fit each other."""
    known = teacher.task
    if known is None or known.kind != settings.kind:
        received = "an encoder without a task" if known is None else known.kind
        raise InputError(f"{teacher.path}: a teacher must be fine-tuned for the same task. Received: {received}")
    for what, theirs, ours in (
        ("labels, in this order,", _labels(known), _labels(settings)),
        ("pooling", getattr(known, "pooling", None), getattr(settings, "pooling", None)),
        ("vocabulary", teacher.tokenizer.vocab, start.tokenizer.vocab),
        ("case", teacher.tokenizer.lower_case, start.tokenizer.lower_case),
    ):
        rule = f"{teacher.path}: the student must have its teacher's {what} {_shown(theirs)}"
        require(theirs == ours, rule, _shown(ours))
    return Taught(cast(Answering, task), checkpoints.load(teacher.path, task.heads), **options.teaching)


def _labels(settings: TaskSettings) -> Sequence[str]:
    return getattr(settings, "labels", ())


def _shown(value) -> str:
    return f"of {len(value)}, {', '.join(value[:3])}, ..." if isinstance(value, list | tuple) else str(value)
