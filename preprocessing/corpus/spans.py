"""Data that comes in spans, a day's for one: `{SPAN}` in the input stands for a number, and the newest are read.

/data/{SPAN}/*.txt     /data/20261125/a.txt  /data/20261126/a.txt  ...     spans 20261125, 20261126
"""

import dataclasses
import os
import re

from preprocessing.corpus import paths
from preprocessing.errors import InputError
from preprocessing.settings import SPAN, CorpusSettings


@dataclasses.dataclass(frozen=True)
class Span:
    """Its number, and the input that it is: files, folders and globs."""

    number: int
    input: tuple[str, ...]


def are_in(settings: CorpusSettings) -> bool:
    """Whether the input comes in spans. Raises InputError where a part of it does."""
    marked = [pattern for pattern in settings.input if SPAN in pattern]
    if marked and len(marked) < len(settings.input):
        plain = next(pattern for pattern in settings.input if SPAN not in pattern)
        raise InputError(f"all inputs must have {SPAN} where one has. Received: {plain!r} beside {marked[0]!r}")
    return bool(marked)


def window(settings: CorpusSettings) -> list[Span]:
    """The newest `settings.window` spans, ascending, of those up to `settings.newest_span`. Raises InputError where
    there is none, and where `newest_span` itself is missing: a run is for the data that it names."""
    found: dict[int, dict[str, str]] = {}  # span -> pattern -> input
    for pattern in map(os.path.expanduser, settings.input):
        before, _, after = pattern.partition(SPAN)
        within = re.compile(_regex(before) + r"(\d+)" + _regex(after.partition("/")[0].replace(SPAN, "*")) + "(/|$)")
        for file in paths.find([pattern.replace(SPAN, "*")]).files:
            if match := within.match(file.path):
                text = match[1]
                said = found.setdefault(int(text), {}).setdefault(pattern, pattern.replace(SPAN, text))
                if said != pattern.replace(SPAN, text):
                    raise InputError(f"{pattern}: a span must be written in one way. Received: {said} and {file.path}")
    newest = settings.newest_span
    numbers = sorted(number for number in found if newest is None or number <= newest)
    if not numbers or (newest is not None and numbers[-1] != newest):
        wanted = f"span {newest}" if newest is not None else "a number"
        there = ", ".join(map(str, sorted(found)[-3:])) or "none"
        raise InputError(f"{', '.join(settings.input)}: {wanted} must be there for {SPAN}. Received: {there}")
    return [Span(number, tuple(found[number].values())) for number in numbers[-settings.window :]]


def narrowed(settings: CorpusSettings) -> list[tuple[int | None, CorpusSettings]]:
    """(span, settings of its input alone), ascending; for an input without spans itself, as span None."""
    if not are_in(settings):
        return [(None, settings)]
    alone = dataclasses.replace(settings, window=1, newest_span=None)
    return [(span.number, dataclasses.replace(alone, input=span.input)) for span in window(settings)]


def _regex(glob: str) -> str:
    """What `*` and `?` stand for in a path, and anything for a list in braces."""
    signs = {"*": "[^/]*", "?": "[^/]"}
    return "".join(signs.get(sign) or re.escape(sign) for sign in re.sub(r"\{[^}]*\}|\[[^\]]*\]", "*", glob))
