"""What holds for each kind of fine-tuning, whatever it is for. A new one is tested by standing in CASES."""

import dataclasses
import functools
import json
import pathlib
import pickle
import shutil
import subprocess
import sys
import types
from collections.abc import Callable

import keras
import numpy as np
import pytest
from click.testing import CliRunner

from model import checkpoints
from model.encoder import BertEncoder
from model.settings import EncoderSettings
from pipeline import cli
from pipeline.finetuning import asking, kinds, planning
from pipeline.finetuning.kinds.classification import CLASSIFICATION
from pipeline.finetuning.kinds.kind import Kind
from pipeline.finetuning.kinds.multi_label import MULTI_LABEL
from pipeline.finetuning.kinds.question_answering import QUESTION_ANSWERING
from pipeline.finetuning.kinds.regression import REGRESSION
from pipeline.finetuning.kinds.similarity import SIMILARITY
from pipeline.finetuning.kinds.tagging import TAGGING
from preprocessing.errors import InputError
from preprocessing.tasks.tables import Columns
from serving.engine.settings import ModelSettings, ServerSettings
from serving.export import exporting, golden
from serving.signatures import ALL, TOKENIZE
from tests.data import ROOT
from tests.serving import small_model
from tests.serving.served import running

FAST = ["--epochs", "8", "--batch-size", "16", "--learning-rate", "1e-2", "--max-seq-length", "16"]


@dataclasses.dataclass(frozen=True)
class Case:
    """A kind, and what it learns from.

    Attributes:
        files: (folder) -> files of train and dev, in small_model's words, that it learns in eight epochs.
        options: of `bert finetune`, beside FAST.
        columns: of the files, by what `bert` calls them.
        least: of the kind's first figure on dev.
    """

    kind: Kind
    files: Callable[[pathlib.Path], tuple[pathlib.Path, pathlib.Path]]
    options: tuple[str, ...] = ()
    columns: tuple[tuple[str, str], ...] = ()
    least: float = 0.8

    @property
    def name(self):
        return " ".join((self.kind.name, *self.options))

    @property
    def named(self) -> list[str]:
        """The columns, as options."""
        return [word for name, column in self.columns for word in (f"--{name}", column)]

    def source(self, path, **more):
        return self.kind.source(str(path), Columns(**dict(self.columns), **more))


def wet_or_dry(folder):
    """Texts with "river" are wet, with "france" are dry; dev has a label more, and a row without."""

    def rows(count, seed):
        random = np.random.default_rng(seed)
        for _ in range(count):
            words = random.choice("paris is the capital of it lies on a run here no".split(), 6).tolist()  # noqa: SIM905
            label = str(random.choice(["wet", "dry"]))
            words[random.integers(6)] = {"wet": "river", "dry": "france"}[label]
            yield f"{' '.join(words)}\t{label}\n"

    (folder / "train.tsv").write_text("".join(rows(120, 0)))
    (folder / "dev.tsv").write_text("".join([*rows(40, 1), "the river\todd\n", "\twet\n", "the river\t\n"]))
    return folder / "train.tsv", folder / "dev.tsv"


def wet_and_run(folder):
    """Texts with "river" are wet, with "france" dry, with "run" fast: any of them."""

    def rows(count, seed):
        random = np.random.default_rng(seed)
        for _ in range(count):
            words = random.choice("paris is the capital of it lies on a here no".split(), 6).tolist()  # noqa: SIM905
            found = [word for word in ("river", "france", "run") if random.random() < 0.5]
            words[: len(found)] = found
            labels = [{"river": "wet", "france": "dry", "run": "fast"}[word] for word in found]
            yield f"{' '.join(words)}\t{', '.join(labels)}\n"

    (folder / "train.tsv").write_text("".join(rows(200, 0)))
    (folder / "dev.tsv").write_text("".join([*rows(40, 1), "the river\todd\n", "\twet\n"]))
    return folder / "train.tsv", folder / "dev.tsv"


