"""Errors a person can act on: the command line prints them as one line and exits with status 1."""


class InputError(ValueError):
    """Bad input, settings or environment. The message names the rule, the value received and the way out;
    for bad data it begins with the file and, where there is one, the line (`corpus/a.txt:17: ...`)."""


def require(condition: bool, rule: str, received: object) -> None:
    """Raises InputError `rule. Received: ...` unless the condition holds."""
    if not condition:
        raise InputError(f"{rule}. Received: {received!r}")
