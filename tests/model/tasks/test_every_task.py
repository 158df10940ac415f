"""What holds for each task, whatever it is for. A new one is tested by standing in CASES."""

import dataclasses
import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf

from model import checkpoints, training
from model.encoder import BertEncoder
from model.settings import TrainingSettings
from model.tasks.classification import Classification
from model.tasks.distillation import Distillation
from model.tasks.multi_label import MultiLabel
from model.tasks.pretraining import Pretraining
from model.tasks.question_answering import QuestionAnswering
from model.tasks.regression import Regression
from model.tasks.similarity import Similarity
from model.tasks.tagging import Tagging
from model.tasks.task import Task
from model.tasks.taught import Taught
from model.training.evaluation import Evaluation
from preprocessing import batches, features
from preprocessing.errors import InputError
from tests.data import ROOT
from tests.model import small_examples
from tests.model.tasks import upper


@dataclasses.dataclass(frozen=True)
class Case:
    """A task, and examples [count, ...] of small_examples' vocabulary that it can learn from: `arrays(count, seed)`.

    The task is made when it is first used: several workers must have found each other before TensorFlow does anything.
    """

    name: str
    made: Callable[[], Task]
    arrays: Callable[[int, int], dict[str, np.ndarray]]

    @functools.cached_property
    def task(self) -> Task:
        return self.made()

    def settings(self, **values) -> TrainingSettings:
        return dataclasses.replace(SETTINGS, next_sentence=getattr(self.task, "next_sentence", True), **values)

    def encoder(self) -> BertEncoder:
        return BertEncoder(ENCODER, self.task.heads)

    def batch(self, count: int, seed: int = 0) -> dict[str, tf.Tensor]:
        return small_examples.tensors(self.arrays(count, seed))


