"""A model judged by its served answers to the rows of a file, and what is left of that for people."""

import contextlib
import json
import os
import pathlib
import tempfile
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO, TextIO

from pipeline.finetuning.kinds.kind import Answer, Judge, Kind, Row, Verdict
from pipeline.finetuning.slices import Slices


def judged(
    kind: Kind,
    answered: Iterable[tuple[Row, Answer]],
    folder: pathlib.Path | None = None,
    slices: Slices | None = None,
    progress: Callable[[int], None] = lambda rows: None,
) -> tuple[Judge, int]:
    """(what says how good the answers are, how many there were). With a folder also predictions.jsonl, an answer a row;
    errors.tsv, the wrong ones, the costliest first; and the judge's plots. The slices are added up."""
    judge, rows = kind.judge(), 0
    with contextlib.ExitStack() as stack:
        files = stack.enter_context(_Files.opened(folder)) if folder is not None else None
        for rows, (row, answer) in enumerate(answered, 1):
            verdict = judge.add(row, answer)
            if slices is not None:
                slices.add(row, answer)
            progress(rows)
            if files is not None:
                files.add(row, verdict)
    if folder is not None:
        judge.draw(folder)
    return judge, rows


class _Files:
    """What a folder gets. Rows are written as they come; of the wrong ones memory holds their costs and places."""

    def __init__(self, answers: TextIO, errors: BinaryIO):
        self._answers, self._errors = answers, errors
        self._costs: list[tuple[float, int]] = []  # (-cost, where its line begins)

    @classmethod
    @contextlib.contextmanager
    def opened(cls, folder: pathlib.Path) -> Iterator["_Files"]:
        """The files get their names when all is written."""
        folder.mkdir(parents=True, exist_ok=True)
        scratch = folder / f".predictions.{os.getpid()}.tmp"
        try:
            with scratch.open("w", encoding="utf-8") as answers, tempfile.TemporaryFile() as errors:
                files = cls(answers, errors)
                yield files
                files._sort(folder / "errors.tsv")
            scratch.replace(folder / "predictions.jsonl")
        finally:
            scratch.unlink(missing_ok=True)

    def add(self, row: Row, verdict: Verdict) -> None:
        where = {"file": row.file, "line": row.line, "gold": verdict.gold, "answer": verdict.answer}
        named = {} if row.id is None else {"id": row.id}
        self._answers.write(json.dumps(where | named | dict(verdict.more), ensure_ascii=False) + "\n")
        if verdict.cost is not None:
            cells = (*where.values(), f"{verdict.cost:.4f}", verdict.text)
            self._costs.append((-verdict.cost, self._errors.tell()))
            self._errors.write(("\t".join(map(_cell, cells)) + "\n").encode("utf-8", "replace"))

    def _sort(self, path: pathlib.Path) -> None:
        """Writes the wrong answers, the costliest first, those alike in their order."""
        scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        with scratch.open("wb") as stream:
            stream.write(b"file\tline\tgold\tanswer\tcost\ttext\n")
            for _, place in sorted(self._costs):
                self._errors.seek(place)
                stream.write(self._errors.readline())
        scratch.replace(path)


def _cell(value: Any) -> str:
    """One cell of a TSV: what would end it is shown as a blank."""
    shown = ", ".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)
    return " ".join(shown.split())
