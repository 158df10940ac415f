"""Sentences of words with a tag each: CoNLL columns, CoNLL-U, or JSONL with two lists, by the ending of a file's name.

Memory is that of one sentence, whatever the file.
"""

import collections
import copy
import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from preprocessing import storage
from preprocessing.errors import InputError, require
from preprocessing.tags import Found, Scheme, entities, written
from preprocessing.tasks import conll, records

COLUMNS, CONLLU, JSONL = (".conll", ".txt", ".tsv", ".bio", ".iob", ".iob2"), (".conllu",), (".jsonl", ".ndjson")
FORMATS = (*COLUMNS, *CONLLU, *JSONL)
# Keys of JSONL; the second ones are Hugging Face's.
WORDS, TAGS = ("words", "tokens"), ("tags", "ner_tags", "pos_tags")
SAMPLE = 1000  # objects of JSONL that are looked at for their keys

# (line, reason): of a sentence that cannot be used.
SetAside = Callable[[int, str], None]
# (lines, words, tags, id, why they cannot be used)
_Found = tuple[Sequence[int], tuple[str, ...], tuple[str, ...] | None, str | None, str]


@dataclasses.dataclass(frozen=True)
class Sentence:
    """`lines` are those of its words, counted from 1; `tags` is None where none are wanted. Entities are in IOB2. `id`
    is that of JSONL, or the `sent_id` of CoNLL-U."""

    file: str
    lines: tuple[int, ...]
    words: tuple[str, ...]
    tags: tuple[str, ...] | None
    id: str | None = None
    more: Mapping[str, str | None] = dataclasses.field(default_factory=dict)

    @property
    def line(self) -> int:
        return self.lines[0]

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}"


