"""A run that is killed at any time is finished by the next one, with the weights of one that was not disturbed."""

import contextlib
import os
import pathlib
import random
import signal
import time

import pytest

from tests.faults import tiny

pytestmark = [pytest.mark.faults, pytest.mark.timeout(7200)]
KILLS = int(os.environ.get("KILLS", "20"))
SEED = int(os.environ.get("SEED", "0"))


def children(process: int) -> list[int]:
    """Of a process: the check that a model answers is one."""
    found = []
    for task in pathlib.Path(f"/proc/{process}/task").glob("*/children"):
        found += [int(child) for child in task.read_text().split()]
    return found


def kill(process: int, whole: bool) -> str:
    """With its process group, as a machine that is lost; or only its child, where it has one, or else only itself."""
    if whole:
        os.killpg(process, signal.SIGKILL)
        return "group"
    below = children(process)
    for child in below:
        os.kill(child, signal.SIGKILL)
    if not below:
        os.kill(process, signal.SIGKILL)
    return "child" if below else "process"


def test_at_random_times_over_all_steps(runs, undisturbed, tmp_path, capsys):
    chance = random.Random(SEED)
    expected = tiny.weights(undisturbed)
    seconds = {node["node"]: node["seconds"] for node in tiny.nodes(undisturbed)}

    def show(line: str) -> None:
        with capsys.disabled():
            print(line, flush=True)

    show(f"\nseed {SEED}\n  at s  killed   in                  status  the next run                     weights")
    for number in range(KILLS):
        aim = list(seconds)[number % len(seconds)] if number < len(seconds) else chance.choice(list(seconds))
        for missed in range(5):  # a run may be faster than the one by which the moments are chosen
            home = tmp_path / f"{number}-{missed}" / "home"
            home.parent.mkdir()
            began = time.monotonic()
            process = runs.start(home)
            while not any(node["node"] == aim for node in tiny.nodes(home)):
                assert pathlib.Path(f"/proc/{process}").exists(), home.with_suffix(".log").read_text()
                time.sleep(0.002)
            time.sleep(0.7 * chance.random() * seconds[aim] / 2**missed)  # the undisturbed run, the first, is slower
            met, at, what = tiny.nodes(home)[-1]["node"], time.monotonic() - began, "missed"
            with contextlib.suppress(ProcessLookupError):
                what = kill(process, whole=number % 2 == 0)
            status = runs.wait()
            if what != "missed":
                break
        assert what != "missed", f"{aim} was over each time"
        said = runs.finish(home)
        states = [node["state"] for node in tiny.nodes(home)]
        same = tiny.same(expected, tiny.weights(home))
        went_on = f"{states.count('cached')} steps cached, {states.count('ran')} ran"
        show(f"{at:6.1f}  {what:7}  {met:18}  {status:6}  {went_on:31}  {'equal' if same else 'DIFFER'}")
        assert same, said
        assert not list((home / "training").iterdir())
