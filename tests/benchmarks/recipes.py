"""Which recipe of pretraining teaches most: successive halving, on budgets of processor time or of examples.

    python -m tests.benchmarks.recipes --output DIR --core-seconds 300 [--corpus FILE] [--trials FILE] [--nice]
    python -m tests.benchmarks.recipes --output DIR --examples 19200    # budgets of examples: on a machine with others

A trial is the demonstration's settings (`pipeline.settings.demo`) with some changed; `TRIALS` below, or a JSON file of
the same form. In each round every trial that is left trains from the start, its schedule ending with the budget, and
the better third goes on to three times the budget; of the last round the best are trained with more seeds. What a
budget of processor time holds is counted from what a step of those settings costs, measured once and kept in
`costs.json`; with a budget of examples every trial sees as many, and the table says at what cost.

Held-out documents are one in ten by the hash of their text, their examples always those of the defaults (pairs, 15 %
of single tokens masked), once for each vocabulary. With vocabularies of several sizes compare nats a byte, not a token:
smaller pieces are easier to guess. Each result is a line of `results.jsonl`; the same command goes on after the last.
"""

import argparse
import dataclasses
import hashlib
import itertools
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

from pipeline import values
from pipeline.settings import PipelineSettings, demo
from preprocessing import storage
from preprocessing.errors import require
from preprocessing.settings import ExampleSettings

ROOT = pathlib.Path(__file__).parents[2]
KEPT = 3  # one trial of so many goes on, to so many times the budget
CALIBRATION = 60  # steps, of which the last 40 are counted
# What each changes of the demonstration's settings. `phases` are shares of the steps; `masked_anew`: at training time.
TRIALS: dict[str, dict] = {
    "demo": {},
    "random weights": {"training": {"initial_weights": "random"}},
    "rate 1e-3": {"training": {"learning_rate": 1e-3}},
    "rate 2e-3": {"training": {"learning_rate": 2e-3}},
    "warm-up 1/13": {"warm_up": 1 / 13},
    "batch 16": {"training": {"batch_size": 16}},
    "batch 64, rate 3e-3": {"training": {"batch_size": 64, "learning_rate": 3e-3}},
    "batch 16, then 64": {"phases": [{"share": 0.5, "batch_size": 16}, {"share": 0.5, "batch_size": 64}]},
    "beta_2 0.999": {"training": {"beta_2": 0.999}},
    "lamb, rate 1e-2": {"training": {"optimizer": "lamb", "learning_rate": 1e-2}},
    "decay 0.1": {"training": {"weight_decay": 0.1}},
    "linear from step 0": {"training": {"schedule": "linear"}, "warm_up": 1 / 13},
    "constant": {"training": {"schedule": "constant"}},
    "initial weights 0.02": {"encoder": {"initializer_range": 0.02}},
    "initial weights 0.1": {"encoder": {"initializer_range": 0.1}},
    "four heads": {"encoder": {"num_heads": 4}},
    "masked 25 %": {"examples": {"masked_lm_prob": 0.25, "max_predictions": 32}},
    "masked 40 %": {"examples": {"masked_lm_prob": 0.4, "max_predictions": 52}},
    "masked anew": {"examples": {"masking": "none", "dupe_factor": 1}, "masked_anew": "token"},
    "whole words": {"examples": {"masking": "whole-word"}},
    "single segments": {"examples": {"pairs": "none"}, "training": {"next_sentence": False}},
    "near-duplicates out": {"corpus": {"near_duplicates": 0.8}},
    "vocabulary 4,000": {"vocabulary": {"size": 4000}},
    "vocabulary 16,000": {"vocabulary": {"size": 16000}},
    "length 32, then 128": {"phases": [{"share": 0.5, "max_seq_length": 32, "batch_size": 128}, {"share": 0.5}]},
    "bfloat16": {"training": {"precision": "bfloat16"}},
}
_OWN = ("phases", "warm_up", "masked_anew")  # of a trial, beside the parts of the settings


