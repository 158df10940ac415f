"""Closed-loop load on a server from a process of its own: each client sends its next text when the last is answered.

    python -m tests.benchmarks.load_generator rest http://127.0.0.1:8501/v1/models/bert:predict --clients 8 --texts FILE

Requests are made before the clock starts, and answers are only looked at, not parsed, as the generator shares the cores
with the server that it measures. Prints one line of JSON.
"""

import argparse
import asyncio
import json
import resource
import time
import urllib.parse

# "embed": the peers' POST {"text": ...}; "post": each line of the file is a body as it is.
KINDS = ("rest", "grpc", "embed", "post")


def http_requests(kind: str, url: str, texts: list[str]) -> list[bytes]:
    parts = urllib.parse.urlsplit(url)
    requests = []
    for text in texts:
        if kind == "post":
            body = text.encode()
        else:
            body = json.dumps({"instances": [text]} if kind == "rest" else {"text": text}).encode()
        head = f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
        requests.append(head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    return requests


async def http_client(url, pick, record):
    parts = urllib.parse.urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        while (picked := await pick()) is not None:
            start, request = picked
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
            await reader.readexactly(length)
            record(start, head[9:12] == b"200")
    finally:
        writer.close()


def grpc_requests(texts: list[str], model: str) -> list[bytes]:
    import numpy as np

    from serving.protocol import protos, tensors

    requests = []
    for text in texts:
        request = protos.PredictRequest(model_spec={"name": model})
        tensors.to_proto(np.array([text.encode()], object), request.inputs["text"])
        requests.append(request.SerializeToString())
    return requests


async def grpc_client(address, pick, record):
    import grpc

    from serving.protocol import protos

    # A channel of its own: clients do not share connections.
    async with grpc.aio.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        call = channel.unary_unary(protos.PREDICT)
        await channel.channel_ready()
        while (picked := await pick()) is not None:
            start, request = picked
            try:
                await call(request)
                ok = True
            except grpc.aio.AioRpcError:
                ok = False
            record(start, ok)


async def load(kind, address, texts, clients, seconds, model="bert", rate=None):
    """Latencies in seconds, the number of failures, and the seconds it took. With `rate`, clients pause so that
    together they send about so many requests a second."""
    requests = grpc_requests(texts, model) if kind == "grpc" else http_requests(kind, address, texts)
    latencies: list[float] = []
    failures = 0
    sent = 0
    begin = time.perf_counter()

    async def pick():
        nonlocal sent
        sent += 1
        request, now = requests[sent % len(requests)], time.perf_counter()
        if rate is not None:
            due = begin + sent / rate
            await asyncio.sleep(due - now)
            now = due  # who comes to it late has waited already
        return (now, request) if now < begin + seconds else None

    def record(start, ok):
        nonlocal failures
        failures += not ok
        latencies.append(time.perf_counter() - start)

    client = grpc_client if kind == "grpc" else http_client
    await asyncio.gather(*(client(address, pick, record) for _ in range(clients)))
    return latencies, failures, time.perf_counter() - begin


def summary(latencies, failures, seconds) -> dict:
    ordered = sorted(latencies)

    def percentile(share):
        return round(1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))], 2)

    return {
        "requests": len(ordered),
        "failures": failures,
        "per_second": round(len(ordered) / seconds, 1),
        "p50_ms": percentile(0.5),
        "p99_ms": percentile(0.99),
        "generator_cpu_seconds": round(resource.getrusage(resource.RUSAGE_SELF).ru_utime, 2),
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("address")
    parser.add_argument("--clients", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--model", default="bert")
    parser.add_argument("--rate", type=float, help="requests a second; else as many as are answered")
    parser.add_argument("--texts", required=True)
    arguments = parser.parse_args()
    with open(arguments.texts, encoding="utf-8") as file:
        texts = file.read().splitlines()
    a = arguments
    run = load(a.kind, a.address, texts, a.clients, a.seconds, a.model, a.rate)
    print(json.dumps(summary(*asyncio.run(run))))


if __name__ == "__main__":
    main()
