"""A student of a teacher that was fine-tuned for the same task: what it begins as, and what it is taught."""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, cast

from model import checkpoints
from model.encoder.heads import chosen
from model.encoder.smaller import Kept, layers_of, smaller
from model.settings import TaskSettings, TrainingSettings
from model.tasks.distillation import digest_of
from model.tasks.task import Task
from model.tasks.taught import Answering, Answers, Taught
from preprocessing import batches, storage
from preprocessing.errors import InputError, require
from preprocessing.features import LENGTH

if TYPE_CHECKING:
    from pipeline.finetuning.planning import Options, Start

MOST_BYTES = 1 << 29  # of a teacher's answers that are kept


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


def remembered(task: Taught, train: str, training: TrainingSettings, runs: int, told: Callable[[str], None]) -> Taught:
    """The same with the teacher's answers to train in memory, where so many runs ask for each more than once; a run
    that goes on asks for all anew, and gets the same."""
    examples = batches.open_examples([train], task.spec, vocab_size=task.teacher.settings.vocab_size)
    (head,) = chosen(task.heads)
    numbers = examples.count * (head.labels or 1) * (examples.axes[LENGTH] if head.over == "tokens" else 1)
    seen_once = training.steps * training.batch_size * runs < 2 * examples.count
    if seen_once or not examples.arrays or 4 * numbers > MOST_BYTES:
        return task
    told(f"the teacher answers the {examples.count:,} examples of train once, before they are learned from")
    return dataclasses.replace(task, answers=Answers.of(task.task, task.teacher, examples, training.buckets))


def _labels(settings: TaskSettings) -> Sequence[str]:
    return getattr(settings, "labels", ())


def _shown(value) -> str:
    return f"of {len(value)}, {', '.join(value[:3])}, ..." if isinstance(value, list | tuple) else str(value)
