"""The pipeline on this machine: the file that `tfx ... --engine local --pipeline_path` is given.

BERT_SETTINGS  demo (default), smoke, base or a JSON file
BERT_CORPUS    files or globs of your own text, separated by blanks; none: the embedded corpus
BERT_HOME      folder for everything that the pipeline keeps; default `.bert` in the current folder
"""

import contextlib
import errno
import logging
import os
import pathlib
import shlex
from collections.abc import Mapping

import click

from pipeline import terminal

terminal.quiet()  # before TensorFlow is imported

from pipeline import settings as pipeline_settings  # noqa: E402
from preprocessing import outputs  # noqa: E402
from preprocessing.errors import InputError, require  # noqa: E402


def from_environment(environment: Mapping[str, str]) -> tuple[pipeline_settings.PipelineSettings, pathlib.Path]:
    """Settings and home folder that the environment variables above ask for."""
    settings = pipeline_settings.load(environment.get("BERT_SETTINGS") or "demo")
    try:
        patterns = tuple(shlex.split(environment.get("BERT_CORPUS") or ""))
    except ValueError as error:
        received = environment["BERT_CORPUS"]
        raise InputError(f"CORPUS is read as a shell reads words ({error}). Received: {received}") from None
    if patterns:
        settings = settings.replace(corpus=pipeline_settings.dataclasses.replace(settings.corpus, input=patterns))
    home = environment.get("BERT_HOME") or ".bert"
    require("://" not in home, "BERT_HOME must be a local folder", home)
    return settings, pathlib.Path(home).absolute()


def run(settings: pipeline_settings.PipelineSettings, home: pathlib.Path) -> None:
    """Runs the pipeline once. Raises InputError for bad input; what else goes wrong is in the log."""
    from preprocessing import corpus

    if settings.corpus.input:
        corpus.check_input(settings.corpus)
    with contextlib.ExitStack() as stack:
        try:
            home.mkdir(parents=True, exist_ok=True)
            stack.enter_context(outputs.hold(str(home / ".lock"))[0])
            (home / "settings.json").write_text(settings.to_json())
        except BlockingIOError:
            raise InputError(f"{home}: another run is at work there. Wait for its end, or set BERT_HOME") from None
        except OSError as error:
            raise InputError(f"{home}: cannot be written: {error.strerror}. Set BERT_HOME to another folder") from error
        _run(settings, home)


def _run(settings, home):
    from tfx.orchestration.local.local_dag_runner import LocalDagRunner

    from pipeline import graph, steps, summary

    pipeline = graph.create_pipeline(settings, str(home))
    log = home / "logs" / "pipeline.log"
    with steps.watch(log, len(pipeline.components)) as lines, terminal.native_log(log.with_name("native.log")):
        try:
            LocalDagRunner().run(pipeline)
        except Exception as error:
            logging.getLogger(__name__).exception("%s failed", lines.running)
            cause = input_error(error)
            if cause is None:
                click.echo(f"bert: {lines.running} failed; the whole log is {log}", err=True)
                raise
            raise InputError(f"{lines.running}: {cause}") from error
        if lines.done:  # `tfx pipeline create` only looks at the pipeline
            report = summary.collect(home, settings.name)
            summary.push_again(report)
            summary.write(report, home / "reports")
            summary.show(report)


def input_error(error: BaseException | None) -> str | None:
    """The message for a person in an exception or its causes; Beam and TFX wrap what a step raises."""
    while error is not None:
        if isinstance(error, InputError):
            return str(error)
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            return f"{error.filename or 'the output'}: no space left on the device; make room, or set BERT_HOME"
        if isinstance(error, OSError) and error.filename:
            return f"{error.filename}: {error.strerror}"
        error = error.__cause__ or error.__context__
    return None


def main() -> None:
    terminal.run_command(lambda: run(*from_environment(os.environ)))


if __name__ == "__main__":
    main()
