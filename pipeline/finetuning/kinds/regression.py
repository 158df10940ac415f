"""A number for a text or a pair: a score, a similarity."""

import math
import pathlib
import types
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from model.settings import ClassificationSettings, Pooling
from pipeline.finetuning.kinds import texts
from pipeline.finetuning.kinds.kind import Answer, Calibration, Verdict
from pipeline.finetuning.places import Places


class Regression:
    """A `pipeline.finetuning.kinds.kind.Kind`. Rows are those of a table whose labels are numbers."""

    name = "regression"
    title = "Scores of texts"
    figures = types.MappingProxyType(
        {
            "spearman": "Spearman's correlation",
            "pearson": "Pearson's correlation",
            "rmse": "Root of the mean squared error",
            "deviation": "The same of always saying the mean",
        }
    )
    watched = ("pearson", "rmse")
    defaults = types.MappingProxyType({"max_seq_length": 128, "long": "cut", "pooling": None})
    pooling: Pooling = "cls"
    chosen = "Nothing"
    signatures = ("score", "score_pair")
    calibrates_on = None
    source = staticmethod(texts.source)
    row = staticmethod(texts.row)
    inputs = staticmethod(texts.inputs)
    size = staticmethod(texts.size)

    def prepare(self, train, dev, tokenizer, folder, options, progress):
        from preprocessing.tasks.labelling import Score

        return texts.prepare(train, dev, tokenizer, folder, options, progress, Score())

    def task(self, prepared, options):
        from model.tasks import regression

        return regression.Regression(prepared.mean, prepared.scale, options.watch, options.pooling)

    def settings(self, prepared, train, options):
        of_scores = {"mean": prepared.mean, "scale": prepared.scale}
        return ClassificationSettings(("score",), self.name, **of_scores, **texts.settings(train, options))

    def told(self, prepared, options):
        yield from texts.told(prepared, options)
        yield f"scores of train: {prepared.mean:.4g} on average, standard deviation {prepared.scale:.4g}"

    def signature(self, source):
        return "score_pair" if source.pair else "score"

    def labels(self, row):
        least = None if row.number is None else math.floor(row.number)
        return () if least is None else (f"{least} to {least + 1}",)

    def said(self, row, answer):
        return {"score": float(answer["score"]), "truncated": bool(answer["truncated"])}

    def calibrated(self, settings: ClassificationSettings, answered: Iterable[tuple[Any, Answer]]) -> Calibration:
        return Calibration(settings)

    def judge(self):
        return Judge()

    def sections(self, prepared, metrics):
        return iter(())


class Judge:
    """A `pipeline.finetuning.kinds.kind.Judge`. It keeps two numbers a row, for the ranks; a row whose label is no
    number counts nowhere, and is told. `output`: that which is compared with the labels."""

    def __init__(self, output: str = "score"):
        self._output = output
        self._pairs: list[tuple[float, float]] = []  # (label, answer)
        self._unknown = Places()

    def add(self, row: Any, answer: Answer) -> Verdict:
        gold, said = row.number, float(answer[self._output])
        if gold is None:
            self._unknown.add(f"{row.place} {'no label' if row.label is None else repr(row.label)}")
            return Verdict(row.label, said, None, texts.text(row), {})
        self._pairs.append((gold, said))
        return Verdict(gold, said, abs(gold - said) or None, texts.text(row), {})

    def merge(self, other: "Judge") -> None:
        self._pairs += other._pairs
        self._unknown.merge(other._unknown)

    def figures(self) -> dict[str, float]:
        import scipy.stats

        if not self._pairs:
            return dict.fromkeys(REGRESSION.figures, math.nan)
        gold, said = np.array(self._pairs).T
        vary = gold.std() > 0 < said.std()
        return {
            "spearman": float(scipy.stats.spearmanr(gold, said).statistic) if vary else 0.0,
            "pearson": float(np.corrcoef(gold, said)[0, 1]) if vary else 0.0,
            "rmse": float(np.sqrt(np.square(gold - said).mean())),
            "deviation": float(gold.std()),
        }

    def details(self) -> dict[str, Any]:
        return {"unknown": self._unknown.count}

    def notes(self) -> Iterator[str]:
        if self._unknown.count:
            yield f"{self._unknown.count:,} rows have no number for a label and count nowhere: {self._unknown}"
        gold, said = np.std(self._pairs, axis=0) if self._pairs else (0.0, 0.0)
        if said < gold / 100:
            yield (
                f"ALARM: the model says about {self._pairs[0][1]:.4g} of every row: it has learned nothing. Try "
                "another --learning-rate"
            )

    def lines(self) -> Iterator[str]:
        return iter(())

    def draw(self, folder: pathlib.Path) -> None:
        from pipeline.finetuning import plots

        if self._pairs:
            gold, said = np.array(self._pairs).T
            plots.scatter(gold, said, folder)


REGRESSION = Regression()
