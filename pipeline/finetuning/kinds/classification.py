"""One label of a text or a pair."""

import math
import pathlib
import types
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from model.settings import ClassificationSettings, Pooling
from pipeline.finetuning.kinds import label_files, temperature, texts
from pipeline.finetuning.kinds.kind import OF_TEACHER, Answer, Calibration, Verdict
from pipeline.finetuning.places import Places
from preprocessing.errors import InputError

LEAST = 1e-37  # a probability below it may have lost digits, or be 0


class Classification:
    """A `pipeline.finetuning.kinds.kind.Kind`. Rows are those of a table."""

    name = "classification"
    title = "Text classification"
    figures = types.MappingProxyType(
        {
            "accuracy": "Accuracy",
            "macro_f1": "Macro F1",
            "matthews": "Matthews' coefficient",
            "cross_entropy": "Cross entropy (nats), before the temperature",
            "majority_accuracy": "Accuracy of the commonest label",
        }
    )
    watched = ("accuracy", "macro_f1", "matthews", "cross_entropy")
    defaults = types.MappingProxyType(
        {"max_seq_length": 128, "long": "cut", "pooling": None, "labels": None, "class_weights": None} | OF_TEACHER
    )
    pooling: Pooling = "cls"
    chosen = "The temperature"
    signatures = ("classify", "classify_pair")
    calibrates_on = None

    row = staticmethod(texts.row)
    source = staticmethod(texts.source)
    inputs = staticmethod(texts.inputs)
    size = staticmethod(texts.size)

    def prepare(self, train, dev, tokenizer, folder, options, progress):
        from preprocessing.tasks.labelling import OneLabel

        labelling = OneLabel(label_files.declared(options.labels))
        found = texts.prepare(
            train, dev, tokenizer, folder, options, progress, labelling, unlabelled=bool(options.teacher)
        )
        if not sum(found.dev.counts):
            raise InputError(f"{dev.path}: dev must have rows with labels of train. Received: none; see --label")
        return found

    def task(self, prepared, options):
        from model.tasks import classification

        balanced = classification.balanced(prepared.train.counts)
        weights = label_files.class_weights(options.class_weights, prepared.labels, balanced)
        return classification.Classification(len(prepared.labels), weights, options.watch, options.pooling)

    def settings(self, prepared, train, options):
        return ClassificationSettings(tuple(prepared.labels), **texts.settings(train, options))

    def told(self, prepared, options):
        yield from texts.told(prepared, options)
        dev, labels = prepared.dev, prepared.labels
        yield f"{len(labels)} classes: {texts.classes(prepared)}"
        most = max(range(len(labels)), key=dev.counts.__getitem__)
        yield f"always saying {labels[most]!r} is right in {dev.counts[most] / dev.texts:.4f} of dev"

    def signature(self, source):
        return "classify_pair" if source.pair else "classify"

    def labels(self, row):
        return () if row.label is None else (row.label,)

    def said(self, row, answer):
        shares = zip(answer["labels"].tolist(), answer["probabilities"].tolist(), strict=True)
        return {
            "label": answer["label"].decode(),
            "probabilities": {label.decode(): share for label, share in shares},
            "truncated": bool(answer["truncated"]),
        }

    def calibrated(self, settings: ClassificationSettings, answered: Iterable[tuple[Any, Answer]]) -> Calibration:
        """A temperature. The probabilities' logarithms are the logits but for a constant, which it takes off again."""
        numbers = {label: number for number, label in enumerate(settings.labels)}
        known = [(answer["probabilities"], numbers[row.label]) for row, answer in answered if row.label in numbers]
        probabilities, gold = (np.array(values) for values in zip(*known, strict=True))
        logits = np.log(np.maximum(probabilities, LEAST), dtype=float)
        return temperature.calibrated(settings, logits, gold)

    def judge(self):
        return Judge()

    def sections(self, prepared, metrics):
        yield from texts.sections(prepared, metrics["f1"])


class Judge:
    """A `pipeline.finetuning.kinds.kind.Judge`. A row without a label, or with one that the model does not have, counts
    as an error."""

    def __init__(self):
        self._numbers: dict[str, int] = {}
        self._confusion = np.zeros((1, 0))  # rows [C + 1, C] of each label, the last of none, by what was said
        self._unknown = Places()

    def add(self, row: Any, answer: Answer) -> Verdict:
        if not self._numbers:
            self._numbers = {label.decode(): number for number, label in enumerate(answer["labels"].tolist())}
            self._confusion = np.zeros((len(self._numbers) + 1, len(self._numbers)))
        label, shares = answer["label"].decode(), answer["probabilities"]
        said, gold = self._numbers[label], self._numbers.get(row.label, len(self._numbers))
        of_gold = float(shares[gold]) if gold < len(shares) else 0.0
        if gold == len(shares):
            self._unknown.add(f"{row.place} {'no label' if row.label is None else repr(row.label)}")
        self._confusion[gold, said] += 1
        return Verdict(
            row.label,
            label,
            None if said == gold else -math.log(of_gold) if of_gold else math.inf,
            texts.text(row),
            {"probability": float(shares[said]), "probability_of_gold": of_gold},
        )

    def merge(self, other: "Judge") -> None:
        self._numbers = self._numbers or other._numbers
        self._confusion = texts.added(self._confusion, other._confusion)
        self._unknown.merge(other._unknown)

    def figures(self) -> dict[str, float]:
        from model.tasks import classification

        return classification.scores(self._confusion)

    def details(self) -> dict[str, Any]:
        from model.tasks import classification

        each = classification.f1(self._confusion).tolist()
        return {"f1": dict(zip(self._numbers, each, strict=True)), "unknown": self._unknown.count}

    def notes(self) -> Iterator[str]:
        if self._unknown.count:
            yield f"{self._unknown.count:,} rows have none of the model's labels: errors: {self._unknown}"
        said = np.flatnonzero(self._confusion.sum(0))
        if len(said) == 1 and np.count_nonzero(self._confusion.sum(1)) > 1:
            yield (
                f"ALARM: the model says {[*self._numbers][said[0]]!r} of every row: it has learned nothing. Try "
                "another --learning-rate, more --epochs, or --class-weights balanced"
            )

    def lines(self) -> Iterator[str]:
        yield from texts.lines(self.details()["f1"], self._confusion.sum(1))

    def draw(self, folder: pathlib.Path) -> None:
        from pipeline.finetuning import plots

        plots.confusion(self._confusion, [*self._numbers], folder)


CLASSIFICATION = Classification()
