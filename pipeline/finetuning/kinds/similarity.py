"""How like the two texts of a pair are, each encoded by itself, so that their vectors can be kept and searched."""

import types
from collections.abc import Iterable, Iterator
from typing import Any

from model.settings import Pooling, SimilaritySettings
from pipeline.finetuning.kinds import texts
from pipeline.finetuning.kinds.kind import Answer, Calibration
from pipeline.finetuning.kinds.regression import REGRESSION, Judge
from preprocessing.errors import InputError


class Similarity:
    """A `pipeline.finetuning.kinds.kind.Kind`. Rows are those of a table of pairs whose labels are numbers."""

    name = "similarity"
    title = "Similarity of texts"
    figures = types.MappingProxyType(dict(REGRESSION.figures))
    watched = REGRESSION.watched
    defaults = types.MappingProxyType({"max_seq_length": 128, "pooling": None})
    pooling: Pooling = "mean"
    chosen = "Nothing"
    signatures = ("similarity",)
    calibrates_on = None
    row = staticmethod(texts.row)
    size = staticmethod(texts.size)
    labels = staticmethod(REGRESSION.labels)

    def source(self, path, columns):
        found = texts.source(path, columns)
        if not found.pair:
            raise InputError(f"{path}: two texts are compared: name the column of the other with --second")
        return found

    def prepare(self, train, dev, tokenizer, folder, options, progress):
        from preprocessing.tasks.labelling import Score

        return texts.prepare(train, dev, tokenizer, folder, options, progress, Score(), apart=True)

    def task(self, prepared, options):
        from model.tasks import similarity

        return similarity.Similarity(prepared.least, prepared.most, options.watch, options.pooling)

    def settings(self, prepared, train, options):
        return SimilaritySettings(self.name, options.pooling, options.max_seq_length, prepared.least, prepared.most)

    def told(self, prepared, options) -> Iterator[str]:
        yield from texts.told(prepared, options)
        yield f"scores of train: from {prepared.least:g}, which is the cosine 0, to {prepared.most:g}, which is 1"

    def signature(self, source):
        return "similarity"

    def inputs(self, signature, rows):
        return texts.inputs("similarity_pair", rows)

    def said(self, row, answer):
        return {name: float(answer[name]) for name in ("score", "scaled")} | {"truncated": bool(answer["truncated"])}

    def calibrated(self, settings: SimilaritySettings, answered: Iterable[tuple[Any, Answer]]) -> Calibration:
        return Calibration(settings)

    def judge(self):
        return Judge("scaled")

    def sections(self, prepared, metrics) -> Iterator[str]:
        return iter(())


SIMILARITY = Similarity()
