"""Where in a context the answer to a question stands, if it does."""

import collections
import dataclasses
import functools
import pathlib
import types
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from model.settings import QuestionAnsweringSettings
from pipeline.finetuning.kinds.kind import Answer, Calibration, Verdict
from preprocessing.errors import InputError, require
from preprocessing.tasks.squad import Question, Questions

SHOWN = 1000  # characters of a context


class QuestionAnswering:
    """A `pipeline.finetuning.kinds.kind.Kind`. Rows are questions with their contexts."""

    name = "question-answering"
    title = "Question answering"
    figures = types.MappingProxyType(
        {"f1": "F1", "exact_match": "Exact match", "never_an_answer": "F1 of never an answer"}
    )
    watched = ("exact", "cross_entropy")
    defaults = types.MappingProxyType({"max_seq_length": 384, "stride": 128, "max_question": 64, "max_answer": 30})
    pooling = None
    chosen = "The threshold of no answer"
    signatures = ("answer",)
    calibrates_on = None

    def row(self):
        return Question

    def source(self, path, columns):
        for name in ("text", "second", "label", "header", "separator", "id", "more"):
            given = getattr(columns, name)
            require(given in (None, ()), f"{path}: questions have no columns to choose; leave --{name} out", given)
        return Questions(path, columns.labelled)

    def prepare(self, train, dev, tokenizer, folder, options, progress):
        from preprocessing.tasks import question_examples
        from preprocessing.tasks.windows import WindowRules

        if tokenizer.added:
            raise InputError(
                "answers have places, which a tokenizer with added tokens does not tell; name the vocabulary with "
                f"--vocab to do without them. Received: {', '.join(tokenizer.added)}"
            )
        rules = WindowRules(options.max_seq_length, options.stride, options.max_question)
        found = question_examples.prepare(train, dev, tokenizer, folder, rules, progress)
        require(found.train.answered > 0, f"{train.path}: there must be answers to learn from", found.train.answered)
        return found

    def task(self, prepared, options):
        from model.tasks import question_answering

        return question_answering.QuestionAnswering(options.watch)

    def settings(self, prepared, train, options):
        threshold = 0.0 if prepared.train.impossible else None
        lengths = (options.max_seq_length, options.stride, options.max_question, options.max_answer)
        return QuestionAnsweringSettings(self.name, *lengths, threshold)

    def told(self, prepared, options):
        for split, name in ((prepared.train, "train"), (prepared.dev, "dev")):
            yield (
                f"{name}: {split.questions:,} questions, {split.impossible:,} without an answer, in {split.rows:,} "
                f"windows of at most {options.max_seq_length} tokens, {split.answered:,} with the whole answer"
            )
            if split.cut:
                yield f"{name}: {split.cut / split.questions:.1%} of the questions cut at {options.max_question} tokens"

    def signature(self, source):
        return "answer"

    def inputs(self, signature, rows):
        return {"question": [row.question for row in rows], "context": [row.context for row in rows]}

    def size(self, row):
        return len(row.question) + len(row.context)

    def labels(self, row):
        return ("an answer" if row.answers else "no answer",)

    def said(self, row, answer):
        return {
            "answer": _text(answer["answer"]),
            "span": _span(answer),
            "score": float(answer["scores"][0]),
            "no_answer": float(answer["no_answer"]),
            "truncated": bool(answer["truncated"]),
        }

    def calibrated(self, settings: QuestionAnsweringSettings, answered: Iterable[tuple[Any, Answer]]) -> Calibration:
        """The threshold with the best F1. A model that was shown no question without an answer always answers."""
        from model.tasks import answer_scores

        if settings.no_answer_threshold is None:
            return Calibration(settings)
        no_answer, best, none = [], [], []
        for row, answer in answered:
            no_answer.append(float(answer["no_answer"]))
            best.append(answer_scores.score(_text(answer["answers"][0]), row.gold, True))
            none.append(answer_scores.score("", row.gold, True))
        threshold = answer_scores.threshold(no_answer, [one.f1 for one in best], [one.f1 for one in none])
        before, after = (
            {name: _mean(no_answer, best, none, limit, name) for name in ("f1", "exact")} for limit in (0.0, threshold)
        )
        found = dataclasses.replace(settings, no_answer_threshold=threshold)
        return Calibration(found, {"no_answer_threshold": threshold}, before, after)

    def judge(self):
        return Judge()

    def sections(self, prepared, metrics):
        yield from ()


