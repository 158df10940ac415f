"""Sentences in columns, a word a line and a blank line between sentences: CoNLL's of any width, and CoNLL-U.

Columns are cut at tabs where the first line has one, else at blanks. `-DOCSTART-` ends a sentence; before the words of
one, lines that begin with `#` and have not as many columns are remarks. Of CoNLL-U the syntactic words are taken, which
the tags are of: neither the ranges of words that are written together nor empty nodes.
"""

import collections
import dataclasses
import re
from collections.abc import Iterator

from preprocessing.errors import InputError, require
from preprocessing.tasks import records

CONLLU = ("id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")
DOCUMENT = "-DOCSTART-"
_ID = re.compile(r"#\s*sent_id\s*=\s*(.*\S)")


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a file is cut, and its columns of words and tags, from 0."""

    is_conllu: bool
    separator: str
    width: int
    word: int
    tag: int

    @property
    def told(self) -> str:
        return "CoNLL-U" if self.is_conllu else "tabs" if self.separator == "\t" else "blanks"

    def cut(self, line: str) -> list[str]:
        """Its cells; none of a blank line."""
        if not line.strip("\r\n\t "):
            return []
        line = line.rstrip("\r\n")
        return line.split("\t") if self.separator == "\t" else re.split(" +", line.strip(" "))

    def tag_in(self, row: list[str]) -> str:
        """Empty where there is none."""
        return "" if self.is_conllu and row[self.tag] == "_" else row[self.tag]


def layout(path: str, is_conllu: bool, words: str | None, tags: str | None, labelled: bool) -> Layout:
    """Of a file and the columns that are named, by number from 1, those of CoNLL-U by name, too. Raises InputError."""
    found = Layout(True, "\t", len(CONLLU), 1, 3)
    if not is_conllu:
        lines = (line for _, line in records.text_lines(path) if not line.startswith(("#", DOCUMENT)))
        first = next(filter(str.strip, lines), None)
        if first is None:
            raise InputError(f"{path}: there must be sentences. Received: none")
        found = Layout(False, "\t" if "\t" in first.strip("\r\n") else " ", 0, 0, 0)
        width = len(found.cut(first))
        require(not labelled or width > 1, f"{path}: there must be two columns at least", first.strip())
        found = dataclasses.replace(found, width=width, tag=width - 1)
    if words is not None:
        found = dataclasses.replace(found, word=_place(path, found, words))
    if tags is not None:
        found = dataclasses.replace(found, tag=_place(path, found, tags))
    rule = f"{path}: words and tags must be columns of their own"
    require(not labelled or found.word != found.tag, rule, f"column {found.word + 1} for both")
    return found


def _place(path: str, of: Layout, column: str) -> int:
    if of.is_conllu and column.lower() in CONLLU:
        return CONLLU.index(column.lower())
    if not column.isdecimal() or not 1 <= int(column) <= of.width:
        numbers = f"a number from 1 to {of.width}" + f", or {', '.join(CONLLU)}" * of.is_conllu
        raise InputError(f"{path}: a column must be {numbers}. Received: {column!r}")
    return int(column) - 1


@dataclasses.dataclass
class Block:
    """The lines of a sentence, with their cells; what it is called; and why it cannot be used."""

    lines: list[int] = dataclasses.field(default_factory=list)
    cells: list[list[str]] = dataclasses.field(default_factory=list)
    called: str | None = None
    reason: str = ""


def blocks(path: str, of: Layout, left_out: collections.Counter[str]) -> Iterator[Block]:
    """Those that have words. What is left out of them is counted, by what it is."""
    block = Block()
    for line, text in records.text_lines(path):
        row = of.cut(text)
        if row and row[0].startswith("#") and (of.is_conllu or (not block.lines and len(row) != of.width)):
            if not of.is_conllu:
                left_out["remarks"] += 1
            elif match := _ID.match(text):
                block.called = match[1]
        elif not row or row[0] == DOCUMENT:
            if block.lines:
                yield block
            block = Block()
            if row:
                left_out[DOCUMENT] += 1
        elif kind := of.is_conllu and len(row) == of.width and _no_word(row[0]):
            left_out[kind] += 1
        else:
            if len(row) != of.width:
                block.reason = block.reason or f"line {line} has {len(row)} columns, the first one {of.width}"
            elif of.is_conllu and not row[0].isdecimal():
                block.reason = block.reason or f"line {line} has no number but {row[0]!r}"
            block.lines.append(line)
            block.cells.append(row + [""] * (of.width - len(row)))
    if block.lines:
        yield block


def _no_word(number: str) -> str:
    """What a line of CoNLL-U is of, if not of a word."""
    return {"-": "ranges of words", ".": "empty nodes"}.get(number.lstrip("0123456789")[:1], "")
