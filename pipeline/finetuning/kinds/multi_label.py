"""Any number of labels of a text or a pair."""

import dataclasses
import functools
import math
import pathlib
import types
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from model.settings import ClassificationSettings, Pooling
from pipeline.finetuning.kinds import label_files, texts
from pipeline.finetuning.kinds.kind import Answer, Calibration, Verdict
from pipeline.finetuning.places import Places
from preprocessing.errors import InputError


class MultiLabel:
    """A `pipeline.finetuning.kinds.kind.Kind`. Rows are those of a table with several labels."""

    name = "multi-label"
    title = "Text classification with several labels"
    figures = types.MappingProxyType(
        {
            "macro_f1": "Macro F1",
            "micro_f1": "Micro F1",
            "exact": "Rows without a wrong label",
            "cross_entropy": "Cross entropy of a label (nats), before the temperature",
        }
    )
    watched = ("macro_f1", "micro_f1", "exact", "cross_entropy")
    defaults = types.MappingProxyType(
        {"max_seq_length": 128, "long": "cut", "pooling": None, "labels": None, "class_weights": None}
    )
    pooling: Pooling = "cls"
    chosen = "The temperature and the labels' thresholds"
    signatures = ("classify_labels", "classify_labels_pair")
    calibrates_on = None
    row = staticmethod(texts.row)
    inputs = staticmethod(texts.inputs)
    size = staticmethod(texts.size)

    def source(self, path, columns):
        from preprocessing.tasks.tables import Table

        return Table(path, dataclasses.replace(columns, separator=columns.separator or ","))

    def prepare(self, train, dev, tokenizer, folder, options, progress):
        from preprocessing.tasks.labelling import SeveralLabels

        labelling = SeveralLabels(label_files.declared(options.labels))
        found = texts.prepare(train, dev, tokenizer, folder, options, progress, labelling)
        if not sum(found.dev.counts):
            raise InputError(f"{dev.path}: dev must have rows with labels of train. Received: none; see --label")
        return found

    def task(self, prepared, options):
        from model.tasks import multi_label

        balanced = multi_label.balanced(prepared.train.texts, prepared.train.counts)
        weights = label_files.class_weights(options.class_weights, prepared.labels, balanced)
        return multi_label.MultiLabel(len(prepared.labels), weights, options.watch, options.pooling)

    def settings(self, prepared, train, options):
        return ClassificationSettings(tuple(prepared.labels), self.name, **texts.settings(train, options))

    def told(self, prepared, options):
        yield from texts.told(prepared, options)
        several = sum(prepared.train.counts) / prepared.train.texts
        yield f"{len(prepared.labels)} labels, {several:.2f} a row of train: {texts.classes(prepared)}"

    def signature(self, source):
        return "classify_labels_pair" if source.pair else "classify_labels"

    def labels(self, row):
        return row.labels

    def said(self, row, answer):
        shares = zip(answer["names"].tolist(), answer["probabilities"].tolist(), strict=True)
        return {
            "labels": _said(answer),
            "probabilities": {name.decode(): share for name, share in shares},
            "truncated": bool(answer["truncated"]),
        }

    def calibrated(self, settings: ClassificationSettings, answered: Iterable[tuple[Any, Answer]]) -> Calibration:
        """A temperature, and for each label the threshold with the best F1."""
        from model.tasks import multi_label
        from pipeline.finetuning import calibration, plots

        found = [
            (answer["probabilities"], [name in row.labels for name in settings.labels]) for row, answer in answered
        ]
        probabilities, there = (np.array(values) for values in zip(*found, strict=True))
        logits = calibration.logits(probabilities)
        temperature = calibration.temperature_of_labels(logits, there)
        calibrated = calibration.sigmoid(logits / temperature)
        thresholds = calibration.thresholds(calibrated, there)

        def figures(shares, said):
            counts = (values.sum(0) for values in (said & there, said, there))
            of_labels = {"cross_entropy": calibration.cross_entropy_of_labels(shares, there)}
            return of_labels | multi_label.scores(*counts)

        before, after = figures(probabilities, probabilities >= 0.5), figures(calibrated, calibrated >= thresholds)
        first, then = (calibration.bins(shares.ravel(), there.ravel()) for shares in (probabilities, calibrated))
        return Calibration(
            dataclasses.replace(settings, temperature=temperature, thresholds=tuple(thresholds.tolist())),
            {
                "temperature": temperature,
                "thresholds": dict(zip(settings.labels, thresholds.tolist(), strict=True)),
            },
            before,
            after,
            {"cross_entropy": before["cross_entropy"]},
            functools.partial(plots.reliability, first, then),
        )

    def judge(self):
        return Judge()

    def sections(self, prepared, metrics):
        yield from texts.sections(prepared, metrics["f1"])