class Sentences:
    """A file whose columns, and the scheme of whose tags, have been found.

    Args:
        words, tags: which column or key; columns by number from 1, those of CoNLL-U by name, too. None: of columns the
            first and the last, of CoNLL-U `form` and `upos`, of JSONL the usual ones.
        labelled: whether tags are wanted.

    Attributes:
        path: the file.
        scheme: of its tags; None where they are not of entities. Whatever it is, `rows` gives IOB2.
        told: what was found of it, a line for people.
        broken: how many sentences break the scheme; they are read as `preprocessing.tags` says.
        first_broken: the place of the first of them, and its tag.

    Raises InputError for a file that cannot be read, and for columns that it does not have.
    """

    def __init__(
        self, path: str | os.PathLike, words: str | None = None, tags: str | None = None, labelled: bool = True
    ):
        self.path = os.fspath(path)
        if not storage.is_file(self.path):
            raise InputError(f"{self.path}: no such file of sentences")
        ending = os.path.splitext(self.path)[1].lower()
        rule = f"{self.path}: the name of a file of sentences must end in {', '.join(FORMATS)}"
        require(ending in FORMATS, rule, ending)
        self._labelled, self._takes_untagged = labelled, False
        self._left_out: collections.Counter[str] = collections.Counter()
        self._layout: conll.Layout | None = None
        if ending in JSONL:
            self._word_key, self._tag_key = self._keys(words, tags)
            told = f"words {self._word_key}" + (f", tags {self._tag_key}" if labelled else "")
        else:
            of = self._layout = conll.layout(self.path, ending in CONLLU, words, tags, labelled)
            told = f"{of.told}, words in column {of.word + 1}" + (f", tags in column {of.tag + 1}" if labelled else "")
        self.scheme: Scheme | None = None
        self.broken, self.first_broken = 0, ""
        self.told = f"{self.path}: {told}{self._survey()}"

    def with_untagged(self) -> "Sentences":
        """The same, with those of JSONL too that have no tags; theirs are None."""
        other = copy.copy(self)
        other._takes_untagged = True
        return other

    def rows(self, set_aside: SetAside) -> Iterator[Sentence]:
        """The usable sentences, in order. Those without words, with lines of other columns, or with bytes that are not
        UTF-8 go to `set_aside`."""
        for sentence in self._read(set_aside):
            if self.scheme and sentence.tags is not None:
                found = written(entities(sentence.tags), len(sentence.words))
                sentence = dataclasses.replace(sentence, tags=tuple(found))
            yield sentence

    def _survey(self) -> str:
        """Reads the file for what is to be told, and known, before its sentences can be given."""
        found, any_usable = Found(), False
        places: dict[str, str] = {}
        faults: list[str] = []
        for sentence in self._read(lambda line, reason: faults.append(f":{line} {reason}") if not faults else None):
            any_usable = True
            for scheme, word in found.add(sentence.tags or ()).items():
                places.setdefault(scheme, f"{self.path}:{sentence.lines[word]} {(sentence.tags or ())[word]!r}")
        if not any_usable:
            fault = f"{self.path}{faults[0]}" if faults else "none"
            raise InputError(f"{self.path}: there must be usable sentences. Received: {fault}")
        told = ""
        if found.scheme:
            self.scheme, self.broken = found.scheme, found.faults[found.scheme]
            self.first_broken = places.get(found.scheme, "")
            told = f"; entities in {found.scheme}" + (", read as IOB2" if found.scheme != "IOB2" else "")
        left_out = ", ".join(f"{number:,} {what}" for what, number in self._left_out.items())
        return told + (f"; left out: {left_out}" if left_out else "")

    def _read(self, set_aside: SetAside) -> Iterator[Sentence]:
        for lines, words, found, called, reason in (
            self._of_columns(self._layout) if self._layout else self._of_objects()
        ):
            reason = reason or _fault(words, found or ())
            if reason:
                set_aside(lines[0], reason)
            else:
                yield Sentence(self.path, tuple(lines), words, found if self._labelled else None, called)

    def _of_columns(self, of: conll.Layout) -> Iterator[_Found]:
        self._left_out.clear()
        for block in conll.blocks(self.path, of, self._left_out):
            words = tuple(row[of.word] for row in block.cells)
            found = tuple(map(of.tag_in, block.cells)) if self._labelled else ()
            yield block.lines, words, found, block.called, block.reason

    def _of_objects(self) -> Iterator[_Found]:
        for line, record, reason in records.objects(self.path):
            words: tuple[str, ...] = ()
            found: tuple[str, ...] | None = ()
            if not reason:
                words, reason = _list(record, self._word_key)
            if not reason and self._takes_untagged and record.get(self._tag_key) is None:
                found = None
            elif not reason and self._labelled:
                found, reason = _list(record, self._tag_key)
                if not reason and len(found) != len(words):
                    reason = f"has {len(words)} words and {len(found)} tags"
            called = str(record["id"]) if not reason and isinstance(record.get("id"), str | int) else None
            yield (line,) * max(len(words), 1), words, found, called, reason

    def _keys(self, words: str | None, tags: str | None) -> tuple[str, str]:
        keys: dict[str, None] = {}
        for number, (_, record, reason) in enumerate(records.objects(self.path)):
            if number == SAMPLE:
                break
            keys |= dict.fromkeys(record if not reason else ())
        require(bool(keys), f"{self.path}: there must be JSON objects", "none")
        found = self._key("words", "--text", words, WORDS, keys)
        return found, self._key("tags", "--label", tags, TAGS, keys) if self._labelled else ""

    def _key(self, role: str, option: str, wanted: str | None, usual: Sequence[str], keys: dict[str, None]) -> str:
        found = [key for key in (usual if wanted is None else (wanted,)) if key in keys]
        if len(found) != 1:
            which = f"which of {', '.join(found)}" if found else "which key"
            way_out = f"Name it with {option}. Its keys: {', '.join(keys)}"
            raise InputError(f"{self.path}: {which} is of the {role}? {way_out}")
        return found[0]


def _list(record: dict, key: str) -> tuple[tuple[str, ...], str]:
    """(the record's value, why it cannot be used)"""
    values: Any = record.get(key)
    if not isinstance(values, list):
        return (), f"{key} must be a list. Received: {'nothing' if values is None else repr(values)[:40]}"
    if odd := [value for value in values if not isinstance(value, str)]:
        way_out = "; write the tags' names for their numbers" if isinstance(odd[0], int) else ""
        return (), f"{key} must be a list of texts. Received: {repr(odd[0])[:40]}{way_out}"
    return tuple(values), ""


def _fault(words: Sequence[str], found: Sequence[str]) -> str:
    """Why a sentence cannot be used, or nothing."""
    if not words:
        return "has no words"
    try:
        "".join((*words, *found)).encode()
    except UnicodeEncodeError:
        return "is not UTF-8, or holds a NUL"
    for what, values in (("word", words), ("tag", found)):
        if "" in values:
            return f"{what} {values.index('') + 1} is empty"
    return ""