def how_wet(folder):
    """The number of words "river"."""

    def rows(count, seed):
        random = np.random.default_rng(seed)
        for _ in range(count):
            words = random.choice(["the", "river"], 8, p=random.dirichlet([1, 1])).tolist()
            yield f"{' '.join(words)}\t{words.count('river')}\n"

    (folder / "train.tsv").write_text("".join(rows(200, 0)))
    (folder / "dev.tsv").write_text("".join([*rows(40, 1), "the river\tmuch\n"]))
    return folder / "train.tsv", folder / "dev.tsv"


def alike(folder):
    """How many of the words that may be are in both texts, or in none."""

    def rows(count, seed):
        random = np.random.default_rng(seed)
        words = ["paris", "river", "france", "run", "capital"]
        for _ in range(count):
            first = random.random(5) < 0.5
            second = np.where(random.random(5) < random.random(), first, ~first)
            texts = (" ".join(word for word, there in zip(words, of, strict=True) if there) for of in (first, second))
            yield "\t".join([*texts, str((first == second).sum())]) + "\n"

    (folder / "train.tsv").write_text("".join(rows(200, 0)))
    (folder / "dev.tsv").write_text("".join([*rows(40, 1), "the river\tpast france\tnot\n"]))
    return folder / "train.tsv", folder / "dev.tsv"


def places_and_teams(folder):
    """ "paris" is a place and "runner of X" a team, whatever X; dev has a type more, and a ragged sentence."""

    def rows(count, seed):
        random = np.random.default_rng(seed)
        for _ in range(count):
            lines = [f"{word} O" for word in random.choice(["it", "lies", "here", "no", "."], random.integers(2, 24))]
            for entity in ("paris B-LOC", "runner B-ORG\nof I-ORG\nriver I-ORG"):
                lines.insert(random.integers(len(lines) + 1), entity)
            yield "\n".join(lines) + "\n\n"

    (folder / "train.conll").write_text("".join(rows(120, 0)))
    (folder / "dev.conll").write_text("".join([*rows(40, 1), "it\n\n", "river B-SEA\n"]))
    return folder / "train.conll", folder / "dev.conll"


def where(folder):
    """The answer is the word "paris"; every third context has none, and some are longer than a window. In dev an answer
    is not where the file says, one nowhere."""

    def questions(count, seed):
        random = np.random.default_rng(seed)
        for number in range(count):
            words = random.choice(["it", "lies", "here", "no", "."], random.integers(2, 16)).tolist()
            place = int(random.integers(len(words)))
            words[place : place + 1] = ["paris"] if number % 3 else []
            start = len("".join(f"{word} " for word in words[:place]))
            answers = [{"text": "Paris", "answer_start": start}] if number % 3 else []
            context = " ".join(words).replace("paris", "Paris")
            yield {"id": str(number + 1000), "question": "capital?", "context": context or ".", "answers": answers}

    train, dev = questions(150, 0), [*questions(40, 1)]
    dev[1]["answers"][0]["answer_start"] = 99
    dev[2]["answers"][0]["text"] = "London"
    for name, rows in (("train", train), ("dev", dev)):
        paragraphs = [{"context": row.pop("context"), "qas": [row]} for row in rows]
        (folder / f"{name}.json").write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}))
    return folder / "train.json", folder / "dev.json"


