"""The same commands on this machine's stack and on the other one, in turns, so that both meet the same load.

    python -m tests.benchmarks.stacks [--rounds 3] ['-m tests.benchmarks.training --sizes tiny,mini,base' ...]

Needs root and debootstrap (see `.ci/other-stack`), and the real text for the examples (BERT_DATA). Each command is what
follows `python`; without any: imports, tokenizer, encoder, examples, serving, training steps, the main job on the smoke
setting. Gives medians of wall and processor time, and the end of what each command printed.
"""

import argparse
import resource
import shlex
import statistics
import subprocess
import sys
import time

from tests.data import ROOT

COMMANDS = (
    "-c 'import tensorflow'",
    "-c 'import pipeline.trainer, tfx.orchestration.local.local_dag_runner'",
    "-m pipeline.cli predict --help",
    "-m tests.benchmarks.tokenizer --rounds 3",
    "-m tests.benchmarks.encoder --sizes tiny mini base",
    "-m tests.benchmarks.examples --megabytes 5 --dupe-factor 1",
    "-m tests.benchmarks.serving --clients 1,32",
    "-m tests.benchmarks.training --sizes tiny,mini,base --rounds 3",
    '-c \'import os, runpy, tempfile; os.environ |= dict(BERT_SETTINGS="smoke", BERT_HOME=tempfile.mkdtemp()); '
    'runpy.run_module("pipeline.main_job", run_name="__main__")\'',
)
STACKS = {"here": [sys.executable], "other": [str(ROOT / ".ci" / "other-stack"), ".venv/bin/python"]}


def run(stack: str, command: str) -> tuple[float, float, str]:
    """Seconds of wall and of processor time, and the output; exits where it fails."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run([*STACKS[stack], *shlex.split(command)], cwd=ROOT, text=True, capture_output=True)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(f"{stack}: python {command}\n{done.stderr}")
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("commands", nargs="*", default=COMMANDS)
    options = parser.parse_args()
    subprocess.run([*STACKS["other"][:1], "make", "setup"], cwd=ROOT, check=True)
    copying = statistics.median(run("other", "-c pass")[0] for _ in range(3))
    for command in options.commands:
        rounds = [{stack: run(stack, command) for stack in STACKS} for _ in range(options.rounds)]
        print(f"\npython {command}")
        for stack in STACKS:
            wall, processor = (statistics.median(found[stack][index] for found in rounds) for index in (0, 1))
            wall -= copying if stack == "other" else 0  # what it takes to get there
            print(f"{stack:6} {wall:8.2f} s {processor:8.2f} s of processor")
            print("".join(f"       {line}\n" for line in rounds[-1][stack][2].splitlines()[-30:]), end="", flush=True)


if __name__ == "__main__":
    main()
