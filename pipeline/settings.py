"""One run is one settings object, written beside its artifacts."""

import dataclasses
import glob
import json
import pathlib
import re
from collections.abc import Callable
from typing import Any

from model import settings as encoders
from model.settings import EncoderSettings, TrainingSettings
from pipeline import values
from pipeline.bounds import DataBounds
from pipeline.finetuning import settings as finetuning
from pipeline.finetuning.settings import FinetuningSettings
from pipeline.keeping import PartialExport
from pipeline.retention import RetentionSettings
from preprocessing.errors import InputError, require
from preprocessing.features import MASK
from preprocessing.settings import SPAN, CorpusSettings, ExampleSettings, VocabularySettings


@dataclasses.dataclass(frozen=True)
class GateSettings:
    """What a model must show on held-out documents before it is pushed."""

    min_loss_gain: float = 1e-6  # nats by which its masked loss beats the held-out unigram distribution's
    min_accuracy_gain: float = 1e-6  # by which its masked accuracy beats always saying the commonest token
    max_loss_increase: float = 0.1  # nats by which its masked loss may exceed that of the model pushed before


@dataclasses.dataclass(frozen=True)
class SpanSettings:
    """Of data in spans (`{SPAN}` in the corpus): what a run takes over from the model pushed last of earlier spans."""

    keep_vocabulary: bool = True  # unless vocabulary.file names one; without it models cannot be compared
    warm_start: bool = False  # whether training begins with that model's weights, unless `init` names others


@dataclasses.dataclass(frozen=True)
class PipelineSettings:
    """Everything a run depends on."""

    name: str = "bert"
    corpus: CorpusSettings = CorpusSettings()  # no input: the embedded corpus
    embedded_bytes: int = 5_000_000  # of the embedded corpus, when no input is given
    vocabulary: VocabularySettings = VocabularySettings()
    examples: ExampleSettings = ExampleSettings()
    # Of RECIPES: by what encoder and training were filled in where a file, or a preset, does not say them.
    recipe: str | None = None
    encoder: EncoderSettings = EncoderSettings()  # its vocab_size is set to the vocabulary's
    training: TrainingSettings = TrainingSettings()
    export: PartialExport = PartialExport()
    gate: GateSettings = GateSettings()
    spans: SpanSettings = SpanSettings()
    bounds: DataBounds = DataBounds()
    retention: RetentionSettings = RetentionSettings()
    # Told of a run that failed or pushed nothing; $NAME: what that variable of the environment says, as URLs hold keys.
    webhook: str = "$BERT_WEBHOOK"
    eval_share: float = 0.1  # of the documents, chosen by hash of their content, held out
    init: str | None = None  # checkpoint to start from
    beam_args: tuple[str, ...] = values.BEAM_ARGS
    step_beam_args: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)  # more of them, by step

    def __post_init__(self):
        rule = "name must be of A-Z a-z 0-9 . _ - and at most 63 characters"
        require(re.fullmatch(r"[A-Za-z0-9_][\w.-]{0,62}", self.name, re.ASCII) is not None, rule, self.name)
        require(self.embedded_bytes > 0, "embedded_bytes must be positive", self.embedded_bytes)
        require(0 < self.eval_share < 1, "eval_share must be between 0 and 1", self.eval_share)
        require(self.recipe in (None, *RECIPES), f"recipe must be {' or '.join(RECIPES)}", self.recipe)

    def check(self) -> None:
        """Raises InputError where parts contradict each other, before the first step (each is given only the parts that
        it needs)."""
        length = self.examples.max_seq_length
        spanned = any(SPAN in pattern for pattern in self.corpus.input)
        require(spanned or not self.spans.warm_start, f"spans.warm_start needs {SPAN} in the corpus", self.corpus.input)
        require(self.init is None or bool(glob.glob(f"{self.init}*")), "init must be a checkpoint", self.init)
        require(
            length <= self.encoder.max_positions,
            f"max_seq_length must not exceed the model's max_positions ({self.encoder.max_positions})",
            length,
        )
        require(
            self.vocabulary.lower_case == self.examples.lower_case,
            f"examples.lower_case must be the vocabulary's ({self.vocabulary.lower_case})",
            self.examples.lower_case,
        )
        require(
            self.export.max_seq_length >= length,
            f"export.max_seq_length must not be less than that of the examples ({length}), which the exported model is "
            "evaluated on",
            self.export.max_seq_length,
        )
        if self.export.layers is not None:
            from model.encoder.smaller import layers_of  # imports TensorFlow

            layers_of(self.export.layers, self.encoder.num_layers)
        require(
            not self.export.tokens_of,
            "export.tokens_of must be left out: held-out examples have any token of the vocabulary, whose size is "
            "vocabulary.size",
            self.export.tokens_of,
        )
        require(
            self.examples.masking != "none",
            "examples.masking must be token, whole-word, ngram or phrases: the pipeline trains on examples as they are "
            "written",
            self.examples.masking,
        )
        require(
            self.examples.names == "google",
            "examples.names must be google: the pipeline's own steps read these names",
            self.examples.names,
        )
        require(
            self.examples.pairs != "none" or not self.training.next_sentence,
            "training.next_sentence must be false with examples.pairs none, which have one label",
            self.training.next_sentence,
        )
        require(
            self.examples.pairs == "none" or self.encoder.type_vocab_size >= 2,
            f"encoder.type_vocab_size must be at least 2 for the two segments of examples.pairs {self.examples.pairs}",
            self.encoder.type_vocab_size,
        )
        lengths = [phase.max_seq_length for phase in self.training.phases]
        require(
            all(phase in (None, length) for phase in lengths),
            f"a phase's max_seq_length must be that of the examples ({length}), or left out",
            lengths,
        )
        if self.vocabulary.file is not None:
            from preprocessing import vocab_file  # for the few runs that name one

            file = self.vocabulary.file
            tokens = vocab_file.load(file)
            require(MASK in tokens, f"{file}: a vocabulary to pretrain with must have {MASK}", f"{len(tokens)} others")
            require(
                not self.vocabulary.lower_case or vocab_file.infer_lower_case(tokens) is True,
                f"{file}: vocabulary.lower_case must be false: it has capitals, accents or Korean syllables",
                self.vocabulary.lower_case,
            )

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2)

    def replace(self, **changes: Any) -> "PipelineSettings":
        return dataclasses.replace(self, **changes)


