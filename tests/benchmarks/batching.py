"""Where requests of several clients should be put together: in the server, or in the graph.

    python -m tests.benchmarks.batching [--clients 1,8,32] [--seconds 4] [--rounds 3]

The same export is served twice: as it is, batched by the server; and wrapped in `tf.nondifferentiable_batch_function`,
with a thread for every client in the server, which passes requests on one by one.
"""

import argparse
import contextlib
import os
import pathlib
import subprocess
import sys
import tempfile

from tests.benchmarks import serving

WRAP = """
import sys, tensorflow as tf, tensorflow_text
source, target, rows = sys.argv[1], sys.argv[2], int(sys.argv[3])
module = tf.Module()
module.model = tf.saved_model.load(source)
call = module.model.signatures["serving_default"]

@tf.nondifferentiable_batch_function(num_batch_threads=2, max_batch_size=rows, batch_timeout_micros=0)
def batched(text):
    return call(text=text)

@tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
def wrapped(text):
    outputs = batched(text)
    outputs["embedding"].set_shape([None, call.structured_outputs["embedding"].shape[1]])
    outputs["truncated"].set_shape([None])
    return outputs

tf.saved_model.save(module, target, signatures=wrapped)
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", default="1,8,32")
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=16, help="of a batch, at most")
    arguments = parser.parse_args()
    clients = [int(count) for count in arguments.clients.split(",")]
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        texts, base, wrapped = (pathlib.Path(folder, name) for name in ("texts", "base", "wrapped"))
        serving.write_texts("sst2", texts)
        serving.export(serving.checkpoint(), base)
        command = [sys.executable, "-c", WRAP, str(base / "bert" / "1"), str(wrapped / "bert" / "1")]
        subprocess.run(
            [*command, str(arguments.rows)], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        parameters = pathlib.Path(folder, "batching.txt")
        parameters.write_text(f"max_batch_size {{ value: 1 }} num_batch_threads {{ value: {max(clients)} }}")
        cores = os.cpu_count() or 1
        servers = serving.start_ours(stack, base, cores, [], "in the server")
        servers += serving.start_ours(
            stack, wrapped, cores, ["--batching-parameters-file", str(parameters)], "in the graph"
        )
        servers = [server for server in servers if server.kind == "rest"]
        for server in servers:
            serving.measure(server, 8, 3, texts)
            server.results.clear()
        for _ in range(arguments.rounds):
            for count in clients:
                for server in servers:
                    serving.measure(server, count, arguments.seconds, texts)
        serving.report(servers, clients)


if __name__ == "__main__":
    main()
