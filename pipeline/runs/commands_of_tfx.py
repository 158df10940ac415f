"""`tfx` commands, one after the other and in one process: each would import TensorFlow, and the process that `tfx run
create` starts would once more.

    python -m pipeline.runs.commands_of_tfx 'pipeline create --engine local ...' 'run create ...'
"""

import runpy
import shlex
import sys

import click

from pipeline import terminal


def main() -> None:
    terminal.quiet()  # before TensorFlow is imported
    for line in sys.argv[1:]:
        click.secho(f"$ tfx {line}", bold=True)
        try:
            _run(shlex.split(line))
        except SystemExit as end:
            if end.code:
                raise


def _run(words: list[str]) -> None:
    from tfx.tools.cli.cli_main import cli_group  # half a minute, the first time on a machine
    from tfx.tools.cli.handler.base_handler import BaseHandler

    BaseHandler._subprocess_call = _here
    cli_group(words, "tfx")


def _here(handler, command: list[str], env: dict[str, str] | None = None) -> None:
    """In place of `subprocess.call`: `command` is a Python and its program, which has been imported already, and whose
    exit status becomes this one's."""
    runpy.run_path(command[-1], run_name="__main__")


if __name__ == "__main__":
    main()