@dataclasses.dataclass(frozen=True)
class Trial:
    """A recipe to be tried: the settings with `steps` and `seed` in place, and what settings cannot say."""

    name: str
    change: dict
    steps: int
    seed: int

    @property
    def settings(self) -> PipelineSettings:
        parts = json.loads(demo().to_json())
        for part, change in self.change.items():
            if part not in _OWN:
                parts[part] |= change
        parts["encoder"]["vocab_size"] = parts["vocabulary"]["size"]
        phases, left = [], self.steps
        for number, phase in enumerate(self.change.get("phases", ())):
            last = number == len(self.change["phases"]) - 1
            steps = left if last else round(self.steps * phase["share"])
            left -= steps
            length = phase.get("max_seq_length", parts["examples"]["max_seq_length"])
            phases.append({"steps": steps, "max_seq_length": length, "batch_size": phase.get("batch_size")})
        warm_up = self.change.get("warm_up", demo().training.warmup / demo().training.steps)
        parts["training"] |= {
            "steps": self.steps,
            "warmup_steps": round(warm_up * self.steps),
            "phases": phases,
            "seed": self.seed,
            "evaluate_every": self.steps,
            "checkpoint_every": self.steps,
        }
        return values.build(PipelineSettings, parts, self.name)

    @property
    def examples_a_step(self) -> float:
        """On average; those of a shorter length count by their tokens."""
        training, length = self.settings.training, self.settings.examples.max_seq_length
        sizes = [
            (phase.steps, (phase.batch_size or training.batch_size) * (phase.max_seq_length or length) / length)
            for phase in training.phases
        ] or [(self.steps, training.batch_size)]
        return sum(steps * size for steps, size in sizes) / self.steps


def known_as(*parts) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


class Data:
    """Vocabularies and examples, made where they are first needed."""

    def __init__(self, folder: pathlib.Path, corpus: str | None):
        self._folder, self._corpus = folder, corpus

    def texts(self) -> dict[str, pathlib.Path]:
        from preprocessing.corpus import embedded

        paths = {part: self._folder / f"{part}.txt" for part in ("train", "held_out")}
        if not paths["train"].exists():
            whole = pathlib.Path(self._corpus) if self._corpus else self._folder / "embedded.txt"
            if not self._corpus:
                embedded.write(whole, demo().embedded_bytes)
            documents: dict[str, list[str]] = {"train": [], "held_out": []}
            for document in whole.read_text("utf-8").split("\n\n"):
                part = "train" if hashlib.sha256(document.encode()).digest()[0] % 10 else "held_out"
                documents[part].append(document.strip("\n"))
            for part in ("held_out", "train"):
                paths[part].write_text("\n\n".join(documents[part]) + "\n", "utf-8")
        return paths

    def vocabulary(self, settings: PipelineSettings) -> pathlib.Path:
        path = self._folder / f"vocab-{settings.vocabulary.size}.txt"
        if not path.exists():
            _bert("vocab", "--input", self.texts()["train"], "--size", settings.vocabulary.size, "--output", path)
        return path

    def examples(self, settings: PipelineSettings, part: str, length: int) -> pathlib.Path:
        """Folder of the examples of a part; the held-out ones are those of the defaults."""
        made = settings.examples if part == "train" else ExampleSettings(dupe_factor=1)
        near = settings.corpus.near_duplicates if part == "train" else None
        # As large a share of a shorter length is masked.
        most = round(made.max_predictions * length / made.max_seq_length)
        made = dataclasses.replace(made, max_seq_length=length, max_predictions=most)
        key = known_as(dataclasses.asdict(made), settings.vocabulary.size, near)
        folder = self._folder / f"{part}-{key}"
        if not (folder / "report.json").exists():
            options = {"max_seq_length", "max_predictions", "dupe_factor", "masked_lm_prob", "masking", "pairs"}
            flags = [f"--{name.replace('_', '-')}={getattr(made, name)}" for name in sorted(options)]
            flags += [f"--near-duplicates={near}"] if near else []
            text, vocabulary = self.texts()[part], self.vocabulary(settings)
            _bert("examples", "--input", text, "--vocab", vocabulary, "--output", folder, "--overwrite", *flags)
        return folder


def _bert(*arguments) -> None:
    command = [sys.executable, "-m", "pipeline.cli", *map(str, arguments)]
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)


