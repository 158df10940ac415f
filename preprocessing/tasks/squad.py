"""Questions, their contexts and answers: SQuAD 1.1 and 2.0 JSON, or JSONL with one question a line.

JSON is `{"data": [{"paragraphs": [{"context", "qas": [{"id", "question", "answers": [{"text", "answer_start"}],
"is_impossible"}]}]}]}` and is read whole; JSONL has `id`, `question`, `context` and `answers` in each line, the answers
as there or as Hugging Face's `{"text": [...], "answer_start": [...]}`, and is read a line at a time.
"""

import dataclasses
import json
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from preprocessing import storage
from preprocessing.errors import InputError, require
from preprocessing.tasks import records

FORMATS = {".json": "squad", ".jsonl": "jsonl", ".ndjson": "jsonl"}

# (line, reason): of a question that cannot be used.
SetAside = Callable[[int, str], None]


@dataclasses.dataclass(frozen=True)
class Answer:
    """`start` is where it begins in the context, in code points; None where the file does not say it."""

    text: str
    start: int | None


@dataclasses.dataclass(frozen=True)
class Question:
    """A usable question. `line` is that of JSONL, in JSON the number of the question, from 1. Without answers it cannot
    be answered from the context; `answers` is None where the file does not say what is right."""

    file: str
    line: int
    id: str
    question: str
    context: str
    answers: tuple[Answer, ...] | None

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}"

    @property
    def gold(self) -> tuple[str, ...]:
        """The texts of its answers."""
        return tuple(answer.text for answer in self.answers or ())


class Questions:
    """A file of questions. Attributes: `path`; `told`, a line for people.

    `answered`: whether only those are usable of which the file says what is right. Raises InputError for a file that
    cannot be read.
    """

    def __init__(self, path: str | os.PathLike, answered: bool = True):
        self.path, self._answered = os.fspath(path), answered
        if not storage.is_file(self.path):
            raise InputError(f"{self.path}: no such file of questions")
        ending = os.path.splitext(self.path)[1].lower()
        require(ending in FORMATS, f"{self.path}: the name of a file of questions must end in {', '.join(FORMATS)}",
                ending)  # fmt: skip
        self.format = FORMATS[ending]
        self.told = f"{self.path}: questions {'as in SQuAD' if self.format == 'squad' else 'in JSONL'}"

    def rows(self, set_aside: SetAside) -> Iterator[Question]:
        """The usable questions, in order. The others go to `set_aside`: without a text, with an id that another has,
        with answers that contradict themselves."""
        seen: dict[str, int] = {}
        for line, record, reason in self._records():
            name = record.get("id") if isinstance(record, dict) else None
            name = str(line if name is None else name)
            answers: tuple[Answer, ...] | None = None
            if not reason:
                answers, reason = _answers(record)
            reason = reason or _text_fault([name, *(answer.text for answer in answers or ())], record)
            if not reason and name in seen:
                reason = f"has the id of question {seen[name]}"
            if not reason and answers is None and self._answered:
                reason = "has no answers"
            if reason:
                set_aside(line, reason if name == str(line) else f"{reason} (id {name[:40]})")
                continue
            seen[name] = line
            yield Question(self.path, line, name, record["question"], record["context"], answers)

    def _records(self) -> Iterator[tuple[int, Any, str]]:
        """(line, id, question, context and answers, why they cannot be used)"""
        if self.format == "jsonl":
            yield from records.objects(self.path)
            return
        try:
            with open(storage.local(self.path), encoding="utf-8-sig") as file:
                found = json.load(file)
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(f"{self.path}: cannot be read as JSON: {error}") from error
        line = 0
        for of_article, article in _list(self.path, found, "data"):
            for of_paragraph, paragraph in _list(of_article, article, "paragraphs"):
                for _, record in _list(of_paragraph, paragraph, "qas"):
                    line += 1
                    reason = "" if isinstance(record, dict) else "not a JSON object"
                    yield line, record if reason else {**record, "context": paragraph.get("context")}, reason


def _list(place: str, record: Any, name: str) -> Iterator[tuple[str, Any]]:
    """(place, item) of a list in SQuAD's JSON. Raises InputError where there is none."""
    found = record.get(name) if isinstance(record, dict) else None
    if not isinstance(found, list):
        raise InputError(f"{place}: SQuAD's JSON must have a list {name!r} here. Received: {_short(found)}")
    separator = "." if "[" in place else ": "
    for number, item in enumerate(found):
        yield f"{place}{separator}{name}[{number}]", item


def _text_fault(others: list[str], record: Mapping) -> str:
    """Why the texts of a question (and the `others`) cannot be used, or nothing."""
    for key in ("question", "context"):
        value = record.get(key)
        if not isinstance(value, str):
            return f"{key} must be text. Received: {_short(value)}"
        if not value.strip():
            return f"{key} is empty"
    try:
        "".join((*others, record["question"], record["context"])).encode()
    except UnicodeEncodeError:
        return "is not UTF-8, or holds a NUL"
    return ""


def _answers(record: Mapping) -> tuple[tuple[Answer, ...] | None, str]:
    """(the record's answers, why they cannot be used)"""
    given = record.get("answers")
    impossible = record.get("is_impossible", False)
    if given is None:
        return (() if impossible else None), ""
    if isinstance(given, dict):  # columns instead of rows
        texts, starts = given.get("text"), given.get("answer_start") or []
        if not isinstance(texts, list) or len(starts) not in (0, len(texts)):
            return None, f"answers must have lists of text and answer_start. Received: {_short(given)}"
        given = [
            {"text": text, "answer_start": start}
            for text, start in zip(texts, starts or [None] * len(texts), strict=True)
        ]
    if not isinstance(given, list):
        return None, f"answers must be a list. Received: {_short(given)}"
    found = []
    for answer in given:
        text = answer.get("text") if isinstance(answer, dict) else answer
        start = answer.get("answer_start") if isinstance(answer, dict) else None
        if not isinstance(text, str) or not text.strip():
            return None, f"an answer must be text that is not empty. Received: {_short(text)}"
        if start is not None and (not isinstance(start, int) or isinstance(start, bool)):
            return None, f"answer_start must be a whole number. Received: {_short(start)}"
        found.append(Answer(text, start))
    if found and impossible:
        return None, "is_impossible, yet it has answers"
    return tuple(found), ""


def located(context: str, answer: Answer) -> int | None:
    """Where the answer begins in its context: at its start, else the occurrence that is nearest to it (the first, where
    no start is given), else None."""
    start = answer.start
    if start is None:
        found = context.find(answer.text)
        return None if found < 0 else found
    if start >= 0 and context.startswith(answer.text, start):
        return start
    near = max(start, 0)
    places = (context.rfind(answer.text, 0, near + len(answer.text)), context.find(answer.text, near))
    return min((place for place in places if place >= 0), key=lambda place: abs(place - start), default=None)


def _short(value: Any) -> str:
    return "nothing" if value is None else repr(value)[:60]
