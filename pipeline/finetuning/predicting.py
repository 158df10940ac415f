"""A served model's answers to the rows of a file, as JSON objects."""

import collections
import itertools
from collections.abc import Callable, Iterator
from typing import Any

from pipeline.finetuning import asking
from pipeline.finetuning.kinds.kind import Kind, Source
from preprocessing.tasks.leakage import Ids
from preprocessing.tasks.splits import SHOWN


def objects(
    kind: Kind,
    source: Source,
    served: asking.Served,
    progress: Callable[[int], None] = lambda rows: None,
    tell: Callable[[str], None] = lambda line: None,
) -> Iterator[dict[str, Any]]:
    """One for each row, in order: `line`, `id` where it has one, and the answer; or `error`, why it has none. Memory
    does not grow with the rows, but by eight bytes for an id. `tell` is called with what is to be known in the end."""
    ids = Ids()
    aside: collections.deque[tuple[int, str]] = collections.deque()
    answered = asking.answered(kind, source, served, lambda line, reason: aside.append((line, reason)))
    for count, (row, answer) in enumerate(answered, 1):
        while aside and aside[0][0] < row.line:
            yield _refused(*aside.popleft())
        ids.see(row)
        named = {"line": row.line} if row.id is None else {"line": row.line, "id": row.id}
        yield named | kind.said(row, answer)
        progress(count)
    yield from (_refused(*one) for one in aside)
    if ids.repeated:
        places = itertools.islice(ids.places(source.rows(lambda line, reason: None)), SHOWN)
        tell(f"{ids.repeated:,} rows have the id of a row before them: {'; '.join(places)}")


def _refused(line: int, reason: str) -> dict[str, Any]:
    return {"line": line, "error": reason}
