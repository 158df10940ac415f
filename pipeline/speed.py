"""How fast models are on this machine, side by side."""

import time
from collections.abc import Callable, Mapping

SECONDS, ROUNDS = 1.0, 3


def rates(calls: Mapping[str, Callable[[], object]], size: int) -> dict[str, float]:
    """Of each, where a call does so many of something at once, how many a second: the best of several rounds, in which
    they take turns."""
    best = dict.fromkeys(calls, 0.0)
    for call in calls.values():
        call()  # makes what is made once
    for _ in range(ROUNDS):
        for name, call in calls.items():
            started, count = time.perf_counter(), 0
            while (taken := time.perf_counter() - started) < SECONDS:
                call()
                count += 1
            best[name] = max(best[name], count * size / taken)
    return best
