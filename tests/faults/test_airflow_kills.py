"""Steps of runs under Airflow that are killed at any time: its next try ends them, with the weights of a run that was
not disturbed."""

import contextlib
import json
import os
import pathlib
import random
import signal
import subprocess
import time

import pytest

from tests.faults import tiny
from tests.faults.test_kills import KILLS, SEED
from tests.pipeline.test_airflow_dag import environment
from tests.pipeline.test_airflow_scheduler import at_work, postgres, started, until

pytestmark = [pytest.mark.faults, pytest.mark.timeout(14400)]
OF_A_RUN = 3  # kills
STARTS = 4  # seconds that a process takes before its step begins
postgres = postgres  # the fixture


class Runs:
    """Those that a scheduler begins, one after the other, in a home."""

    def __init__(self, folder: pathlib.Path, process: subprocess.Popen):
        self.home, self._process, self._name = folder / "home", process, ""

    def begin(self, name: str) -> None:
        """The next one has another name: nothing of it is cached."""
        self._name = name
        want(self.home.parent, name)
        until(self._newest, 600, self._process)

    def met(self, step: str) -> int:
        """The process that runs a step."""
        return min(until(lambda: at_work(self.home, step), 1200, self._process))

    def ended(self) -> dict:
        return until(
            lambda: (found := self._newest()).get("state") in ("done", "failed") and found, 1800, self._process
        )

    def _newest(self) -> dict:
        with contextlib.suppress(OSError, ValueError):
            found = json.loads((self.home / "reports" / "run.json").read_text())
            if found["pipeline"] == self._name:
                return found
        return {}


def want(folder: pathlib.Path, name: str) -> str:
    """The file of settings, which each run reads when it begins."""
    (folder / "new.json").write_text(tiny.tiny().replace(name=name).to_json())
    os.replace(folder / "new.json", folder / "run.json")
    return str(folder / "run.json")


def test_at_random_times_over_all_steps(undisturbed, tmp_path, postgres, capsys):
    environment("3")  # or skip
    chance, expected = random.Random(SEED), tiny.weights(undisturbed)
    seconds = {node["node"]: node["seconds"] for node in tiny.nodes(undisturbed)}
    steps = list(seconds)
    aims = (chance.sample(steps, len(steps)) + [chance.choice(steps) for _ in range(KILLS)])[:KILLS]
    count, met = -(-KILLS // OF_A_RUN), 0

    def show(line: str) -> None:
        with capsys.disabled():
            print(line, flush=True)

    show(f"\nseed {SEED}")
    with started(
        tmp_path / "home", postgres, BERT_SETTINGS=want(tmp_path, "kills-0"), BERT_RETRY_SECONDS="1"
    ) as process:
        runs = Runs(tmp_path, process)
        for number in range(count):
            name = f"kills-{number}"
            runs.begin(name)
            for aim in sorted(aims[number::count], key=steps.index):
                victim, after = runs.met(aim), chance.random() * (seconds[aim] + STARTS)
                time.sleep(after)
                try:
                    os.killpg(victim, signal.SIGKILL)
                    met += 1
                    show(f"  {name:9} {aim:18} killed after {after:4.1f} s")
                except ProcessLookupError:
                    show(f"  {name:9} {aim:18} was done after {after:4.1f} s")
            found = runs.ended()
            same = tiny.same(expected, tiny.weights(runs.home, name))
            show(f"  {name:9} done, weights {'equal' if same else 'DIFFER'}")
            assert same, found
            assert [node["state"] for node in found["nodes"]] == ["ran"] * len(steps)
    show(f"{met} of {KILLS} met a step at work")
    assert met > KILLS / 2
