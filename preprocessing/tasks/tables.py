"""Rows of a table with texts and labels: TSV, CSV, JSONL or Parquet, by the ending of the file's name.

TSV is split at tabs and line ends, quotes are text like any other; CSV may quote cells, with line ends in them. Both
are UTF-8, with or without a line of names at the top. Memory is that of one row, whatever the file.
"""

import dataclasses
import itertools
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from preprocessing import storage
from preprocessing.errors import InputError, require
from preprocessing.tasks import records

FORMATS = {".tsv": "tsv", ".txt": "tsv", ".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
SAMPLE = 1000  # rows that are looked at to guess whether the first is a line of names
# Words that stand at the top of a table and hardly ever in it.
NAMES = {"text", "sentence", "sentence1", "sentence2", "text_a", "text_b", "question", "question1", "question2"}
NAMES |= {"premise", "hypothesis", "label", "labels", "category", "class", "target", "sentiment", "idx", "index"}

# (line, reason): of a row that cannot be used.
SetAside = Callable[[int, str], None]
ROLES, MORE = ("text", "second", "label", "id"), "column "  # what a value is for
_Record = Sequence[Any] | Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Columns:
    """Which columns are wanted, by name or, counted from 1, by position.

    Attributes:
        text, label: None: the one that is called so, else the first and the second of two.
        second: of the second text of a pair; None: there is none.
        labelled: whether a label is wanted.
        separator: between labels, where a row may have several; None: it has one.
        id: of what rows are called; None: the one that is called so, if there is one.
        more: others whose values are wanted.
        header: whether the first line of a TSV or CSV file holds the names; None: it is guessed.
    """

    text: str | None = None
    second: str | None = None
    label: str | None = None
    labelled: bool = True
    header: bool | None = None
    separator: str | None = None
    id: str | None = None
    more: tuple[str, ...] = ()

    def __post_init__(self):
        require(self.separator != "", "a separator must not be empty", self.separator)


@dataclasses.dataclass(frozen=True)
class Row:
    """A usable row. `line` is that on which it begins, from 1; in Parquet the number of the row. `second` is None
    without such a column, as `id`; `label` where there is no value. `labels`: the label's parts, each once, where a row
    may have several. `more`: other columns by name."""

    file: str
    line: int
    text: str
    second: str | None
    label: str | None
    id: str | None = None
    labels: tuple[str, ...] = ()
    more: Mapping[str, str | None] = dataclasses.field(default_factory=dict)

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}"

    @property
    def number(self) -> float | None:
        """The label, if it is a finite one."""
        try:
            value = float(self.label or "")
        except ValueError:
            return None
        return value if math.isfinite(value) else None