def train(trial: Trial, data: Data) -> dict:
    """In a process of its own: trains, evaluates, and gives the figures with the processor time of a step."""
    from model import training
    from model.tasks.pretraining import Pretraining
    from model.training.evaluation import Evaluation
    from preprocessing import batches, tokenizer
    from preprocessing.batches import files
    from preprocessing.examples import masking

    settings = trial.settings
    length, vocabulary = settings.examples.max_seq_length, data.vocabulary(settings)
    lengths = sorted({phase.max_seq_length or length for phase in settings.training.phases} or {length})
    transform, kind = None, trial.change.get("masked_anew")
    if kind:
        words = masking.MaskingVocabulary.of(tokenizer.BertTokenizer.from_vocab(vocabulary))
        share, seed = settings.examples.masked_lm_prob, trial.seed

        def transform(batch, epoch):
            return masking.mask_features(batch, words, seed=seed, epoch=epoch, masking=kind, masked_lm_prob=share)

    task, marks = Pretraining(next_sentence=settings.training.next_sentence), []
    with tempfile.TemporaryDirectory() as output:
        result = training.train(
            settings.encoder,
            settings.training,
            task=task,
            train_files=[
                file for at in lengths for file in files.find_files(str(data.examples(settings, "train", at)))
            ],
            output=output,
            transform=transform,
            report=lambda step, total, figures: marks.append((step, time.process_time())),
        )
    folder = data.examples(settings, "held_out", length)
    held_out = batches.open_examples(files.find_files(str(folder)), task.spec)
    figures = Evaluation(task, result.encoder, held_out, 32)()
    # The first steps compile.
    costs = [(after[1] - before[1]) / (after[0] - before[0]) for before, after in itertools.pairwise(marks)]
    made = json.loads((folder / "report.json").read_text())
    return {
        "step_cost": statistics.median(costs) if not settings.training.phases else statistics.fmean(costs),
        "nats_a_byte": figures["masked_lm_loss"] * made["tokens"] / made["bytes"],
        **figures,
    }


class Results:
    """Lines of JSON: what is there is not trained again."""

    def __init__(self, path: pathlib.Path):
        self._path = path
        text = path.read_text() if path.exists() else ""
        whole = text[: text.rfind("\n") + 1]  # a line that was being written when a run was killed goes
        self.rows = [json.loads(line) for line in whole.splitlines()]
        if whole != text:
            storage.write_whole(whole, path)

    def of(self, trial: Trial) -> dict | None:
        key = known_as(trial.change, trial.steps, trial.seed)
        return next((row for row in self.rows if row["key"] == key), None)

    def add(self, trial: Trial, figures: dict) -> dict:
        row = {"key": known_as(trial.change, trial.steps, trial.seed), "trial": trial.name, "steps": trial.steps}
        row |= {"seed": trial.seed, "examples": round(trial.steps * trial.examples_a_step), **figures}
        row["core_seconds"] = round(figures["step_cost"] * trial.steps, 2)
        row["change"] = trial.change
        with self._path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        self.rows.append(row)
        return row


def gain(row: dict) -> float:
    """Nats by which the held-out loss beats the unigram distribution's."""
    return row["unigram_loss"] - row["masked_lm_loss"]


def show(rows: list[dict]) -> None:
    print(f"{'recipe':24} {'steps':>7} {'examples':>9} {'core-s':>8} {'masked':>7} {'gain':>6} {'nats/byte':>9} "
          f"{'accuracy':>8} {'next':>6} seed", flush=True)  # fmt: skip
    for row in rows:
        print(
            f"{row['trial']:24} {row['steps']:7,} {row['examples']:9,} {row['core_seconds']:8,.0f} "
            f"{row['masked_lm_loss']:7.3f} {gain(row):6.3f} {row['nats_a_byte']:9.4f} {row['masked_lm_accuracy']:8.4f} "
            f"{row.get('next_sentence_accuracy', float('nan')):6.3f} {row['seed']}",
            flush=True,
        )