def classified(count: int, seed: int) -> dict[str, np.ndarray]:
    """In which third of the vocabulary the token is that the first half repeats."""
    arrays = upper.examples(count, seed)
    arrays = {name: arrays[name] for name in features.SEQUENCE_FEATURES}
    token = arrays[features.INPUT_IDS][:, : small_examples.LENGTH // 2].max(axis=1, keepdims=True)
    return arrays | {features.LABEL_IDS: np.minimum(token // 14, 2)}


def several(count: int, seed: int) -> dict[str, np.ndarray]:
    """Which thirds of the vocabulary its tokens are from."""
    arrays = classified(count, seed)
    label = arrays[features.LABEL_IDS]
    return arrays | {features.LABEL_IDS: (np.arange(3) <= label).astype(np.int32)}


def scored(count: int, seed: int) -> dict[str, np.ndarray]:
    """The greatest of its ids."""
    arrays = classified(count, seed)
    del arrays[features.LABEL_IDS]
    return arrays | {features.SCORES: arrays[features.INPUT_IDS].max(axis=1, keepdims=True).astype(np.float32)}


def compared(count: int, seed: int) -> dict[str, np.ndarray]:
    """Two texts in turn, the second one a token shorter: the share of tokens that they have in common."""
    arrays = scored(count, seed)
    ids, mask = arrays[features.INPUT_IDS], arrays[features.INPUT_MASK].copy()
    same = np.random.default_rng(seed).random(ids[:, ::2].shape) < np.linspace(0, 1, count)[:, None]
    ids[:, 1::2] = np.where(same, ids[:, ::2], ids[:, 1::2])
    arrays[features.INPUT_MASK][:, 1::2] = mask[:, ::2]
    mask[:, 1::2] = mask[:, ::2]
    last = np.maximum(mask.sum(1) // 2 * 2 - 1, 1)
    mask[np.arange(count), last] = 0
    share = same.mean(1, keepdims=True).astype(np.float32)
    zeros = np.zeros_like(ids)
    return arrays | {features.SEGMENT_IDS: zeros, features.TEXT_MASK: mask, features.SCORES: share}


def answered(count: int, seed: int) -> dict[str, np.ndarray]:
    """Where in the second half the one or two tokens are that the first half begins with, if they are."""
    arrays = upper.examples(count, seed)
    arrays = {name: arrays[name] for name in features.SEQUENCE_FEATURES}
    random, places = np.random.default_rng(seed), np.zeros((2, count, 1), int)
    for row, ids in enumerate(arrays[features.INPUT_IDS]):
        if row % 3:
            start, size = random.integers(9, 11), random.integers(1, 3)
            ids[start : start + size] = ids[1]
            places[:, row, 0] = start, start + size - 1
    return arrays | dict(zip((features.START_POSITIONS, features.END_POSITIONS), places, strict=True))


def tagged(count: int, seed: int) -> dict[str, np.ndarray]:
    """By its token: every word is of an entity of its third of the vocabulary, which one in five begins."""
    arrays = upper.examples(count, seed)
    arrays = {name: arrays[name] for name in features.SEQUENCE_FEATURES}
    token = arrays[features.INPUT_IDS]
    tag = np.where(token < 18, 5, 1 + 2 * (token > 28) + (token % 5 > 0))
    return arrays | {features.TAG_IDS: np.where((token > 4) & (arrays[features.INPUT_MASK] > 0), tag, 0)}


def distilled(*heads: str) -> Callable[[], Distillation]:
    def made():
        keras.utils.set_random_seed(3)  # the teachers must be the same in each process
        return Distillation(small_examples.encoder(heads))

    return made


def of_another_width() -> Distillation:
    keras.utils.set_random_seed(5)
    teacher = small_examples.encoder(("masked_lm",), hidden_size=24, num_heads=4)
    return Distillation(teacher, cosine=0.0, relations=1.0, hidden_size=16, relation_layer=0)


def of_texts() -> Distillation:
    keras.utils.set_random_seed(6)
    return Distillation(small_examples.encoder(()), pooled=1.0)


def taught(task: Callable[[], Task]) -> Callable[[], Taught]:
    def made():
        keras.utils.set_random_seed(4)
        return Taught(task(), BertEncoder(small_examples.encoder_settings(), task().heads))

    return made


PRETRAINING = Case("pretraining", Pretraining, small_examples.examples)
UPPER = Case("upper", upper.Upper, upper.examples)
CLASSIFICATION = Case("classification", lambda: Classification(3, (1.0, 2.0, 0.5)), classified)
MULTI_LABEL = Case("multi-label", lambda: MultiLabel(3, (1.0, 2.0, 0.5)), several)
REGRESSION = Case("regression", lambda: Regression(20.0, 8.0), scored)
SIMILARITY = Case("similarity", Similarity, compared)
OF_CLS = Case("similarity by [CLS]", lambda: Similarity(-1.0, 2.0, pooling="cls"), compared)
TAGGING = Case("tagging", lambda: Tagging(("B-A", "I-A", "B-B", "I-B", "O"), "entity_f1"), tagged)
ANSWERING = Case("question answering", QuestionAnswering, answered)
MASKED = Case("masked tokens alone", lambda: Pretraining(next_sentence=False), small_examples.examples)
DISTILLATION = Case("distillation", distilled("masked_lm"), small_examples.examples)
SEEN = Case("distillation of hidden states alone", distilled(), small_examples.examples)
RELATIONS = Case("distillation to another width", of_another_width, small_examples.examples)
POOLED = Case("distillation of texts", of_texts, small_examples.examples)
MEAN = Case("classification by the mean", lambda: Classification(3, pooling="mean"), classified)
TAUGHT = Case("taught classification", taught(lambda: Classification(3, (1.0, 2.0, 0.5))), classified)
TAUGHT_TAGS = Case("taught tagging", taught(lambda: Tagging(("B-A", "I-A", "B-B", "I-B", "O"))), tagged)
CASES = (
    PRETRAINING,
    MASKED,
    UPPER,
    CLASSIFICATION,
    MEAN,
    MULTI_LABEL,
    REGRESSION,
    SIMILARITY,
    OF_CLS,
    TAGGING,
    ANSWERING,
    DISTILLATION,
    SEEN,
    RELATIONS,
    POOLED,
    TAUGHT,
    TAUGHT_TAGS,
)
# For those of which a run takes seconds; a task of a head that another has would only be trained once more.
TRAINED = (PRETRAINING, UPPER, CLASSIFICATION, TAGGING, DISTILLATION, TAUGHT)
every = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
# Those whose runs others stand for in the fast tests: a figure that is better the higher, and two models at once.
SLOW = (UPPER, TAGGING, DISTILLATION, TAUGHT)
trained = pytest.mark.parametrize(
    "case", [pytest.param(case, id=case.name, marks=[pytest.mark.long] * (case in SLOW)) for case in TRAINED]
)
ENCODER = small_examples.encoder_settings(num_layers=1)
# Dropout stays on: its random numbers must resume, too.
SETTINGS = TrainingSettings(
    steps=32,
    batch_size=16,
    accumulate=2,
    buckets=(8, 14),
    learning_rate=1e-2,
    bias_correction=True,
    steps_per_call=4,
    evaluate_every=8,
    report_every=8,
    checkpoint_every=8,
)


def numbers(sums):
    return {name: np.asarray(value, np.float64) for name, value in sums.items()}


def added(parts):
    return {name: sum(part[name] for part in parts) for name in parts[0]}


def close(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-4, err_msg=name)


@every
def test_sums_and_figures_are_named_and_finite(case):
    task, encoder, batch = case.task, case.encoder(), case.batch(6)
    sums, totals, held_out = task.sums(encoder, batch), task.totals(batch), task.held_out(encoder, batch)
    assert set(sums) == set(task.sum_names)
    assert all((value.shape, value.dtype) == ((), tf.float32) for value in sums.values())
    assert totals.keys() <= sums.keys()
    close(numbers(totals), {name: numbers(sums)[name] for name in totals})
    assert np.isfinite(float(task.loss(sums, totals)))
    told, held = task.figures({name: float(value) for name, value in sums.items()}), task.figures(numbers(held_out))
    assert all(type(value) is float and np.isfinite(value) for value in (*told.values(), *held.values()))
    assert task.watched in held
    for curve in task.curves:
        assert curve.figure in told | held
        assert curve.baseline is None or curve.baseline in held
    assert json.loads(json.dumps(dict(task.description))) == task.description


@every
def test_nothing_is_told_of_nothing(case):
    found = case.task.figures(dict.fromkeys(case.task.sum_names, 0.0))
    assert found
    assert all(np.isnan(value) for value in found.values())


@every
def test_rows_that_fill_a_batch_count_nowhere(case):
    task, encoder, batch = case.task, case.encoder(), case.batch(5)
    filled = {name: tf.pad(value, [[0, 3], [0, 0]]) for name, value in batch.items()}
    for of in (task.totals, lambda part: task.sums(encoder, part), lambda part: task.held_out(encoder, part)):
        close(numbers(of(filled)), numbers(of(batch)))


@every
def test_parts_add_up_to_the_whole(case):
    """Sums and loss, wherever a batch is cut: among devices, and in accumulation."""
    task, encoder, batch = case.task, case.encoder(), case.batch(9)
    parts = [{name: value[rows] for name, value in batch.items()} for rows in (slice(0, 2), slice(2, 9))]
    totals, of_parts = task.totals(batch), [task.sums(encoder, part) for part in parts]
    close(numbers(added(of_parts)), numbers(task.sums(encoder, batch)))
    close(added([numbers(task.held_out(encoder, part)) for part in parts]), numbers(task.held_out(encoder, batch)))
    loss = float(task.loss(task.sums(encoder, batch), totals))
    assert sum(float(task.loss(sums, totals)) for sums in of_parts) == pytest.approx(loss, rel=1e-4)


@every
def test_its_examples_are_those_of_its_spec(case, tmp_path):
    path = small_examples.write(tmp_path / "a.tfrecord", case.arrays(20, 0))
    examples = batches.open_examples([path], case.task.spec, vocab_size=small_examples.VOCAB)
    case.task.check(case.settings(), examples, None)
    assert set(features.SEQUENCE_FEATURES) <= set(examples.arrays)
    samples = case.task.samples(case.encoder(), case.batch(3), [f"t{i}" for i in range(small_examples.VOCAB)])
    assert all(isinstance(text, str) for text in samples.values())


def write(case, folder):
    """What `train` reads; whole or absent, since several workers write the same."""
    for name, made in (("train", (300, 0)), ("eval", (50, 1))):
        partial = folder / f"{name}.{os.getpid()}"
        small_examples.write(partial, case.arrays(*made))
        partial.replace(folder / f"{name}.tfrecord")
    return folder


def train(case, folder, output, settings=None, encoder_settings=ENCODER, **options):
    return training.train(
        encoder_settings,
        settings or case.settings(),
        task=case.task,
        train_files=[str(folder / "train.tfrecord")],
        output=str(output),
        **({"eval_files": [str(folder / "eval.tfrecord")]} | options),
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """case -> (its folder of examples, the run's folder, the result) of a run without interruption."""
    runs = {}

    def of(case):
        if case.name not in runs:
            folder = write(case, tmp_path_factory.mktemp("run"))
            vocabulary = small_examples.write_vocabulary(folder / "vocab.txt")
            runs[case.name] = folder, folder / "run", train(case, folder, folder / "run", vocab_path=vocabulary)
        return runs[case.name]

    return of


def history(output, kind):
    rows = [json.loads(line) for line in (output / "history.jsonl").read_text().splitlines()]
    return [row for row in rows if row["kind"] == kind]


def assert_same(first, second):
    for one, other in zip(first.weights, second.weights, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy(), err_msg=one.path)


@trained
def test_it_is_trained_and_shown(case, whole):
    _, output, result = whole(case)
    task, rows = case.task, history(output, "training")
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert {"learning_rate", "tokens_per_second", *(curve.figure for curve in task.curves)} <= set(rows[0])
    assert [row["step"] for row in history(output, "held_out")] == [8, 16, 24, 32]
    assert history(output, "held_out")[-1].items() >= result.metrics.items()
    assert (output / "curves.png").read_bytes().startswith(b"\x89PNG")
    logs = b"".join(path.read_bytes() for path in (output / "logs").iterdir())
    assert all(
        title.encode() in logs for title in task.samples(result.encoder, case.batch(1), ["t"] * small_examples.VOCAB)
    )


@trained
def test_the_model_it_leaves_is_the_result_with_its_heads(case, whole):
    _, output, result = whole(case)
    loaded = checkpoints.load(output / "model")
    assert loaded.described_heads == result.encoder.described_heads == case.encoder().described_heads
    assert_same(loaded, result.encoder)
    assert checkpoints.vocab_file(output / "model") is not None


@trained
def test_the_best_is_by_the_figure_that_it_watches(case, whole):
    folder, output, _ = whole(case)
    task, paths = case.task, [str(folder / "eval.tfrecord")]
    examples = batches.open_examples(paths, task.spec, vocab_size=small_examples.VOCAB)
    best = Evaluation(task, checkpoints.load(output / "best"), examples, SETTINGS.batch_size)
    seen = [row[task.watched] for row in history(output, "held_out")]
    stored = tf.train.load_checkpoint(str(output / "checkpoints")).get_tensor("best_loss/.ATTRIBUTES/VARIABLE_VALUE")
    sign = 1 if task.lower_is_better else -1
    assert best(SETTINGS.evaluation_examples)[task.watched] == pytest.approx(sign * min(sign * v for v in seen))
    assert float(stored) in [pytest.approx(min(sign * v for v in values)) for values in (seen, seen[:-1])]


@trained
@pytest.mark.parametrize("limit", [None, SETTINGS.batch_size])
def test_figures_are_the_same_of_batches_cut_to_their_lengths(case, whole, limit):
    folder, output, _ = whole(case)
    paths = [str(folder / "eval.tfrecord")]
    examples = batches.open_examples(paths, case.task.spec, vocab_size=small_examples.VOCAB)
    encoder = checkpoints.load(output / "model")
    longest = examples.arrays[features.INPUT_MASK].sum(1)
    assert longest.min() < longest.max()
    found = [
        Evaluation(case.task, encoder, examples, SETTINGS.batch_size, buckets=buckets)(limit)
        for buckets in ((), tuple(range(1, longest.max())))
    ]
    assert found[1] == pytest.approx(found[0], abs=1e-5, nan_ok=True)


@trained
def test_it_goes_on_where_it_was_interrupted(case, whole, tmp_path):
    folder, output, result = whole(case)

    def interrupt(step, *_):
        if step == 16:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(case, folder, tmp_path, report=interrupt)
    told = []
    resumed = train(case, folder, tmp_path, report=lambda step, *_: told.append(step))
    assert told == [16, 24, 32]
    assert_same(resumed.encoder, result.encoder)
    assert resumed.metrics == result.metrics
    assert history(tmp_path, "held_out") == history(output, "held_out")


# With AdamW, too, for one of them: that is the optimizer's.
FEW_STEPS = (*((case, "sgd", 1e-6) for case in TRAINED), (PRETRAINING, "adamw", 1e-5))
TWO_DEVICES = """
import pathlib, sys
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from tests.model.tasks import test_every_task
test_every_task.train_few_steps(pathlib.Path(sys.argv[1]), *sys.argv[2:], recompute=True)  # must not matter either
"""


def train_few_steps(folder, *names, **values):
    """Six steps of each on all devices there are, without dropout; leaves the weights in the folder. `names`: of the
    cases, else all."""
    for case, optimizer, _ in FEW_STEPS:
        if names and case.name not in names:
            continue
        of = folder / f"{case.name} {optimizer}"
        of.mkdir(parents=True, exist_ok=True)
        settings = case.settings(
            steps=6, batch_size=8, buckets=(), optimizer=optimizer, learning_rate=3e-3, warmup_steps=0, **values
        )
        still = dataclasses.replace(ENCODER, dropout=0.0, attention_dropout=0.0)
        result = train(case, write(case, of), of / "run", settings, still, eval_files=[])
        np.savez(of / "weights.npz", *[weight.numpy() for weight in result.encoder.weights])


def assert_same_few_steps(one, other, *names):
    for case, optimizer, tolerance in FEW_STEPS:
        name = f"{case.name} {optimizer}"
        if names and case.name not in names:
            continue
        first, second = (np.load(folder / name / "weights.npz") for folder in (one, other))
        for array in first.files:
            np.testing.assert_allclose(first[array], second[array], atol=tolerance, rtol=0, err_msg=f"{name} {array}")


@pytest.mark.parametrize("names", [(PRETRAINING.name,), pytest.param((), id="all", marks=pytest.mark.long)])
def test_two_devices_give_the_weights_of_one(tmp_path, names):
    """In particular: nothing is summed over devices twice."""
    command = [sys.executable, "-c", TWO_DEVICES, str(tmp_path / "two"), *names]
    two = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE)
    train_few_steps(tmp_path / "one", *names)
    _, errors = two.communicate()
    assert two.returncode == 0, errors.decode()[-2000:]
    assert_same_few_steps(tmp_path / "one", tmp_path / "two", *names)


def test_another_description_is_another_run(whole):
    folder, output, _ = whole(UPPER)
    other = dataclasses.replace(UPPER, made=lambda: upper.Upper(smoothing=0.1))
    with pytest.raises(InputError, match=r"task\.smoothing was 0\.0, now 0\.1"):
        train(other, folder, output, vocab_path=str(folder / "vocab.txt"))


def test_samples_are_of_four_rows_with_all_tokens(whole):
    logs = b"".join(path.read_bytes() for path in (whole(UPPER)[1] / "logs").iterdir())
    assert b"40 tokens, 4 rows" in logs
