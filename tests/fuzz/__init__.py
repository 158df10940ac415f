"""Whatever comes in, there is a right answer or one line that says what is wrong: never a traceback, a hang, silence
about what was left out, or more than a stated memory.

`pytest -m fuzz` runs these for ten minutes, or `FUZZ_SECONDS`, shared by those that are run. A failure shows the
smallest input that Hypothesis finds, and the `FUZZ_SEED` to begin with to see it again.
"""

import inspect
import itertools
import os
import time

import hypothesis
import pytest
from hypothesis import strategies as st

SECONDS = float(os.environ.get("FUZZ_SECONDS", "600"))
share = SECONDS  # of one test; see conftest
_SETTINGS = hypothesis.settings(
    max_examples=100,
    deadline=None,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)


def fuzzed(**given):
    """Calls a test with inputs from these strategies for as long as it may take."""

    def decorate(test):
        def bounded(**fixtures):
            end = time.monotonic() + share
            for seed in itertools.count(int(os.environ.get("FUZZ_SEED", time.time()))):
                print(f"FUZZ_SEED={seed}")
                hypothesis.seed(seed)(_SETTINGS(hypothesis.given(**given)(test)))(**fixtures)
                if time.monotonic() > end:
                    return

        bounded.__name__, bounded.__doc__, bounded.__module__ = test.__name__, test.__doc__, test.__module__
        left = [p for p in inspect.signature(test).parameters.values() if p.name not in given]
        bounded.__signature__ = inspect.Signature(left)
        return pytest.mark.fuzz(pytest.mark.timeout(SECONDS + 300)(bounded))

    return decorate


@st.composite
def mutated(draw, originals):
    """Bytes of one of `originals` with some taken away, doubled, put in or changed."""
    data = bytearray(draw(originals))
    for _ in range(draw(st.integers(0, 6))):
        start = draw(st.integers(0, len(data)))
        stop = min(len(data), start + draw(st.integers(0, 9)))
        change = draw(st.sampled_from(["cut", "double", "put", "flip"]))
        if change == "cut":
            del data[start:stop]
        elif change == "double":
            data[start:start] = data[start:stop]
        elif change == "put":
            data[start:start] = draw(st.binary(max_size=6) | st.sampled_from(_TOKENS))
        elif start < stop:
            data[start] ^= 1 << draw(st.integers(0, 7))
    return bytes(data)


# What parsers stumble over.
_TOKENS = [
    *(b'"', b"\\", b"{", b"}", b"[", b"]", b"null", b"NaN", b"-", b"1e999", b"\0", b"\r\n", b"\xff", b"\xed\xa0\x80"),
    *(b"18446744073709551616", b"-9223372036854775809", b"\xe2\x80\xa8", b"\xef\xbb\xbf", b"%", b"\xf4\x8f\xbf\xbf"),
]