class Search:
    """Rounds of trials, each in a process of its own."""

    def __init__(self, options, changes: dict[str, dict]):
        self._options, self._changes = options, changes
        self._folder = pathlib.Path(options.output)
        self.results = Results(self._folder / "results.jsonl")
        self._costs = self._folder / "costs.json"

    def trial(self, name: str, budget: float, seed: int) -> Trial:
        change = self._changes[name]
        if self._options.examples:
            return Trial(name, change, max(10, round(budget / Trial(name, change, 1000, seed).examples_a_step)), seed)
        return Trial(name, change, max(10, round(budget / self._cost(name))), seed)

    def _cost(self, name: str) -> float:
        """Core-seconds of a step, measured once."""
        known = json.loads(self._costs.read_text()) if self._costs.exists() else {}
        key = known_as(self._changes[name])
        if key not in known:
            known[key] = self._process(Trial(name, self._changes[name], CALIBRATION, 0))["step_cost"]
            self._costs.write_text(json.dumps(known))
        return known[key]

    def run(self, trial: Trial) -> dict:
        found = self.results.of(trial) or self.results.add(trial, self._process(trial))
        show([found])
        return found

    def _process(self, trial: Trial) -> dict:
        options = [sys.executable, "-m", "tests.benchmarks.recipes", "--output", str(self._folder)]
        options += ["--corpus", self._options.corpus] if self._options.corpus else []
        with (self._folder / "log.txt").open("a") as log:
            done = subprocess.run(
                [*options, "--worker", json.dumps(dataclasses.asdict(trial))],
                cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True, check=False,
            )  # fmt: skip
        if done.returncode:
            raise SystemExit(f"{trial.name} ended early: see {self._folder / 'log.txt'}")
        return json.loads(done.stdout.splitlines()[-1])

    def search(self) -> None:
        names, budget = list(self._changes), self._options.core_seconds or self._options.examples
        budget /= KEPT ** (self._options.rounds - 1)
        measure = (
            "nats_a_byte" if any("vocabulary" in change for change in self._changes.values()) else "masked_lm_loss"
        )
        for number in range(self._options.rounds):
            print(f"\nround {number + 1}: {len(names)} recipes", flush=True)
            rows = {name: self.run(self.trial(name, budget, 0)) for name in names}
            last = number == self._options.rounds - 1
            left = self._options.finalists if last else max(self._options.finalists, -(-len(names) // KEPT))
            names = sorted(names, key=lambda name: rows[name][measure])[:left]
            budget *= 1 if last else KEPT
        print(f"\nfinalists, {self._options.seeds} seeds", flush=True)
        found = []
        for name in dict.fromkeys([*names, *(["demo"] if "demo" in self._changes else [])]):
            rows = [self.run(self.trial(name, budget, seed)) for seed in range(self._options.seeds)]
            means = {
                key: statistics.fmean(row[key] for row in rows)
                for key, value in rows[0].items() if isinstance(value, float) and all(key in row for row in rows)
            }  # fmt: skip
            found.append(
                rows[0]
                | means
                | {"seed": f"{len(rows)} seeds, {min(map(gain, rows)):.3f} to {max(map(gain, rows)):.3f}"}
            )
        print("\nmean of the seeds", flush=True)
        show(sorted(found, key=lambda row: row[measure]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", required=True, metavar="DIR")
    parser.add_argument(
        "--corpus", metavar="FILE", help="paragraphs, a blank line between documents; by default the embedded corpus"
    )
    parser.add_argument("--trials", metavar="FILE", help="JSON object: name -> what it changes, as TRIALS")
    parser.add_argument("--only", nargs="*", metavar="NAME", help="those of the trials")
    parser.add_argument("--core-seconds", type=float, help="processor time of a trial in the last round")
    parser.add_argument("--examples", type=float, help="examples of a trial in the last round, instead")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--finalists", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--nice", action="store_true", help="let everything else on the machine go first")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    folder = pathlib.Path(options.output)
    if options.worker:
        print(json.dumps(train(Trial(**json.loads(options.worker)), Data(folder, options.corpus))))
        return
    require(bool(options.core_seconds) != bool(options.examples), "give --core-seconds or --examples",
            (options.core_seconds, options.examples))  # fmt: skip
    if options.nice:
        os.nice(19)
    folder.mkdir(parents=True, exist_ok=True)
    changes = json.loads(pathlib.Path(options.trials).read_text()) if options.trials else TRIALS
    Search(
        options, {name: change for name, change in changes.items() if not options.only or name in options.only}
    ).search()


if __name__ == "__main__":
    main()
