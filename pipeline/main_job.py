"""`make run`: the pipeline through the `tfx` command, then the pushed model asked over REST and gRPC."""

import contextlib
import itertools
import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import click

from pipeline import settings as pipeline_settings
from pipeline import terminal
from pipeline.history import homes
from pipeline.runs.process import REFUSED, Refused
from preprocessing.errors import InputError
from serving.client import Client

RUNNER = pathlib.Path(__file__).parent / "local_runner.py"
# What a model of minutes can answer: it knows which words go together.
MASKED = (
    "The number [MASK] elements in the array.",
    "If the value is not given, the default [MASK] is used.",
    "This function returns the sum of the [MASK] .",
)
FIRST = "Exceptions are a means of breaking out of the normal flow of control of a code block."
SECOND = "An exception is raised at the point where the error is detected."
TEXT = "The length of the string in bytes."


def main() -> None:
    terminal.quiet()
    terminal.run_command(lambda: run(pathlib.Path(os.environ.get("BERT_HOME") or ".bert").absolute()))


def run(home: pathlib.Path) -> None:
    name = _pipeline_name()
    # Of this home alone: another clone's pipeline may have the same name.
    os.environ.setdefault("LOCAL_HOME", str(home / "tfx") + os.sep)
    registered = pathlib.Path(os.environ["LOCAL_HOME"], name).is_dir()
    tfx(
        ["pipeline", "update" if registered else "create", "--engine", "local", "--pipeline_path", str(RUNNER)],
        ["run", "create", "--engine", "local", "--pipeline_name", name],
    )
    report = homes.read_json(home / "reports" / "report.json")
    with server(report["serving_folder"], name) as (grpc_address, rest_address):
        for protocol, target in (("REST", rest_address), ("gRPC", grpc_address)):
            click.echo(f"\nThe pushed model answers over {protocol} ({target}):")
            with Client(target, model=name) as client:
                ask_task(client, report) if "task" in report else ask(client, report)
    programs = pathlib.Path(sys.executable).parent
    click.echo(
        f"""
Model        {_near(report["pushed_to"])}
Reports      {_near(home / "reports")} (report.html, report.json, curves.png)
Checkpoint   {_near(report["model_run"])}/model
TensorBoard  {typed(programs / "tensorboard", "--logdir", pathlib.Path(report["model_run"], "logs"))}
Serve it     {typed(programs / "bert", "serve", "--model-base-path", report["serving_folder"], "--model-name", name)}"""
    )


def typed(*words: str | pathlib.Path) -> str:
    """A command as a person in this folder would type it."""
    return shlex.join(str(_near(word)) for word in words)


def _near(path: str | pathlib.Path) -> pathlib.Path:
    here = pathlib.Path.cwd()
    return pathlib.Path(path).relative_to(here) if pathlib.Path(path).is_relative_to(here) else pathlib.Path(path)


def ask(client: Client, report: dict[str, Any]) -> None:
    """Some questions and their answers, and those of no model, which are the same whatever the text."""
    without = report["without_a_model"]
    for text, (candidates, *_) in zip(MASKED, client.fill_mask(MASKED), strict=True):
        _show(f"fill_mask        {text}", _tokens((found.token, found.score) for found in candidates))
    if without:
        click.echo(f"                   without a model   {_tokens(without['tokens'])}")
    (is_next,) = client.next_sentence([FIRST], [SECOND])
    _show(f"next_sentence    {FIRST} | {SECOND}", f"the second follows the first with probability {is_next:.3f}")
    if without:
        click.echo(f"                   without a model   {without['follows']:.3f}")
        right = [report["metrics"][f"next_sentence_{of}"] for of in ("accuracy", "baseline")]
        # Minutes teach which words go together long before which sentences do.
        click.echo(
            "                   of held-out pairs it tells {:.3f} rightly, without a model {:.3f}".format(*right)
        )
    (embedding,) = client.embed([TEXT])
    numbers = " ".join(f"{value:.3f}" for value in embedding[:6])
    _show(f"serving_default  {TEXT}", f"embedding of {len(embedding)} numbers: {numbers} ...")


def _tokens(found: Iterable[tuple[str, float]]) -> str:
    return "  ".join(f"{token} {score:.3f}" for token, score in itertools.islice(found, 5))


def ask_task(client: Client, report: dict[str, Any]) -> None:
    """Some held-out rows, and what is said of them."""
    from pipeline.finetuning import kinds, rows  # TensorFlow, which takes seconds

    kind = kinds.named(report["task"])
    asked = [rows.of_values(kind, values) for values in report["samples"]]
    outputs = client.predict(report["signature"], **kind.inputs(report["signature"], asked))
    judge = kind.judge()
    for number, row in enumerate(asked):
        verdict = judge.add(row, {name: values[number] for name, values in outputs.items()})
        text = verdict.text if len(verdict.text) <= 90 else f"{verdict.text[:89]}…"
        _show(
            f"{report['signature']:15}  {text}",
            f"{verdict.answer}" + (f" (it is {verdict.gold})" if verdict.cost is not None else ""),
        )


def _show(question: str, answer: str) -> None:
    click.echo(f"  {question}")
    click.secho(f"                   {answer}", fg="green")


def tfx(*commands: list[str]) -> None:
    """Runs `tfx ...`, shown as a person would type it. Raises Refused where nothing was pushed, InputError where one
    fails; it has said why."""
    programs = pathlib.Path(sys.executable).parent
    # `tfx` calls the `pip` that it finds: this Python's, wherever the caller looks for programs.
    environment = {**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}
    called = [sys.executable, "-m", "pipeline.runs.commands_of_tfx", *map(shlex.join, commands)]
    status = subprocess.run(called, env=environment, check=False).returncode
    if status == REFUSED:
        raise Refused("nothing was pushed; why stands above")
    if status:
        raise InputError(f"tfx ended with exit status {status}; its message stands above")


@contextlib.contextmanager
def server(folder: str, name: str) -> Iterator[tuple[str, str]]:
    """Starts `bert serve` on free ports, gives its gRPC and REST addresses and stops it in the end."""
    flags = ["--embedded", "--model-base-path", folder, "--model-name", name, "--port", "0", "--rest-api-port", "0"]
    command = [sys.executable, "-m", "pipeline.cli", "serve", *flags]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        for line in process.stdout or ():
            if match := re.search(r"gRPC (\S+:\d+), REST (\S+:\d+)", line):
                break
        else:
            raise InputError(f"the server did not start: exit status {process.wait()}")
        yield match[1], match[2]
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)


def _pipeline_name() -> str:
    return pipeline_settings.load(os.environ.get("BERT_SETTINGS") or "demo").name


if __name__ == "__main__":
    main()
