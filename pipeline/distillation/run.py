"""A student from its teacher: the same start trained with the teacher and without, and what came of both.

DIR/model/      the student with the lowest divergence from the teacher (or greatest cosine), with its vocabulary
DIR/report.md, report.json, curves.png
DIR/start-.../  what the student began with: layers of the teacher, or fresh weights
DIR/taught/, DIR/untaught/    the runs, with which the same command goes on
"""

import dataclasses
import functools
import json
import math
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence

import keras
import tensorflow as tf

from model import checkpoints, training
from model.checkpoints import names
from model.encoder import BertEncoder
from model.encoder.smaller import Kept, smaller
from model.settings import EncoderSettings, TrainingSettings
from model.tasks.distillation import WEIGHTS, Distillation
from model.tasks.pretraining import Pretraining
from model.tasks.task import Task
from model.training.evaluation import Evaluation
from pipeline import speed
from pipeline.terminal import number
from preprocessing import batches, storage, vocab_file
from preprocessing.storage import write_whole

SPEED_BATCH = 32


@dataclasses.dataclass(frozen=True)
class Plan:
    """Attributes:
    teacher, task: the teacher's checkpoint; the task that holds it.
    student: its settings.
    layers: of the teacher, that the student begins with; None: fresh weights.
    dropout: in both runs, whatever the student's settings, which are kept for later ones, say.
    training: settings of both runs.
    train_files, eval_files: examples.
    untaught: whether the same student is trained without the teacher, too.
    transform, masking: as `model.training.train` takes them; a teacher without a masked-language head, and its student,
        see the text as it is.
    """

    teacher: str
    task: Distillation
    student: EncoderSettings
    layers: Sequence[int] | None
    dropout: float
    training: TrainingSettings
    train_files: Sequence[str]
    eval_files: Sequence[str]
    untaught: bool
    transform: batches.Transform | None = None
    masking: str | None = None

    def start(self, folder: pathlib.Path) -> pathlib.Path:
        """By the layers: a run goes on with the same ones only."""
        fresh = (f"{self.student.num_layers}x{self.student.hidden_size}",)
        return folder / f"start-{'-'.join(map(str, self.layers or fresh))}"

    def begun(self) -> BertEncoder:
        if self.layers is not None:
            return smaller(self.task.teacher, Kept(self.layers))
        keras.utils.set_random_seed(self.training.seed)
        return BertEncoder(self.student, self.task.heads)

    def runs(self) -> Iterator[tuple[str, Task, dict]]:
        masked = {"transform": self.transform, "masking": self.masking}
        yield "taught", self.task, masked if self.task.speaks else {}
        if self.untaught:
            yield "untaught", Pretraining(next_sentence=False), masked


def train(plan: Plan, output: str, report: Callable[[int, Task, int, dict[str, float]], None]) -> Sequence[str]:
    """Trains, or goes on. `report` is called with (runs that are done, task, step, figures). Returns what the student
    leaves out of how its teacher makes one vector of a text, in lines."""
    folder, said = pathlib.Path(output), checkpoints.tokenizer(plan.teacher)
    start = plan.start(folder)
    if not start.is_dir():
        with storage.unfinished(folder, ".unfinished-start-") as partial:
            checkpoints.save(plan.begun(), partial, said)
            partial.rename(start)
    vocab = None  # the runs' models do without where there are more embeddings than tokens
    if said.tokens is not None and len(said.tokens) == plan.task.teacher.settings.vocab_size:
        vocab = str(folder / "vocab.txt")
        vocab_file.save(said.tokens, vocab)
    settings = dataclasses.replace(plan.student, dropout=plan.dropout, attention_dropout=plan.dropout)
    for done, (name, task, masked) in enumerate(plan.runs()):
        training.train(
            settings,
            plan.training,
            task=task,
            train_files=plan.train_files,
            eval_files=plan.eval_files,
            output=str(folder / name),
            vocab_path=vocab,
            lower_case=said.lower_case,
            init=str(start),
            **masked,
            report=functools.partial(_reported, report, done, task),
        )
    with storage.unfinished(folder, ".unfinished-model-") as partial:
        best = checkpoints.load(folder / "taught" / "best")
        kept = BertEncoder(plan.student, best.described_heads)
        names.assign(kept, names.arrays_of(best))
        checkpoints.save(kept, partial, said)
        left_out = checkpoints.write_sentences(partial, kept, plan.teacher)
        shutil.rmtree(folder / "model", ignore_errors=True)
        partial.rename(folder / "model")
    shutil.copy(folder / "taught" / "curves.png", folder / "curves.png")
    return left_out


