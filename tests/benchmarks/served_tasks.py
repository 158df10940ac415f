"""Answers a second of fine-tuned models, served: ours beside Hugging Face's `pipeline` behind FastAPI.

    python -m tests.benchmarks.served_tasks TASKS --peer-python PATH [--sets sst2,ewt,...] [--clients 1,32] [--rounds 3]
    python -m tests.benchmarks.served_tasks TASKS --students STUDENTS [--sets sst2,ewt]

TASKS is the folder of `tests.benchmarks.tasks`, whose first seeds are served: over REST, one text a request, rows of
test. The peer has the same weights, by `bert convert`; its `pipeline` knows neither questions nor cosines of two texts,
so these are ours alone. STUDENTS is the folder of `tests.benchmarks.students`, whose first taught seed stands beside
its teacher. All servers stand, one at a time is under load. The same two cores serve and ask.
"""

import argparse
import contextlib
import dataclasses
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

from pipeline.finetuning import kinds
from tests.benchmarks import serving, tasks

PEER = pathlib.Path(__file__).parent / "served_tasks_peer.py"
# By kind of task: the signature, and what the peer's pipeline is called.
ASKED = {
    "classification": ("classify", "text-classification"),
    "multi-label": ("classify_labels", "text-classification"),
    "regression": ("score", "text-classification"),
    "similarity": ("similarity", None),
    "tagging": ("tag", "token-classification"),
    "question-answering": ("answer", None),
}
MOST_ROWS = 2000


def rows(chosen: tasks.Set, file: pathlib.Path) -> list[dict[str, str]]:
    """The inputs of each, as the signatures call them."""
    kind = next(kind for kind in kinds.ALL if kind.name == chosen.task)
    found = []
    for row in kind.source(str(file), tasks.columns_of(chosen)).rows(lambda line, reason: None):
        if chosen.task == "tagging":
            found.append({"text": " ".join(row.words)})
        elif chosen.task == "question-answering":
            found.append({"question": row.question, "context": row.context})
        else:
            found.append({"text": row.text} if row.second is None else {"first": row.text, "second": row.second})
        if len(found) == MOST_ROWS:
            break
    return found


def windows(model: pathlib.Path, asked: list[dict[str, str]]) -> float:
    """Of a question, on average: the model sees a context in as many."""
    from preprocessing.tasks.windows import WindowRules, cut
    from preprocessing.tokenizer import BertTokenizer

    task, tokenizer = json.loads((model / "task.json").read_text()), BertTokenizer.from_vocab(model / "vocab.txt")
    rules = WindowRules(*(task[field.name] for field in dataclasses.fields(WindowRules)))
    lengths = [tokenizer.tokenize([row[key] for row in asked]).row_lengths().numpy() for key in ("question", "context")]
    return len(cut(*lengths, rules).rows) / len(asked)


def served(name: str, options: argparse.Namespace) -> None:
    chosen, trained = tasks.SETS[name], options.tasks / name / "1" / "model"
    signature, pipeline = ASKED[chosen.task]
    with tempfile.TemporaryDirectory() as made, contextlib.ExitStack() as stack:
        folder = pathlib.Path(made)
        asked = rows(chosen, chosen.files(folder)[2])
        signature += "_pair" * ("first" in asked[0] and chosen.task != "similarity")
        bodies: dict[str, list] = {"ours": [{"signature_name": signature, "instances": [row]} for row in asked]}
        serving.export(trained, folder / "export")
        servers = [serving.start_ours(stack, folder / "export", 2, [])[1]]
        servers[0].name = "ours"
        if options.students:
            bodies["student"] = bodies["ours"]
            serving.export(options.students / name / "taught-1" / "model", folder / "student-export")
            servers.insert(0, serving.start_ours(stack, folder / "student-export", 2, [])[1])
            servers[0].name = "student"
        for server in servers:
            server.kind = "post"
        if options.peer_python and pipeline:
            bodies["Hugging Face"] = [
                {"text": row.get("text") or row["first"], "second": row.get("second", "")} for row in asked
            ]
            convert = ["convert", "--input", trained, "--output", folder / "hf", "--to", "huggingface"]
            subprocess.run([sys.executable, "-m", "pipeline.cli", *map(str, convert)], check=True, capture_output=True)
            servers.append(peer(stack, options.peer_python, pipeline, folder / "hf"))
        for one, lines in bodies.items():
            (folder / one).write_text("\n".join(map(json.dumps, lines)))
        for server in servers:
            serving.settle(server)
            serving.measure(server, 8, 3, folder / server.name)
            server.results.clear()
        for _ in range(options.rounds):
            for clients in options.clients:
                for server in servers:
                    serving.measure(server, clients, options.seconds, folder / server.name)
        for clients in options.clients:
            if any(run["failures"] for server in servers for run in server.results[clients]):
                sys.exit(f"{name}: a rate of failures is none")
            rates = [statistics.median(run["per_second"] for run in server.results[clients]) for server in servers]
            each = ", ".join(f"{server.name} {rate:,.1f}/s" for server, rate in zip(servers, rates, strict=True))
            others = zip(servers[1:], rates[1:], strict=True)
            ratios = "".join(f"; {rates[0] / rate:.2f} times those of {server.name}" for server, rate in others)
            if signature == "answer":
                ratios += f"; {rates[0] * windows(trained, asked):,.1f} windows/s"
            print(f"{name}, {signature}, {clients} clients: {each}{ratios}", flush=True)


def peer(stack, python: str, pipeline: str, model: pathlib.Path) -> serving.Server:
    port, start = serving.free_port(), time.monotonic()
    process = serving.launch(stack, [python, str(PEER), pipeline, str(model), str(port)], 2, stdout=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}/ask"
    first = serving.until_answered(url, {"text": "first", "second": ""}, process, start)
    return serving.Server("Hugging Face", "post", url, process, first)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tasks", type=pathlib.Path)
    parser.add_argument("--sets", default="sst2,ewt,stsb", help="of those that TASKS has")
    parser.add_argument("--peer-python", help="an interpreter with torch, transformers, fastapi and uvicorn")
    parser.add_argument("--students", type=pathlib.Path, help="the folder of tests.benchmarks.students")
    parser.add_argument("--clients", default=[1, 32], type=lambda text: [int(count) for count in text.split(",")])
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    for name in options.sets.split(","):
        served(name, options)


if __name__ == "__main__":
    main()
