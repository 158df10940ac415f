"""A model judged by its served answers to the rows of a file, and what is left of that for people."""

import json
import pathlib
from collections.abc import Callable, Iterable
from typing import Any

from pipeline.finetuning.kinds.kind import Answer, Judge, Kind, Row
from pipeline.finetuning.slices import Slices
from preprocessing.storage import write_whole


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
    answers: list[str] = []
    errors: list[tuple[float, str]] = []
    for rows, (row, answer) in enumerate(answered, 1):
        verdict = judge.add(row, answer)
        if slices is not None:
            slices.add(row, answer)
        progress(rows)
        if folder is None:
            continue
        where = {"file": row.file, "line": row.line, "gold": verdict.gold, "answer": verdict.answer}
        named = {} if row.id is None else {"id": row.id}
        answers.append(json.dumps(where | named | dict(verdict.more), ensure_ascii=False) + "\n")
        if verdict.cost is not None:
            cells = (*where.values(), f"{verdict.cost:.4f}", verdict.text)
            errors.append((verdict.cost, "\t".join(map(_cell, cells)) + "\n"))
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        errors.sort(key=lambda error: -error[0])
        write_whole("".join(answers), folder / "predictions.jsonl")
        write_whole(
            "file\tline\tgold\tanswer\tcost\ttext\n" + "".join(line for _, line in errors), folder / "errors.tsv"
        )
        judge.draw(folder)
    return judge, rows


def _cell(value: Any) -> str:
    """One cell of a TSV: what would end it is shown as a blank."""
    shown = ", ".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)
    return " ".join(shown.split())
