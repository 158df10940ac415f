"""What a budget of processor time buys: mini, pretrained by us and by Hugging Face's Trainer on the very same examples.

    setsid python -m tests.benchmarks.quality --peer-python PATH --core-hours 4 --output DIR [--nice]

The folder of real text (`BERT_DATA`) is split by documents: one in twenty, by the hash of its text, is held out (other
chapters of the same book are not). Each side is a process with two threads that knows its budget in processor time: it
measures what a step costs, then trains as many steps as the budget holds, so that the learning rate reaches 0 with its
end. The sides take turns, a point of the curve each; held-out figures are not charged. Whatever else runs here takes
time, but none of the budget: pause all with `kill -STOP -- -GROUP`, go on with `kill -CONT -- -GROUP`, where GROUP is
the number that is printed first. DIR gets `examples/`, `curves.json` and `curves.png`, renewed at each point, and the
newest states of both sides: whatever ended a run, the same command goes on from its last points.

Both sides: AdamW with bias correction, the same peak learning rate, a tenth of the steps warm-up, then linearly down;
weight decay 0.01 of matrices, gradients clipped at 1; batches of 32 at length 128; no dropout, since hardly an example
is seen twice; GELU by its tanh approximation; float32 unless said otherwise. With `--recipe` ours follows that of
`bert train`; our model is left in `DIR/model`.
"""

import argparse
import hashlib
import json
import os
import pathlib
import subprocess
import sys
import time

import numpy as np

ROOT = pathlib.Path(__file__).parents[2]
BATCH_SIZE, VOCAB = 32, 30_522
EVALUATED = 1024  # held-out examples at a point of the curve; all of them at the last
WARM_UP, CALIBRATION = 4, 12  # steps
LABELS = {"ours": "ours", "peer": "Hugging Face Trainer"}


def make_examples(folder: pathlib.Path, dupe_factor: int) -> None:
    """`train` and `held_out` below the folder: example files, and the same as arrays for who cannot read those."""
    from preprocessing import batches, features
    from preprocessing.batches import files as example_files
    from tests import data

    if (folder / "done").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    documents: dict[str, list[str]] = {"train": [], "held_out": []}
    for path in sorted((data.folder() / "corpus_en").rglob("*.txt")):
        for document in path.read_text().split("\n\n"):
            part = "train" if hashlib.sha256(document.encode()).digest()[0] % 20 else "held_out"
            documents[part].append(document.strip("\n"))
    vocabulary = data.folder() / "vocab" / "bert-base-uncased-vocab.txt"
    for part, copies in (("train", dupe_factor), ("held_out", 1)):
        text = folder / f"{part}.txt"
        text.write_text("\n\n".join(documents[part]) + "\n")
        command = [sys.executable, "-m", "pipeline.cli", "examples", "--input", text, "--vocab", vocabulary]
        command += ["--output", folder / part, "--dupe-factor", str(copies), "--overwrite"]
        subprocess.run(command, check=True, cwd=ROOT)
        files = example_files.find_files(str(folder / part))
        arrays = batches.open_examples(files, features.MASKED_PAIRS, vocab_size=VOCAB).arrays
        for name, array in arrays.items():
            np.save(folder / part / name, array)
    (folder / "done").touch()