def from_json(text: str, origin: str = "settings") -> PipelineSettings | FinetuningSettings:
    """Reads what `to_json` wrote; parts that are left out are as the `recipe` says, else have their defaults, and a
    `task` tells fine-tuning from pretraining. Raises InputError for unknown names."""
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{origin}:{error.lineno}: not JSON: {error.msg}") from error
    if isinstance(found, dict) and "task" in found:
        return values.build(FinetuningSettings, found, origin)
    return values.build(PipelineSettings, _followed(found, origin) if isinstance(found, dict) else found, origin)


def _followed(found: dict[str, Any], origin: str) -> dict[str, Any]:
    """Settings with what their recipe, where they name one, says of encoder and training and they do not. What else is
    wrong with them `values.build` says."""
    name, training = found.get("recipe"), found.get("training", {})
    if name not in tuple(RECIPES) or not isinstance(training, dict):
        return found
    recipe, encoder = RECIPES[name], values.build(EncoderSettings, found.get("encoder", {}), f"{origin}.encoder")
    counted = {key: value for key, value in (recipe.training | training).items() if key == "steps"}
    steps = values.build(TrainingSettings, counted, f"{origin}.training").steps
    plain, of_recipe = (dataclasses.asdict(one) for one in (encoder, recipe.encoder(encoder)))
    changed = {key: value for key, value in of_recipe.items() if value != plain[key]}
    return found | {
        "encoder": changed | found.get("encoder", {}),
        "training": recipe.steps(steps, encoder.hidden_size) | training,
    }


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How to pretrain, whatever the model's size and the data.

    Attributes:
        training: settings that differ from the defaults.
        warm_up: share of the steps, where `training` does not say it; None: the default.
        rate: peak learning rate, times the hidden size, where `training` does not say it; None: the default.
        dropout: of the encoder, of attention too; None: its own.
        initial: standard deviation of fresh weights, times the root of the hidden size; None: the encoder's own. The
            paper's base model has 0.55.
    """

    training: dict[str, Any]
    warm_up: float | None = None
    rate: float | None = None
    dropout: float | None = None
    initial: float | None = None

    def steps(self, steps: int, hidden_size: int) -> dict[str, Any]:
        """Settings of a training of so many steps, of a model of that width."""
        warm_up = {} if self.warm_up is None else {"warmup_steps": round(self.warm_up * steps)}
        rate = {} if self.rate is None else {"learning_rate": self.rate / hidden_size}
        return {"steps": steps, **warm_up, **rate, **self.training}

    def encoder(self, encoder: EncoderSettings) -> EncoderSettings:
        if self.dropout is not None:
            encoder = dataclasses.replace(encoder, dropout=self.dropout, attention_dropout=self.dropout)
        if self.initial is not None:
            encoder = dataclasses.replace(encoder, initializer_range=self.initial / encoder.hidden_size**0.5)
        return encoder


# `bert train --recipe NAME`, `"recipe": "NAME"` of a file; tests/benchmarks/recipes.py compares such.
RECIPES = {
    # Appendix A.2 of the paper.
    "paper": Recipe({"steps": 1_000_000, "batch_size": 256, "learning_rate": 1e-4, "warmup_steps": 10_000}),
    # Minutes to hours on a few cores. Fresh weights that know where to look and which words are common, of which the
    # most comes by far, and as large as a narrow layer needs them; no dropout, since so short a run cannot overfit; a
    # high learning rate, the lower the wider the model (Yang et al. 2022, arXiv 2203.03466), and Adam's bias
    # correction, without which so short a warm-up may leave the model at the unigram distribution for good.
    "short": Recipe(
        {
            "batch_size": 32,
            "bias_correction": True,
            "beta_2": 0.98,
            "schedule": "one-cycle",
            "initial_weights": "informed",
        },
        warm_up=0.25,
        rate=0.512,
        dropout=0.0,
        initial=0.68,
    ),
}


def demo() -> PipelineSettings:
    """`make run`: 5 MB of text, BERT-tiny, two to six minutes of training on two cores, by the short recipe.

    Half the steps reach the same gate, but are worth less than nothing to a classifier that is fine-tuned from them.
    """
    recipe, encoder = RECIPES["short"], encoders.tiny(vocab_size=8000)
    return PipelineSettings(
        vocabulary=VocabularySettings(size=8000),
        examples=ExampleSettings(dupe_factor=4),  # as many as the steps see
        recipe="short",
        encoder=recipe.encoder(encoder),
        training=TrainingSettings(**recipe.steps(1600, encoder.hidden_size)),
    )


def smoke() -> PipelineSettings:
    """Every step in seconds, for the end-to-end test: nothing worth keeping is learned, so the gate is open."""
    return PipelineSettings(
        embedded_bytes=200_000,
        vocabulary=VocabularySettings(size=1000),
        examples=ExampleSettings(max_seq_length=64, max_predictions=10, dupe_factor=1),
        encoder=encoders.tiny(vocab_size=1000, max_positions=64, num_layers=1, hidden_size=32, intermediate_size=64),
        training=TrainingSettings(steps=20, batch_size=16, learning_rate=1e-3, warmup_steps=2, steps_per_call=5),
        export=PartialExport(max_seq_length=64, warmup_lengths=(16,), warmup_batches=(1,)),
        gate=GateSettings(min_loss_gain=-100.0, min_accuracy_gain=-1.0, max_loss_increase=100.0),
    )


def base() -> PipelineSettings:
    """BERT-base as in the paper (appendix A.2), for several GPUs and a corpus of its size."""
    return PipelineSettings(
        recipe="paper",
        encoder=encoders.base(),
        training=TrainingSettings(**RECIPES["paper"].training, precision="bfloat16"),
    )


Settings = PipelineSettings | FinetuningSettings
PRESETS: dict[str, Callable[[], Settings]] = {"demo": demo, "smoke": smoke, "base": base, **finetuning.PRESETS}


def load(name_or_file: str) -> Settings:
    """A preset by name, or a JSON file. Raises InputError where it is neither."""
    if name_or_file in PRESETS:
        return PRESETS[name_or_file]()
    path = pathlib.Path(name_or_file)
    if not path.is_file():
        raise InputError(f"settings must be {', '.join(PRESETS)} or a JSON file. Received: {name_or_file!r}")
    try:
        return from_json(path.read_text("utf-8"), str(path))
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 ({error.reason})") from None
