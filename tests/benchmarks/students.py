"""Students of fewer layers, taught by a fine-tuned teacher, beside the same students without one.

    python -m tests.benchmarks.students TASKS OUTPUT [--sets sst2,ewt] [--layers 3] [--seeds 3]

TASKS is the folder of `tests.benchmarks.tasks`, whose first seed of a set is the teacher. Needs the data (BERT_DATA).
Figures are of test, which no choice has seen. The same command goes on.
"""

import argparse
import dataclasses
import json
import pathlib

from tests.benchmarks import tasks
from tests.data import minilm


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tasks", type=pathlib.Path)
    parser.add_argument("output", type=pathlib.Path)
    parser.add_argument("--sets", default="sst2,ewt")
    parser.add_argument("--layers", default="3")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    for name in options.sets.split(","):
        chosen, place = tasks.SETS[name], options.output / name
        place.mkdir(parents=True, exist_ok=True)
        files, teacher = chosen.files(place), options.tasks / name / "1"
        print(f"{name}, {options.layers} layers")
        print(tasks.told("teacher", chosen.figure, [json.loads((teacher / "ours.json").read_text())]))
        fewer = (*chosen.options, "--layers", options.layers)
        for side, more in (
            ("taught", ("--teacher", str(teacher / "model"), "--no-untaught")),
            ("untaught", ()),
        ):
            student = dataclasses.replace(chosen, options=(*fewer, *more))
            runs = []
            for seed in range(1, options.seeds + 1):
                at = place / f"{side}-{seed}"
                runs.append(tasks.once(at / "ours.json", tasks.ours, student, files, str(minilm()), seed, at))
            print(tasks.told(side, chosen.figure, runs), flush=True)


if __name__ == "__main__":
    main()