def ours(options) -> None:
    """Our side, in a process of its own. Answers as `quality_peer.py` does: see `Side`."""
    import tensorflow as tf

    from model import checkpoints, settings
    from model.encoder import BertEncoder
    from model.settings import TrainingSettings
    from model.tasks.pretraining import Pretraining
    from model.training.evaluation import Evaluation
    from model.training.fresh import inform
    from model.training.loop import Loop
    from model.training.optimizer import Optimizer
    from model.training.step import LossScale
    from pipeline.settings import RECIPES, Recipe
    from preprocessing import batches, features
    from preprocessing.batches import files
    from tests import data

    tf.config.threading.set_intra_op_parallelism_threads(2)
    tf.config.threading.set_inter_op_parallelism_threads(2)
    train, held_out = (
        batches.open_examples(files.find_files(f"{options.output}/examples/{part}"), features.MASKED_PAIRS)
        for part in ("train", "held_out")
    )

    plain = Recipe({"learning_rate": options.learning_rate, "bias_correction": True}, dropout=0.0)
    recipe = RECIPES[options.recipe] if options.recipe else plain

    def start(steps):
        tf.keras.utils.set_random_seed(options.seed)
        mini = settings.mini()
        asked = recipe.steps(steps, mini.hidden_size)
        training = TrainingSettings(
            **asked | {"steps": steps, "batch_size": BATCH_SIZE, "precision": options.precision}
        )
        encoder = BertEncoder(recipe.encoder(mini), dtype=training.dtype_policy)
        if training.initial_weights == "informed":
            inform(encoder, train, None)
        optimizer = Optimizer(training, encoder.trainable_variables, 4)
        scale = LossScale(options.precision)
        loop = Loop(training, Pretraining(), tf.distribute.get_strategy(), encoder, optimizer, scale)
        return encoder, optimizer, loop

    reached = json.loads(options.worker)
    if reached:
        step, used, cost = reached["step"], reached["core_seconds"], reached["step_cost"]
    else:
        *_, loop = start(WARM_UP + CALIBRATION)
        source = loop.iterator(train, BATCH_SIZE, 0)
        loop.run(source, 0, WARM_UP)
        began = time.process_time()
        loop.run(source, WARM_UP, WARM_UP + CALIBRATION)
        step, used, cost = 0, 0.0, (time.process_time() - began) / CALIBRATION

    steps = max(options.points, int(options.core_hours * 3600 / cost))
    encoder, optimizer, loop = start(steps)
    checkpoint = tf.train.Checkpoint(weights=[weight.value for weight in encoder.weights], slots=optimizer.slots)
    states = tf.train.CheckpointManager(checkpoint, f"{options.output}/ours", max_to_keep=2)
    if reached:
        checkpoint.restore(f"{options.output}/ours/ckpt-{step}").assert_consumed()
    source = loop.iterator(train, BATCH_SIZE, step)
    evaluation = Evaluation(Pretraining(), encoder, held_out, BATCH_SIZE)
    marks = [steps * point // options.points for point in range(options.points + 1)]
    for mark in [mark for mark in marks if mark > step or not reached]:
        began = time.process_time()
        if loop.run(source, step, mark).bad_step is not None:
            raise SystemExit("the loss is not finite")
        used += time.process_time() - began if mark else 0.0
        step = mark
        figures = evaluation(None if step == steps else EVALUATED)
        states.save(checkpoint_number=step)
        vocabulary = data.folder() / "vocab" / "bert-base-uncased-vocab.txt"
        checkpoints.save(encoder, f"{options.output}/model", vocab=str(vocabulary), lower_case=True)
        print(json.dumps({"step": step, "core_seconds": used, "step_cost": cost, **figures}), flush=True)
        if not sys.stdin.readline():
            return


class Side:
    """A process that trains to the next point of its curve when asked. Its last argument is the point reached."""

    def __init__(self, name: str, command: list[str], output: pathlib.Path, points: list[dict]):
        self.name, self.points = name, points
        self._command = [*command, json.dumps(points[-1] if points else None)]
        self._log = output / f"{name}.log"
        self._process: subprocess.Popen | None = None

    def go_on(self) -> dict:
        if self._process is None:
            with open(self._log, "a") as log:
                self._process = subprocess.Popen(
                    self._command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
                )
        else:
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended early: see {self._log}")
        self.points.append(json.loads(line))
        return self.points[-1]

    def close(self):
        if self._process:
            self._process.kill()
            self._process.wait()


def plot(curves: dict[str, list[dict]], path: pathlib.Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, name in zip(figure.subplots(1, 2), ("masked_lm_loss", "masked_lm_accuracy"), strict=True):
        for side, points in curves.items():
            hours = [point["core_seconds"] / 3600 for point in points]
            axes.plot(hours, [point[name] for point in points], marker=".", label=LABELS[side])
        axes.set(xlabel="core-hours of training", title=f"held-out {name.replace('_', ' ')}")
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=120)


def show(name: str, point: dict) -> None:
    print(
        f"{LABELS[name]:21} {point['core_seconds'] / 3600:7.3f} core-hours {point['step']:7,} steps of "
        f"{point['step_cost']:6.3f} core-s  masked loss {point['masked_lm_loss']:6.3f} accuracy "
        f"{point['masked_lm_accuracy']:.4f}  next sentence {point['next_sentence_accuracy']:.4f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer-python", help="an interpreter with torch, transformers and accelerate")
    parser.add_argument("--core-hours", type=float, default=4.0, help="processor time of each side")
    parser.add_argument("--output", default="quality", metavar="DIR")
    parser.add_argument("--points", type=int, default=20, help="of the curve, after the first")
    parser.add_argument("--dupe-factor", type=int, default=5, help="differently masked copies of the text")
    parser.add_argument("--recipe", help="of `bert train`, for ours: short, say")
    parser.add_argument("--seed", type=int, default=1, help="of ours")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--peer-learning-rate", type=float, help="by default the same")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--nice", action="store_true", help="let everything else on the machine go first")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return ours(options)
    from model.training.state import claim

    print(f"process group {os.getpgid(0)}", flush=True)
    if options.nice:
        os.nice(19)
    output = pathlib.Path(options.output).resolve()
    decisive = ("core_hours", "points", "dupe_factor", "learning_rate", "peer_learning_rate", "precision")
    decisive += ("recipe", "seed")
    claim(str(output), quality={name: getattr(options, name) for name in decisive})
    make_examples(output / "examples", options.dupe_factor)

    curves = output / "curves.json"
    points = json.loads(curves.read_text()) if curves.exists() else {}
    own = [sys.executable, "-m", "tests.benchmarks.quality", *sys.argv[1:], "--output", str(output), "--worker"]
    commands = {"ours": own}
    if options.peer_python:
        given = {
            "examples": str(output / "examples"),
            "states": str(output / "peer"),
            "budget": options.core_hours * 3600,
            "points": options.points,
            "batch_size": BATCH_SIZE,
            "learning_rate": options.peer_learning_rate or options.learning_rate,
            "precision": options.precision,
            "evaluated": EVALUATED,
            "warm_up": WARM_UP,
            "calibration": CALIBRATION,
        }
        peer = str(pathlib.Path(__file__).with_name("quality_peer.py"))
        commands["peer"] = [options.peer_python, peer, json.dumps(given)]
    sides = [Side(name, command, output, points.setdefault(name, [])) for name, command in commands.items()]
    try:
        while behind := [side for side in sides if len(side.points) <= options.points]:
            side = min(behind, key=lambda side: len(side.points))
            show(side.name, side.go_on())
            curves.with_suffix(".tmp").write_text(json.dumps(points, indent=1))
            curves.with_suffix(".tmp").replace(curves)
            plot(points, output / "curves.png")
    finally:
        for side in sides:
            side.close()
    last = sides[0].points[-1]
    print(f"without a model: masked loss {last['unigram_loss']:.3f}, accuracy {last['commonest_token_accuracy']:.4f}")


if __name__ == "__main__":
    main()