class Table:
    """A file whose columns have been found.

    Attributes:
        path: the file.
        told: what was guessed or found of it, a line for people.
        pair: whether its rows have two texts.

    Raises InputError for a file that cannot be read, and for columns that it does not have.
    """

    def __init__(self, path: str | os.PathLike, columns: Columns = Columns()):
        self.path = os.fspath(path)
        if not storage.is_file(self.path):
            raise InputError(f"{self.path}: no such table")
        ending = os.path.splitext(self.path)[1].lower()
        require(ending in FORMATS, f"{self.path}: a table's name must end in {', '.join(FORMATS)}", ending)
        self.format = FORMATS[ending]
        self._header = False
        told = ""
        if self.format in ("tsv", "csv"):
            names, told = self._top(columns)
        else:
            names = self._names()
            require(columns.header is None, f"{self.path}: only TSV and CSV have a line of names", columns.header)
        if len(set(names)) < len(names):
            raise InputError(f"{self.path}: the columns' names must differ. {_list(names)}")
        self._width, self._names_of_columns = len(names), names
        found = self._found(columns, names)
        self.pair = "second" in found
        chosen = (f"{role} {names[place]}" for role, place in found.items())
        self._keys = found | {f"{MORE}{name}": self._place("slice", name, names) for name in columns.more}
        self._separator = columns.separator
        between = "" if self._separator is None else f", several with {self._separator!r} between them"
        self.told = f"{self.path}: {', '.join(chosen)}{between}{told}"

    def rows(self, set_aside: SetAside) -> Iterator[Row]:
        """The usable rows, in order. Those without a text, or that are no rows of the table, go to `set_aside`."""
        for line, record, reason in self._records():
            values: dict[str, str | None] = {}
            for role in self._keys if not reason else ():
                values[role], reason = self._value(role, record)
                if reason:
                    break
            if reason:
                set_aside(line, reason)
            else:
                text, second, label, called = (values.pop(role, None) for role in ROLES)
                more = {role.removeprefix(MORE): value for role, value in values.items()}
                yield Row(self.path, line, text or "", second, label, called, self._parts(label), more)

    def _parts(self, label: str | None) -> tuple[str, ...]:
        """The labels of a cell; blanks around each are not of it."""
        parts = [] if self._separator is None or label is None else label.split(self._separator)
        return tuple(dict.fromkeys(stripped for part in parts if (stripped := part.strip())))

    def _value(self, role: str, record: _Record) -> tuple[str | None, str]:
        """(the record's value, why the row cannot be used)"""
        place = self._keys[role]
        name = self._names_of_columns[place]
        value = record.get(name) if isinstance(record, Mapping) else record[place]
        if isinstance(value, bytes):
            value = value.decode("utf-8", "surrogateescape")
        if role not in ("text", "second"):
            if value is None or value == "":
                return None, ""
            if isinstance(value, bool):
                value = str(value).lower()
            if isinstance(value, list) and role == "label" and self._separator is not None:
                if any(not isinstance(one, str | int) or self._separator in str(one) for one in value):
                    return None, f"label ({name}) must be texts without {self._separator!r}. Received: {value!r}"
                value = self._separator.join(map(str, value))
            if not isinstance(value, str | int | float):
                return None, f"{role} ({name}) must be text or a number. Received: {type(value).__name__}"
            value = str(value)
        elif not isinstance(value, str):
            return None, f"{role} ({name}) must be text. Received: {'nothing' if value is None else repr(value)[:40]}"
        elif not value.strip():
            return None, f"{role} ({name}) is empty"
        try:
            value.encode()
        except UnicodeEncodeError:
            return None, f"{role} ({name}) is not UTF-8, or holds a NUL"
        return value, ""

    def _found(self, columns: Columns, names: list[str]) -> dict[str, int]:
        """The place of each column that is wanted."""
        stated = {"text": columns.text, "second": columns.second, "label": columns.label, "id": columns.id}
        found = {role: self._place(role, name, names) for role, name in stated.items() if name is not None}
        if "id" not in found and "id" in names and names.index("id") not in found.values():
            found["id"] = names.index("id")
        missing = [role for role in ("text", "label")[: 1 + columns.labelled] if role not in found]
        found |= {role: names.index(role) for role in missing if role in names}
        free = [place for place in range(len(names)) if place not in found.values()]
        for role in missing:
            if role not in found:
                if len(names) - ("id" in found) > 2 or not free:
                    raise InputError(f"{self.path}: which column is the {role}? Name it with --{role}. {_list(names)}")
                found[role] = free.pop(0)
        if len(set(found.values())) < len(found):
            raise InputError(f"{self.path}: text, second, label and id must be columns of their own. {_list(names)}")
        return found

    def _place(self, role: str, name: str, names: list[str]) -> int:
        if name in names:
            return names.index(name)
        if name.isdecimal() and 1 <= int(name) <= len(names) and self.format != "jsonl":
            return int(name) - 1
        raise InputError(f"{self.path}: no column {name!r} for the {role}. {_list(names)}")

    def _top(self, columns: Columns) -> tuple[list[str], str]:
        """Names of the columns, which are their positions where there are none, and what is told of it."""
        sample = [
            cells for _, cells, reason in itertools.islice(records.cells(self.path, self.format), SAMPLE) if not reason
        ]
        if not sample:
            raise InputError(f"{self.path}: a table must have rows. Received: none")
        first, *others = sample
        named = [name for name in (columns.text, columns.second, columns.label) if name and not name.isdecimal()]
        if columns.header is not None:
            self._header, told = columns.header, ""
        elif named:
            self._header, told = True, ""
        else:
            usual = any(cell.strip().lower() in NAMES for cell in first)
            once = not any(cell == theirs for other in others for cell, theirs in zip(first, other, strict=False))
            self._header = usual and once and len(set(first)) == len(first)
            told = "; the first line is taken for " + (
                "the columns' names (--no-header if it is a row)" if self._header else "a row (--header if it is not)"
            )
        if self._header:
            return first, told
        return [str(place) for place in range(1, len(first) + 1)], told

    def _names(self) -> list[str]:
        """Of the columns of JSONL (the keys of its first objects) or Parquet."""
        if self.format == "parquet":
            return records.parquet_names(self.path)
        sample = itertools.islice(records.objects(self.path), SAMPLE)
        names = dict.fromkeys(name for _, record, reason in sample if not reason for name in record)
        if not names:
            raise InputError(f"{self.path}: a table must have rows. Received: no JSON object")
        return list(names)

    def _records(self) -> Iterator[tuple[int, Any, str]]:
        """(line, record, why it cannot be used)"""
        if self.format == "parquet":
            names = [self._names_of_columns[place] for place in dict.fromkeys(self._keys.values())]
            yield from records.parquet(self.path, names)
        elif self.format == "jsonl":
            yield from records.objects(self.path)
        else:
            for line, cells, reason in itertools.islice(records.cells(self.path, self.format), int(self._header), None):
                if not reason and len(cells) != self._width:
                    reason = f"has {len(cells)} columns, the first row {self._width}"
                yield line, cells, reason


def _list(names: Sequence[str]) -> str:
    return f"Its columns: {', '.join(names)}"
