"""Figures of parts of the rows: by their length, by label, or by the value of a column."""

import collections
from collections.abc import Iterable, Iterator, Sequence

from pipeline.finetuning.kinds.kind import Answer, Judge, Kind, Row
from preprocessing.errors import InputError

MOST = 100  # parts by one thing; the rows of those that come after them are one part
OTHERS = "(others)"
SHORT = 64  # characters; from there on each part has texts twice as long
COLUMN = "column:"

Found = dict[str, dict[str, dict[str, float]]]  # {by: {part: {"rows": ..., figure: ...}}}


def columns(by: Sequence[str]) -> tuple[str, ...]:
    """Those that slices need. Raises InputError for what rows cannot be told apart by."""
    for name in by:
        if name not in ("length", "label") and not name.startswith(COLUMN):
            raise InputError(f"slices must be length, label or column:NAME. Received: {name!r}")
    return tuple(name.removeprefix(COLUMN) for name in by if name.startswith(COLUMN))


class Slices:
    """Judges each part alone. `by`: `length`, `label`, or `column:` and its name."""

    def __init__(self, kind: Kind, by: Sequence[str]):
        self._kind = kind
        self._judges: dict[str, dict[str, Judge]] = {name: {} for name in by}
        self._rows: collections.Counter[tuple[str, str]] = collections.Counter()

    def add(self, row: Row, answer: Answer) -> None:
        for by, judges in self._judges.items():
            for part in self._parts(by, row):
                part = part if part in judges or len(judges) < MOST else OTHERS
                judges.setdefault(part, self._kind.judge()).add(row, answer)
                self._rows[by, part] += 1

    def found(self) -> Found:
        """Lengths ascending, other parts by their number of rows."""
        return {
            by: {
                part: {"rows": self._rows[by, part], **judges[part].figures()}
                for part in sorted(judges, key=_least if by == "length" else lambda part, by=by: -self._rows[by, part])
            }
            for by, judges in self._judges.items()
        }

    def _parts(self, by: str, row: Row) -> Iterable[str]:
        if by == "length":
            size, most = self._kind.size(row), SHORT
            while most < size:
                most *= 2
            return (f"{most // 2 + 1 if most > SHORT else 0} to {most} characters",)
        if by == "label":
            return self._kind.labels(row) or ("(none)",)
        return (row.more[by.removeprefix(COLUMN)] or "(none)",)


def _least(part: str) -> int:
    return int(part.split()[0])


def lines(found: Found) -> Iterator[str]:
    """For people: of each part the rows and the kind's first figure."""
    for by, parts in found.items():
        width = max(map(len, parts), default=0)
        for part, figures in parts.items():
            name, value = next((name, value) for name, value in figures.items() if name != "rows")
            yield f"  {by} {part.ljust(width)}  {name.replace('_', ' ')} {value:.4f}  {figures['rows']:,} rows"