def _reported(report, done, task, step, steps, figures) -> None:
    report(done, task, step, figures)


def compare(plan: Plan, output: str) -> list[dict]:
    """Size, speed and held-out figures of the teacher, of the students that are trained, and of what they began with;
    the report is written of them."""
    folder = pathlib.Path(output)
    places = {"student": folder / "taught" / "best", "untaught student": folder / "untaught" / "best"}
    places["before training"] = plan.start(folder)
    encoders = {"teacher": plan.task.teacher}
    encoders |= {name: checkpoints.load(place, plan.task.heads) for name, place in places.items() if place.is_dir()}
    spec, vocab_size = plan.task.spec, plan.task.teacher.settings.vocab_size
    files = list(batches.by_length(plan.eval_files, spec).values())[-1]
    examples = batches.open_examples(files, spec, vocab_size=vocab_size)
    speeds = _speeds(encoders, next(iter(examples.batches(SPEED_BATCH, shuffle=False))))
    found = []
    transform = plan.transform if plan.task.speaks else None
    for name, encoder in encoders.items():
        figures = Evaluation(plan.task, encoder, examples, plan.training.batch_size, transform)()
        parameters = sum(math.prod(weight.shape) for weight in encoder.weights)
        size = {"layers": encoder.settings.num_layers, "parameters": parameters, "megabytes": parameters * 4e-6}
        found.append({"model": name, **size, "examples_per_second": speeds[name], **figures})
    write_whole(json.dumps(found, indent=2) + "\n", folder / "report.json")
    write_whole(_report(plan, found), folder / "report.md")
    return found


def _speeds(encoders: Mapping[str, BertEncoder], batch: batches.Batch) -> dict[str, float]:
    """Examples a second of each."""
    graphs = {name: _hidden_states(encoder) for name, encoder in encoders.items()}

    def call(graph):
        return graph(batch).numpy()

    return speed.rates({name: functools.partial(call, graph) for name, graph in graphs.items()}, SPEED_BATCH)


def _hidden_states(encoder: BertEncoder) -> Callable[[batches.Batch], tf.Tensor]:
    return tf.function(lambda batch: encoder(batch)["sequence_output"], autograph=False)


def table(found: Sequence[dict]) -> list[list[str]]:
    """Of the models: names on top, then a line each."""
    columns = {
        "model": "model",
        "layers": "layers",
        "parameters": "parameters",
        "megabytes": "MB",
        "examples_per_second": "examples/s",
        "cosine": "cosine",
        "pooled": "pooled",
        "relations": "relations",
        "divergence": "divergence",
        "masked_lm_loss": "masked loss",
        "masked_lm_accuracy": "masked accuracy",
    }
    columns = {name: shown for name, shown in columns.items() if name in found[0]}
    return [[*columns.values()], *([number(one[name]) for name in columns] for one in found)]


def _report(plan: Plan, found: Sequence[dict]) -> str:
    head, *rows = table(found)
    task, training = plan.task, plan.training
    student = f"A student of {plan.student.num_layers} layers"
    if plan.layers is None:
        student += f" {plan.student.hidden_size} wide, of fresh weights, taught by"
    else:
        student += f", from those numbered {', '.join(map(str, plan.layers))} (from 0) of"
    student += f" `{plan.teacher}`, trained for {training.steps:,} steps of {training.batch_size} examples."
    if plan.untaught:
        student += " The untaught student began alike and saw the same batches, but no teacher."
    lines = ["# Distillation", "", student]
    lines += ["", f"| {' | '.join(head)} |", "|---" * len(head) + "|", *(f"| {' | '.join(row)} |" for row in rows), ""]
    about = "Figures are of held-out examples."
    if task.of_one_width:
        about += (
            " Cosine: of the last hidden states with the teacher's, mean over tokens. Pooled: of their means over the"
            " tokens of each text."
        )
    if task.relations:
        about += " Relations: divergence from the teacher's between the tokens of a text, in nats."
    if task.speaks:
        about += (
            f" Divergence: from the teacher's answers for masked tokens, in nats, at temperature {task.temperature:g}."
        )
    weights = ", ".join(f"{name} {getattr(task, name):g}" for name in WEIGHTS)
    settings = {
        "learning rate": training.learning_rate,
        "warm-up": training.warmup,
        "dropout": plan.dropout,
        "weights": weights,
        "seed": training.seed,
    }
    return "\n".join([*lines, about, "", *(f"- {name}: {value}" for name, value in settings.items()), ""])
