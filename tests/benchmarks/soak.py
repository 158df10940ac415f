"""Ten minutes at 80 % of the peak load while a new version arrives every 30 s: no request may fail, and memory may not
grow.

    python -m tests.benchmarks.soak [--seconds 600] [--swap-seconds 30] [--base EXPORT]

The peak is measured first, with as many clients. Versions are copies of the export.
"""

import argparse
import contextlib
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request

from tests.benchmarks import serving

CLIENTS = 16
MOST_GROWTH = 0.05  # of the second half against the first, in which caches still fill


def load(server, texts, seconds, rate=None):
    command = [
        sys.executable,
        "-m",
        "tests.benchmarks.load_generator",
        server.kind,
        server.address,
        "--texts",
        str(texts),
    ]
    command += ["--clients", str(CLIENTS), "--seconds", str(seconds), *(["--rate", str(rate)] if rate else [])]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def resident(server) -> float:
    """MiB held now."""
    pages = int(pathlib.Path(f"/proc/{server.process.pid}/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def settled(server, newest: int) -> None:
    """Waits until this version is loaded, and the ones before it are gone."""
    status = server.address.removesuffix(":predict")
    end = time.monotonic() + 60
    while time.monotonic() < end:
        with urllib.request.urlopen(status) as answer:
            states = {one["version"]: one["state"] for one in json.load(answer)["model_version_status"]}
        if states == {str(newest): "AVAILABLE"}:
            return
        time.sleep(0.5)
    sys.exit(f"version {newest} did not take over: {states}")


def versions(base):
    return sorted(int(path.name) for path in base.iterdir() if path.name.isdecimal())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--swap-seconds", type=float, default=30)
    parser.add_argument("--base", help="an export of a checkpoint, as of `bert export --output BASE`; else one is made")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        texts = pathlib.Path(folder, "texts.txt")
        serving.write_texts("sst2", texts)
        base = pathlib.Path(folder, "bert")
        if arguments.base:
            found = pathlib.Path(arguments.base, "bert")
            shutil.copytree(found / str(versions(found)[-1]), base / "1")
        else:
            serving.export(serving.checkpoint(), folder)
        servers = serving.start_ours(stack, base.parent, 2, [])
        load(servers[0], texts, 10).communicate()  # warms up
        peaks = [json.loads(load(server, texts, 8).communicate()[0])["per_second"] for server in servers]
        rate = 0.8 * sum(peaks) / len(peaks) / 2  # half over each protocol
        print(f"peak {peaks[0]:.0f} and {peaks[1]:.0f} requests/s; {rate:.0f} over each of gRPC and REST", flush=True)

        running = [load(server, texts, arguments.seconds, rate) for server in servers]
        end = time.monotonic() + arguments.seconds
        memory = []
        while time.monotonic() + arguments.swap_seconds < end:
            time.sleep(arguments.swap_seconds)
            newest = versions(base)[-1]
            settled(servers[1], newest)
            memory.append(resident(servers[0]))
            shutil.copytree(base / str(newest), base / f".{newest + 1}")
            (base / f".{newest + 1}").rename(base / str(newest + 1))
            for old in versions(base)[:-2]:
                shutil.rmtree(base / str(old))
            print(f"version {newest + 1} written, {memory[-1]:.0f} MiB", flush=True)
        failed, growth = 0, 0.0
        for server, process in zip(servers, running, strict=True):
            result = json.loads(process.communicate()[0])
            failed += result["failures"]
            print(f"{server.name}: {result}")
        # The first swaps fill caches and pools; what counts is whether it goes on growing.
        half = len(memory) // 2
        print(f"memory after each swap, MiB: {[round(amount) for amount in memory]}")
        if half:
            growth = max(memory[half:]) / max(memory[:half]) - 1
            print(f"most in the second half against the first: {growth:+.1%}")
    if failed or growth > MOST_GROWTH:
        sys.exit(f"{failed} requests failed, memory grew by {growth:.1%} (at most {MOST_GROWTH:.0%})")


if __name__ == "__main__":
    main()