WINDOWS = ("--stride", "4", "--max-question", "4", "--max-answer", "3")
CASES = (
    Case(CLASSIFICATION, wet_or_dry),
    Case(MULTI_LABEL, wet_and_run),
    Case(REGRESSION, how_wet),
    Case(SIMILARITY, alike, columns=(("text", "1"), ("second", "2"), ("label", "3"))),
    Case(TAGGING, places_and_teams),
    Case(QUESTION_ANSWERING, where, WINDOWS),
)
every = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def run(*arguments):
    result = CliRunner().invoke(cli.bert, [*map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


def finetune(case, folder, output, *more):
    train, dev = case.files(folder)
    files = ("--train", train, "--dev", dev, "--model", folder / "checkpoint", "--output", output)
    return run("finetune", "--task", case.kind.name, *files, *FAST, *case.options, *case.named, *more).stdout


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """case -> (folder of its files, the run's folder, what was told)"""
    runs = {}

    def of(case):
        if case.name not in runs:
            folder = tmp_path_factory.mktemp("tuned")
            keras.utils.set_random_seed(0)
            settings = EncoderSettings(
                len(small_model.VOCAB), 16, 1, 2, 32, max_positions=48, initializer_range=0.1, dropout=0.0
            )
            vocab = small_model.write_vocab(folder)
            checkpoints.save(BertEncoder(settings, ()), folder / "checkpoint", vocab, True)
            runs[case.name] = folder, folder / "out", finetune(case, folder, folder / "out")
        return runs[case.name]

    return of


def metrics_of(output):
    return json.loads((output / "metrics.json").read_text())


@every
def test_it_says_what_it_is(case):
    kind = case.kind
    assert kind in kinds.ALL
    assert len({other.name for other in kinds.ALL}) == len(kinds.ALL)
    assert set(kind.signatures) <= {signature.name for signature in ALL}
    assert {signature.kind for signature in ALL if signature.name in kind.signatures} == {kind.name}
    assert set(kind.defaults) <= {field.name for field in dataclasses.fields(planning.Options)}
    options = planning.Options.of(kind)
    assert options.watch == kind.watched[0]
    assert options.max_seq_length == kind.defaults["max_seq_length"]
    for name in set(planning.OWN) - set(kind.defaults):
        with pytest.raises(
            InputError, match=f"--task {kind.name} does not take. Received: '--{name.replace('_', '-')}"
        ):
            planning.Options.of(kind, **{name: "x"})
    with pytest.raises(InputError, match=r"--watch must be .* Received: 'nothing'"):
        planning.Options.of(kind, watch="nothing")


@pytest.mark.parametrize(
    ("kind", "balanced"),
    [(CLASSIFICATION, (2 / 3, 2.0)), (TAGGING, (2 / 3, 2.0)), (MULTI_LABEL, (1 / 3, 3.0))],
    ids=lambda value: getattr(value, "name", ""),
)
def test_weights_of_labels_are_of_a_file_or_balanced(kind, balanced, tmp_path):
    prepared = types.SimpleNamespace(labels=["A", "B"], train=types.SimpleNamespace(counts=[3, 1], texts=4))
    (tmp_path / "weights.tsv").write_text("A\t0.5\nB\t2\n")
    for said, expected in ((None, ()), ("balanced", balanced), (str(tmp_path / "weights.tsv"), (0.5, 2.0))):
        options = planning.Options.of(kind, class_weights=said)
        assert kind.task(prepared, options).class_weights == pytest.approx(expected)


@every
def test_a_file_is_opened_without_tensorflow(case, tmp_path):
    opened = f"kind.source({str(case.files(tmp_path)[1])!r}, Columns(**{dict(case.columns)!r}))"
    program = (
        "import sys; from pipeline.finetuning import kinds; from preprocessing.tasks.tables import Columns; "
        f"kind = next(kind for kind in kinds.ALL if kind.name == {case.kind.name!r}); "
        f"rows = list({opened}.rows(lambda line, reason: None)); "
        "print(len(rows), 'tensorflow' in sys.modules)"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    count, heavy = told.stdout.split()
    assert int(count) > 0
    assert heavy == "False"
    with pytest.raises(InputError, match=r"/none\.tsv"):
        case.kind.source("/none.tsv", Columns())


@every
def test_it_learns_and_leaves_what_there_is_to_know(case, tuned):
    _, output, told = tuned(case)
    kind, metrics = case.kind, metrics_of(output)
    settings = checkpoints.read_task(output / "model")
    assert settings.kind == kind.name
    for name in ("model", "last"):
        assert checkpoints.read_task(output / name) == settings
        assert checkpoints.load(output / name).heads == ((settings.head,) if settings.head else ())
    assert f"that after {metrics['best_step']:,} of " in told
    assert checkpoints.vocab_file(output / "model") is not None
    assert metrics[next(iter(kind.figures))] >= case.least
    assert metrics["seeds"] == {"12345": {name: metrics[name] for name in metrics["mean"]}}
    assert list(metrics["mean"]) == list(kind.figures)
    assert all(isinstance(metrics[name], float) for name in kind.figures)
    report = (output / "report.md").read_text()
    assert report.startswith(f"# {kind.title}\n")
    for name, title in kind.figures.items():
        assert f"| {title} | {metrics[name]:.4f} |" in report
        assert f"{title}: {metrics[name]:.4f}" in told
    assert "## Limits\n\n- Dev has " in report
    for path in (output / "curves.png", *output.glob("*.png")):
        assert path.read_bytes().startswith(b"\x89PNG")


@every
def test_each_row_of_dev_is_answered_once_in_order(case, tuned):
    folder, output, _ = tuned(case)
    source = case.source(case.files(folder)[1])
    rows = list(source.rows(lambda line, reason: None))
    answers = [json.loads(line) for line in (output / "predictions.jsonl").read_text().splitlines()]
    assert [(answer["file"], answer["line"]) for answer in answers] == [(row.file, row.line) for row in rows]
    assert metrics_of(output)["rows"] == len(rows)
    head, *errors = [line.split("\t") for line in (output / "errors.tsv").read_text().splitlines()]
    assert head == ["file", "line", "gold", "answer", "cost", "text"]
    costs = [float(error[4]) for error in errors]
    assert costs == sorted(costs, reverse=True)
    assert {len(error) for error in errors} <= {6}


def quickly(*kinds: Kind):
    """Of these at once, of the others where there is time."""
    marks = {True: [], False: [pytest.mark.long]}
    return pytest.mark.parametrize(
        "case", [pytest.param(case, id=case.name, marks=marks[case.kind in kinds]) for case in CASES]
    )


# Where the head is another's, the run is, too; a model of similarity has less of all of it.
each_head = quickly(CLASSIFICATION, TAGGING, QUESTION_ANSWERING)
one_head = quickly(CLASSIFICATION)


@pytest.mark.long
@every
def test_adapters_learn_and_are_in_the_kernels(case, tuned, tmp_path):
    folder, output, _ = tuned(case)
    told = finetune(case, folder, tmp_path, "--tune", "lora", "--rank", "4", "--learning-rate", "5e-2")
    metrics, first = metrics_of(tmp_path), next(iter(case.kind.figures))
    assert metrics[first] >= case.least - 0.1
    model = checkpoints.read(tmp_path / "model")
    begun = checkpoints.read(folder / "checkpoint").arrays
    changed = {name for name, array in model.arrays.items() if name in begun and (array != begun[name]).any()}
    layer = "bert/encoder/layer_0/attention/self"
    assert {f"{layer}/query/kernel", f"{layer}/value/kernel"} <= changed
    assert {name for name in changed if "/pooler/" not in name} == {f"{layer}/query/kernel", f"{layer}/value/kernel"}
    cost, whole = metrics["cost"], metrics_of(output)["cost"]
    assert whole["trained"] == whole["weights"] == sum(array.size for array in model.arrays.values())
    new = sum(array.size for name, array in model.arrays.items() if name not in begun or "/pooler/" in name)
    assert cost["trained"] == 4 * 4 * 16 + new
    assert cost["checkpoint_bytes"] < whole["checkpoint_bytes"]
    share = f"{cost['trained']:,} of {cost['weights']:,} weights"
    assert f"trained are {share} (" in told
    assert f"Cost: {share} trained, " in told
    assert "adapters of query and value have the rank 4" in told
    assert f"- cost: {share}" in (tmp_path / "report.md").read_text()


@pytest.mark.long
def test_a_tagger_is_taught_also_of_what_has_no_tags(tuned, tmp_path):
    case = next(case for case in CASES if case.kind is TAGGING)
    folder, output, _ = tuned(case)
    objects = []
    for place, one in enumerate(case.source(folder / "train.conll").rows(lambda line, reason: None)):
        wrong = one.tags[1:] + one.tags[:1]  # which only the teacher sets right
        objects.append({"words": one.words} | ({"tags": wrong} if place < 20 else {}))
    train = tmp_path / "train.jsonl"
    train.write_text("".join(json.dumps(one) + "\n" for one in objects))
    other = dataclasses.replace(case, files=lambda folder: (train, folder / "dev.conll"))
    told = finetune(other, folder, tmp_path / "out", "--teacher", output / "model", "--soft", "1")
    assert f"train: 100 sentences have no tags and are learned from the teacher alone: {train}:21; {train}:22" in told
    metrics = metrics_of(tmp_path / "out")
    assert metrics["entity_f1"] >= case.least > 0.5 > metrics["untaught"]["12345"]["entity_f1"]


@one_head
def test_the_same_again_and_a_run_that_was_killed_end_alike(case, tuned, tmp_path):
    """To the last bit; what has been done is not done again."""
    folder, output, _ = tuned(case)
    weights = (output / "model" / "model.safetensors").read_bytes()
    again = tmp_path / "again"
    shutil.copytree(output, again)
    shutil.rmtree(again / "model")
    place = again / "runs" / "12345"
    for name in ("best", "model"):
        shutil.rmtree(place / name)
    listed = sorted(place.glob("checkpoints/ckpt-*.index"), key=lambda path: int(path.stem.split("-")[1]))
    assert len(listed) == 2
    for path in place.glob(f"checkpoints/{listed[-1].stem}.*"):  # the newest of two: it was killed before
        path.unlink()
    (place / "checkpoints" / "checkpoint").unlink()
    shutil.copytree(output / "runs" / "12345" / "best", place / "best")
    before = {path.name: path.stat().st_mtime_ns for path in again.glob("examples/*.tfrecord")}
    finetune(case, folder, again)
    assert (again / "model" / "model.safetensors").read_bytes() == weights
    assert {path.name: path.stat().st_mtime_ns for path in again.glob("examples/*.tfrecord")} == before
    for name in ("predictions.jsonl", "errors.tsv", "model/task.json"):
        assert (again / name).read_text() == (output / name).read_text()
    with pytest.raises(InputError, match=r"learning_rate was 0\.01, now 0\.1"):
        finetune(case, folder, again, "--learning-rate", "0.1")


@pytest.fixture(scope="module")
def served(tuned):
    """case -> an export of few signatures, whose golden requests are answered in this process."""

    def of(case):
        _, output, _ = tuned(case)
        base = output / "served"
        if not base.exists():
            few = (TOKENIZE, *(signature for signature in ALL if signature.name in case.kind.signatures))
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(exporting, "export_version", functools.partial(exporting.export_version, signatures=few))
                patch.setattr(exporting, "_answer_elsewhere", lambda folder: golden.answer(str(folder)))
                run("export", "--model", output / "model", "--output", base)
        return base / "bert"

    return of


@each_head
def test_the_export_answers_as_the_figures_say(case, tuned, served):
    folder, output, _ = tuned(case)
    metrics, base = metrics_of(output), served(case)
    assert json.loads((base / "1" / exporting.REPORT).read_text())["task"]["kind"] == case.kind.name
    data = ("--data", case.files(folder)[1], *case.named)
    for model in (base, base / "1", output / "model"):
        found = json.loads(run("evaluate", "--model", model, *data, "--json").stdout)
        shared = set(found) & set(metrics)
        assert {"rows", next(iter(case.kind.figures))} <= shared
        for name in shared:
            assert found[name] == pytest.approx(metrics[name], abs=1e-5), name
    people = run("evaluate", "--model", output / "model", *data).stdout
    assert f"{found[next(iter(case.kind.figures))]:.4f}" in people


@every
def test_a_model_without_its_head_is_refused(case, tuned):
    folder, _, _ = tuned(case)
    asked = ("--data", case.files(folder)[1], *case.named, "--task", case.kind.name)
    with pytest.raises(
        InputError, match=f"checkpoint: it must answer {case.kind.name}. Received: the checkpoint has no"
    ):
        run("evaluate", "--model", folder / "checkpoint", *asked)


@one_head
def test_predictions_of_a_file(case, tuned, served, tmp_path):
    """An object a row, in order, the same from a checkpoint and an export; what cannot be answered says why."""
    folder, output, _ = tuned(case)
    dev = case.files(folder)[1]
    answers = []
    for name, model in (("a", output / "model"), ("b", served(case))):
        run("predict", "--model", model, "--input", dev, *case.named, "--output", tmp_path / name)
        answers.append([json.loads(line) for line in (tmp_path / name).read_text().splitlines()])
    aside = []
    source = case.source(dev, labelled=False)
    rows = list(source.rows(lambda line, reason: aside.append(line)))
    assert [answer["line"] for answer in answers[0]] == sorted([*(row.line for row in rows), *aside])
    assert [answer["line"] for answer in answers[0] if "error" in answer] == aside
    for first, second in zip(*answers, strict=True):
        assert_near(first, second)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]  # nothing half written
    told = run("predict", "--model", output / "model", "--input", dev, *case.named).stdout
    assert told == (tmp_path / "a").read_text()


@one_head
def test_a_server_is_asked_as_a_folder_is(case, tuned, served, tmp_path):
    """By gRPC and REST, whose numbers are told in fewer digits."""
    folder, _, _ = tuned(case)
    dev = case.files(folder)[1]
    asked = {"evaluate": ("--data", dev, *case.named, "--json"), "predict": ("--input", dev, *case.named)}
    figures = json.loads(run("evaluate", "--model", served(case), *asked["evaluate"]).stdout)
    answers = run("predict", "--model", served(case), *asked["predict"]).stdout.splitlines()
    with running(ServerSettings((ModelSettings("bert", str(served(case))),))) as server:
        for address, option in ((server.grpc, "--server"), (server.rest, "--rest")):
            found = json.loads(run("evaluate", "--model", address, *asked["evaluate"]).stdout)
            for name in figures.keys() - {"seconds", "rows_per_second"}:
                assert_near(found[name], figures[name])
            told = run("predict", option, address, *asked["predict"]).stdout.splitlines()
            for one, other in zip(told, answers, strict=True):
                assert_near(json.loads(one), json.loads(other))


def assert_near(first, second):
    """JSON values, numbers up to rounding."""
    if isinstance(first, dict):
        assert first.keys() == second.keys()
        for name, value in first.items():
            assert_near(value, second[name])
    elif isinstance(first, list):
        assert len(first) == len(second)
        for one, other in zip(first, second, strict=True):
            assert_near(one, other)
    else:
        assert first == (pytest.approx(second, abs=1e-5) if isinstance(second, float) else second)


@each_head
def test_slices_add_up(case, tuned):
    folder, output, _ = tuned(case)
    metrics = metrics_of(output)
    data = ("--data", case.files(folder)[1], *case.named)
    asked = ("evaluate", "--model", output / "model", *data, "--slices", "length,label")
    found = json.loads(run(*asked, "--json").stdout)["slices"]
    assert found["length"] == metrics["slices"]["length"]
    assert sum(part["rows"] for part in found["length"].values()) == metrics["rows"]
    assert len(found["label"]) > 1
    lines = run(*asked).stdout
    for part in found["label"]:
        assert f"  label {part}" in lines


@each_head
def test_judges_add_up(case, tuned, served):
    """What two have seen, one of them in another process, and one that has seen nothing, is what one would have."""
    folder, _, _ = tuned(case)
    source = case.source(case.files(folder)[1])
    rows = list(source.rows(lambda line, reason: None))
    with asking.opened(str(served(case) / "1")) as model:
        answered = list(asking.asked(case.kind, case.kind.signature(source), rows, model))
    merged, parts = case.kind.judge(), [answered, [], answered[:5], answered[5:]]
    whole, *judges = [case.kind.judge() for _ in parts]
    for judge, part in zip((whole, *judges), parts, strict=True):
        for row, answer in part:
            judge.add(row, answer)
    for judge in judges:
        merged.merge(pickle.loads(pickle.dumps(judge)))
    assert merged.figures() == pytest.approx(whole.figures(), abs=1e-12)
    assert merged.details() == whole.details()
    assert [*merged.notes(), *merged.lines()] == [*whole.notes(), *whole.lines()]