def _said(answer: Answer) -> list[str]:
    return [label.decode() for label in answer["labels"].tolist() if label]


class Judge:
    """A `pipeline.finetuning.kinds.kind.Judge`. A label that the model does not have makes its row wrong, but is not
    one of those of which F1 is the mean."""

    def __init__(self):
        self._names: list[str] = []
        self._counts = np.zeros((3, 0))  # of each label: how often it was said rightly, said, and there
        self._at_half = np.zeros((3, 0))  # the same, were every threshold 0.5
        self._rows = self._exact = 0
        self._unknown = Places()

    def add(self, row: Any, answer: Answer) -> Verdict:
        if not self._names:
            self._names = [name.decode() for name in answer["names"].tolist()]
            self._counts = self._at_half = np.zeros((3, len(self._names)))
        said, gold, shares = _said(answer), list(row.labels), answer["probabilities"]
        was_said, there = (np.array([name in found for name in self._names]) for found in (said, gold))
        self._counts, self._at_half = (
            counts + np.stack([said & there, said, there])
            for counts, said in ((self._counts, was_said), (self._at_half, shares >= 0.5))
        )
        self._rows += 1
        known = there.sum() == len(gold)
        if not known:
            self._unknown.add(f"{row.place} {row.label!r}")
        right = known and bool((was_said == there).all())
        self._exact += right
        with np.errstate(divide="ignore"):
            nats = -float(np.log(np.where(there, shares, 1 - shares), dtype=float).sum()) if known else math.inf
        probabilities = {name: float(shares[self._names.index(name)]) for name in said}
        more = {"probabilities": probabilities}
        return Verdict(gold, said, None if right else nats, texts.text(row), more)

    def merge(self, other: "Judge") -> None:
        self._names = self._names or other._names
        self._counts = texts.added(self._counts, other._counts)
        self._at_half = texts.added(self._at_half, other._at_half)
        self._rows += other._rows
        self._exact += other._exact
        self._unknown.merge(other._unknown)

    def figures(self) -> dict[str, float]:
        from model.tasks import multi_label

        return multi_label.scores(*self._counts) | {"exact": self._exact / max(self._rows, 1)}

    def details(self) -> dict[str, Any]:
        from model.tasks import multi_label

        each = multi_label.f1(*self._counts).tolist()
        at_half = multi_label.scores(*self._at_half)["macro_f1"]
        labels = dict(zip(self._names, each, strict=True))
        return {"f1": labels, "macro_f1_at_half": at_half, "unknown": self._unknown.count}

    def notes(self) -> Iterator[str]:
        if self._unknown.count:
            yield f"{self._unknown.count:,} rows have labels that the model does not have: errors: {self._unknown}"
        _, said, there = (np.isin(counts, (0, self._rows)).all() for counts in self._counts)
        if said and not there:
            always = [name for name, count in zip(self._names, self._counts[1], strict=True) if count]
            yield (
                f"ALARM: the model says {', '.join(always) or 'no label'} of every row: it has learned nothing. Try "
                "more --epochs, or --class-weights balanced"
            )

    def lines(self) -> Iterator[str]:
        details = self.details()
        yield f"macro F1, were every threshold 0.5: {details['macro_f1_at_half']:.4f}"
        yield from texts.lines(details["f1"], self._counts[2])

    def draw(self, folder: pathlib.Path) -> None:
        """None of its own."""


MULTI_LABEL = MultiLabel()
