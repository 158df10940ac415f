"""One run of the fine-tuning pipeline is one settings object, of any kind of fine-tuning."""

import dataclasses
import json
import math
import os
import re
from typing import Any

from pipeline import values
from pipeline.finetuning import kinds
from pipeline.finetuning.kinds.kind import Kind
from pipeline.keeping import PartialExport
from pipeline.retention import RetentionSettings
from preprocessing.errors import require
from preprocessing.settings import CorpusSettings


@dataclasses.dataclass(frozen=True)
class TuningGate:
    """What a model must show on the eval rows before it is pushed, in the first figure of its kind."""

    min_gain: float = 1e-6  # by which it beats what an untrained encoder, or always the commonest answer, comes to
    max_decrease: float = 0.02  # by which it may be below the model pushed before
    max_drift: float = 0.1  # by which any label's share, from 0 to 1, may differ between train and eval


@dataclasses.dataclass(frozen=True)
class FinetuningSettings:
    """Everything a run of the fine-tuning pipeline depends on."""

    task: str  # the name of a kind
    name: str = "tuned"
    train: str | None = None  # a file of rows; None: the embedded set, docstrings with the packages they come from
    eval: str | None = None
    columns: dict = dataclasses.field(default_factory=dict)  # of `preprocessing.tasks.tables.Columns`
    options: dict = dataclasses.field(default_factory=dict)  # of `pipeline.finetuning.planning.Options`
    embedded_rows: int = 1000  # at most, of each package, where no files are given
    init: str | None = (
        None  # checkpoint to start from; None: that of the model pushed last by the pipeline `pretrained`
    )
    pretrained: str = "bert"
    untrained: bool = True  # whether an untrained encoder is trained alike, to say what the checkpoint is worth
    export: PartialExport = PartialExport()
    gate: TuningGate = TuningGate()
    retention: RetentionSettings = RetentionSettings()
    webhook: str = "$BERT_WEBHOOK"  # as that of PipelineSettings
    beam_args: tuple[str, ...] = values.BEAM_ARGS

    def __post_init__(self):
        for name in ("name", "pretrained"):
            rule = f"{name} must be of A-Z a-z 0-9 . _ - and at most 63 characters"
            require(re.fullmatch(r"[A-Za-z0-9_][\w.-]{0,62}", getattr(self, name), re.ASCII) is not None, rule,
                    getattr(self, name))  # fmt: skip
        require(self.name != self.pretrained, "name must not be that of the pipeline that pretrains", self.name)
        names = [kind.name for kind in kinds.ALL]
        require(self.task in names, f"task must be one of {', '.join(names)}", self.task)
        require((self.train is None) == (self.eval is None), "train and eval must both be files, or left out",
                {"train": self.train, "eval": self.eval})  # fmt: skip
        require(self.train is not None or self.task == "classification",
                "train and eval must be files: the embedded set is one for task classification", self.task)  # fmt: skip
        require(self.embedded_rows > 0, "embedded_rows must be positive", self.embedded_rows)
        for name in ("min_gain", "max_decrease", "max_drift"):
            require(math.isfinite(getattr(self.gate, name)), f"gate.{name} must be finite", getattr(self.gate, name))

    @property
    def kind(self) -> Kind:
        return kinds.named(self.task)

    def check(self, files: bool = True) -> None:
        """Raises InputError where columns or options are none of its kind, or files are not there, before the first
        step. `files`: whether they are looked at."""
        self.checked_options()
        rule = "export.layers must be left out: options.layers has a model learn its task without the others"
        require(self.export.layers is None, rule, self.export.layers)
        columns = self.checked_columns()
        if not files:
            return
        for path in (self.train, self.eval):
            if path is not None:
                self.kind.source(path, columns)
        for name, path in (("init", self.init), ("teacher", self.options.get("teacher"))):
            require(path is None or os.path.exists(path), f"{name} must be a checkpoint", path)
        if self.export.tokens_of:
            from preprocessing.corpus.inputs import survey

            survey(CorpusSettings(self.export.tokens_of))

    def checked_columns(self) -> Any:
        """`Columns`, of the right types. Raises InputError."""
        from preprocessing.tasks.tables import Columns

        return values.build(Columns, self.columns, "columns")

    def checked_options(self) -> Any:
        """`Options`, of the right types. Raises InputError."""
        from pipeline.finetuning.planning import Options

        kind = self.kind
        needed = {"watch": kind.watched[0], **kind.defaults}
        values.build(Options, {**needed, **self.options}, "options")
        return Options.of(kind, **self.options)

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2)

    def replace(self, **changes: Any) -> "FinetuningSettings":
        return dataclasses.replace(self, **changes)


def classification() -> FinetuningSettings:
    """From which package a docstring comes, in some three minutes on two cores: what `make run` pretrained, and an
    untrained encoder beside it. Of few rows, from which pretraining is worth the most."""
    return FinetuningSettings(
        task="classification",
        name="packages",
        embedded_rows=250,
        options={"max_seq_length": 64, "epochs": 12.0, "learning_rate": 1e-3},
        export=PartialExport(max_seq_length=64, warmup_lengths=(16, 32, 64)),
    )


def classification_smoke() -> FinetuningSettings:
    """Every step in seconds, for the end-to-end test: nothing worth keeping is learned, so the gate is open."""
    return FinetuningSettings(
        task="classification",
        name="packages-smoke",
        embedded_rows=40,
        options={"max_seq_length": 32, "epochs": 1.0},
        export=PartialExport(max_seq_length=32, warmup_lengths=(16,), warmup_batches=(1,)),
        gate=TuningGate(min_gain=-1.0, max_decrease=1.0, max_drift=1.0),
    )


PRESETS = {"classification": classification, "classification-smoke": classification_smoke}