def _mean(no_answer, best, none, limit, name) -> float:
    scores = (one if value <= limit else other for value, one, other in zip(no_answer, best, none, strict=True))
    return sum(getattr(score, name) for score in scores) / len(no_answer)


class Judge:
    """A `pipeline.finetuning.kinds.kind.Judge`: SQuAD's official evaluation, by the rules of 2.0 if there is a question
    without an answer, else by those of 1.1."""

    def __init__(self):
        # Questions, and the sums of exact match and F1, by the rules, the threshold or the questions that are meant.
        self._sums: dict[str, np.ndarray] = collections.defaultdict(functools.partial(np.zeros, 3))
        self._silent = 0

    def add(self, row: Question, answer: Answer) -> Verdict:
        from model.tasks.answer_scores import score

        text = _text(answer["answer"])
        found = score(text, row.gold, True)
        at_0 = score(_text(answer["answers"][0]) if answer["no_answer"] <= 0 else "", row.gold, True)
        part = "has_answer" if row.answers else "no_answer"
        for name, one in (("1.1", score(text, row.gold, False)), ("2.0", found), (part, found), ("at_0", at_0)):
            self._sums[name] += (1, *one)
        self._silent += not text
        sure, no_answer = float(answer["scores"][0]), float(answer["no_answer"])
        context = row.context if len(row.context) <= SHOWN else f"{row.context[:SHOWN]}…"
        return Verdict(
            list(dict.fromkeys(row.gold)),
            text,
            None if found.exact else (1 - found.f1) * (sure if text else 1),
            f"{row.question} ||| {context}",
            {"f1": found.f1, "span": _span(answer), "score": sure, "no_answer": no_answer},
        )

    def merge(self, other: "Judge") -> None:
        for name, sums in other._sums.items():
            self._sums[name] += sums
        self._silent += other._silent

    def figures(self) -> dict[str, float]:
        count, exact, f1 = self._sums["2.0" if "no_answer" in self._sums else "1.1"]
        never = self._sums["no_answer"][0] if "no_answer" in self._sums else 0.0
        shares = (float(value / max(count, 1)) for value in (f1, exact, never))
        return dict(zip(QUESTION_ANSWERING.figures, shares, strict=True))

    def details(self) -> dict[str, Any]:
        """Of questions with and without an answer, and with 0 for the threshold; of 1.1 nothing."""
        parts = ("has_answer", "no_answer", "at_0") if "no_answer" in self._sums else ()
        found = {part: self._sums[part] for part in parts if part in self._sums}
        return {
            f"{part}_{name}": float(sums[place] / sums[0])
            for part, sums in found.items()
            for name, place in (("f1", 2), ("exact_match", 1))
        }

    def notes(self) -> Iterator[str]:
        if "has_answer" in self._sums and self._silent == self._sums["2.0"][0]:
            yield (
                "ALARM: the model answers no question: it has learned nothing. Try another --learning-rate, or more "
                "--epochs"
            )

    def lines(self) -> Iterator[str]:
        for name, value in self.details().items():
            yield f"  {name.replace('_', ' '):20} {value:.4f}"

    def draw(self, folder: pathlib.Path) -> None:
        """There is nothing to draw."""


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")


def _span(answer: Answer) -> list[int] | None:
    """Where the answer stands in the context, in code points."""
    return [int(answer[name][0]) for name in ("char_starts", "char_ends")] if answer["answer"] else None


QUESTION_ANSWERING = QuestionAnswering()
