"""Errors a person can act on: the command line prints them as one line and exits with status 1."""

from typing import Any, get_args


class InputError(ValueError):
    """Bad input, settings or environment. The message names the rule, the value received and the way out;
    for bad data it begins with the file and, where there is one, the line (`corpus/a.txt:17: ...`). It is one line,
    whatever stands in the name of a file. `status` is what a command ends with."""

    status = 1

    def __init__(self, message: object):
        super().__init__(str(message).replace("\r", "\\r").replace("\n", "\\n"))


def require_one_of(choices: Any, name: str, received: object) -> None:
    """Raises InputError unless what was received is one of a Literal's values."""
    values = get_args(choices)
    require(received in values, f"{name} must be {', '.join(values[:-1])} or {values[-1]}", received)


def require(condition: bool, rule: str, received: object) -> None:
    """Raises InputError `rule. Received: ...` unless the condition holds."""
    if not condition:
        raise InputError(f"{rule}. Received: {received!r}")
