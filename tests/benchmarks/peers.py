"""A peer to be measured in a process and an interpreter of its own, taking turns with ours."""

import json
import os
import subprocess


class Peer:
    """Runs `program`, a Python source that defines `load(arguments)` and `work(loaded)`, under another interpreter.

    with Peer("/path/to/python", PROGRAM, {"vocab": ...}) as peer:
        seconds, answer = peer.run()
    """

    _LOOP = """
import json, sys, time
loaded = load(json.loads(sys.stdin.readline()))
for _ in sys.stdin:
    start = time.process_time()
    answer = work(loaded)
    seconds = time.process_time() - start
    print(json.dumps([seconds, answer]), flush=True)
"""

    def __init__(self, python: str, program: str, arguments: dict, environment: dict[str, str] | None = None):
        self._process = subprocess.Popen(
            [python, "-c", program + self._LOOP],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | (environment or {}),
        )
        self._process.stdin.write(json.dumps(arguments) + "\n")

    def run(self) -> tuple[float, object]:
        """Does the work once: seconds of processor time (of all threads), and the answer."""
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        seconds, answer = json.loads(self._process.stdout.readline())
        return seconds, answer

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._process.stdin.close()
        self._process.wait()
