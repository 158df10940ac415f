"""`bert train`: pretraining outside TFX, on the examples that `bert examples` wrote."""

import json
import os
import pathlib
from typing import get_args

import click

from model.settings import EncoderSettings, InitialWeights, OptimizerName, Precision, Schedule
from pipeline import terminal
from preprocessing import storage
from preprocessing.errors import InputError, require
from preprocessing.settings import ExampleSettings, Masking, require_phrases

DEFAULTS = ExampleSettings()


@click.command("train")
@click.option(
    "--examples", required=True, multiple=True, metavar="DIR", help="Folder or glob of example files; repeatable."
)
@click.option("--vocab", required=True, metavar="FILE", help="The vocabulary that they were made with.")
@click.option(
    "--config",
    default="tiny",
    show_default=True,
    metavar="NAME|FILE",
    help="tiny, mini, small, medium, base, large or a config.json.",
)
@click.option(
    "--recipe", metavar="NAME", help="What options that are not given are, and the model's dropout: short or paper."
)
@click.option("--steps", type=int, default=1000, show_default=True, help="Updates of the weights.")
@click.option("--output", required=True, metavar="DIR", help="Gets model/, best/, checkpoints/, logs/, curves.png.")
@click.option("--held-out", metavar="DIR", help="Folder or glob of held-out examples.")
@click.option("--init", metavar="CHECKPOINT", help="Weights to begin with, in any format that `bert convert` reads.")
@click.option("--batch-size", type=int, default=32, show_default=True, help="Examples an update.")
@click.option("--accumulate", type=int, default=1, show_default=True, help="Parts in which each batch is computed.")
@click.option("--recompute", is_flag=True, help="Keep less for the backward pass: less memory, more time, same result.")
@click.option("--learning-rate", type=float, default=1e-4, show_default=True)
@click.option("--warmup-steps", type=int, help="By default a tenth of the steps.")
@click.option("--schedule", type=click.Choice(get_args(Schedule)), default="linear", show_default=True)
@click.option(
    "--initial-weights",
    type=click.Choice(get_args(InitialWeights)),
    default="random",
    show_default=True,
    help="Of a model without --init: informed ones look beside each token from the first step, and know which words "
    "are common.",
)
@click.option("--optimizer", type=click.Choice(get_args(OptimizerName)), default="adamw", show_default=True)
@click.option("--beta-2", type=float, default=0.999, show_default=True, help="Of AdamW and LAMB.")
@click.option(
    "--bias-correction", is_flag=True, help="Of AdamW and LAMB; steadier when the warm-up is below some thousand steps."
)
@click.option("--precision", type=click.Choice(get_args(Precision)), default="float32", show_default=True)
@click.option(
    "--phase",
    "phases",
    multiple=True,
    metavar="LENGTH:STEPS[:BATCH]",
    help="Repeat it: 128:900 and 512:100, say, or 128:500:32 and 128:500:128.",
)
@click.option(
    "--masking",
    type=click.Choice([kind for kind in get_args(Masking) if kind != "none"]),
    help="Mask anew in each epoch; unmasked examples.",
)
@click.option("--phrases", metavar="FILE", help="Of --masking phrases: those that are masked whole, one a line.")
@click.option("--masked-lm-prob", type=float, help="Of --masking: share of the tokens, by default 0.15.")
@click.option(
    "--next-sentence/--no-next-sentence",
    default=True,
    show_default=True,
    help="Whether that loss counts; not for examples written with --pairs none.",
)
@click.option(
    "--lower-case/--cased", default=None, help="Kind of vocabulary; by default as the examples' report.json says."
)
@click.option("--gpus", type=int, help="By default all there are.")
@click.option("--seed", type=int, default=12345, show_default=True)
@click.option("--evaluate-every", type=int, help="Steps; by default ten times a run.")
@click.option("--checkpoint-every", type=int, help="Steps; by default ten times a run.")
@click.pass_context
def command(context, examples, vocab, config, recipe, output, held_out, init, phases, masking, phrases, masked_lm_prob,
            lower_case, **options):  # fmt: skip
    """Pretrains an encoder. The same command in the same folder goes on with an interrupted run."""
    from model import training
    from model.settings import TrainingSettings
    from model.tasks.pretraining import Pretraining
    from preprocessing.batches import files

    require_phrases(masking, phrases)
    encoder_settings = encoder_settings_of(config, _vocabulary_size(vocab))
    if recipe:
        encoder_settings = _followed(recipe, encoder_settings, options, context)
    if init and options["initial_weights"] == "informed":
        recipes = context.get_parameter_source("initial_weights") == click.core.ParameterSource.DEFAULT
        require(recipes, "--initial-weights informed is for a model without --init: leave one of them out", init)
        click.echo(f"It begins with the weights of {init}, and not with the recipe's informed ones")
    settings = TrainingSettings(phases=tuple(_phase(text) for text in phases), **options)
    train_files = [file for pattern in examples for file in files.find_files(pattern)]
    if masked_lm_prob is not None:
        _check_share(masked_lm_prob, masking, train_files)
    eval_files = files.find_files(held_out) if held_out else []
    lower_case = _lower_case(train_files, lower_case)
    transform = done = None
    if masking:
        transform, done = _masking(masking, phrases, masked_lm_prob, vocab, lower_case, settings.seed)
    task = Pretraining(next_sentence=settings.next_sentence)
    native_log = terminal.native_log(_writable(output) / "native.log")
    with native_log, terminal.Progress("Training", total=settings.steps, unit="steps") as progress:
        result = training.train(
            encoder_settings,
            settings,
            task=task,
            train_files=train_files,
            eval_files=eval_files,
            output=output,
            vocab_path=vocab,
            lower_case=lower_case,
            init=init,
            transform=transform,
            masking=done,
            report=lambda step, total, figures: progress.update(
                step, **terminal.training_figures(figures, task.curves)
            ),
        )
    for name, value in result.metrics.items():
        click.echo(f"{name.replace('_', ' '):26} {value:.4f}")
    click.echo(f"Model: {pathlib.Path(output, 'model')}   curves: {pathlib.Path(output, 'curves.png')}")


def _lower_case(files: list[str], given: bool | None) -> bool | None:
    """Whether the examples' text was lower-cased, as their reports say it. InputError where that is not as given."""
    for path in sorted({os.path.join(os.path.dirname(file), "report.json") for file in files}):
        try:
            said = json.loads(storage.read(path)).get("lower_case")
        except (OSError, ValueError, AttributeError):  # examples of others have no report
            continue
        if isinstance(said, bool) and given not in (None, said):
            raise InputError(
                f"{path}: the text of all examples must be in one case, the model's. Received: examples "
                f"{'of lower-cased text' if said else 'of text in its own case'}; train with "
                f"{'--lower-case' if said else '--cased'}"
            )
        given = said if isinstance(said, bool) else given
    return given


def _writable(folder: str) -> pathlib.Path:
    path = pathlib.Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written: {error.strerror}. Choose another --output") from error
    return path


def _phase(text: str):
    from model.settings import Phase

    numbers = text.split(":")
    if len(numbers) not in (2, 3) or not all(number.isdecimal() for number in numbers):
        raise InputError(f"phase must be LENGTH:STEPS or LENGTH:STEPS:BATCH, whole numbers. Received: {text!r}")
    length, steps, *batch = map(int, numbers)
    return Phase(steps, length, *batch)


def _followed(name: str, encoder: EncoderSettings, options: dict, context: click.Context) -> EncoderSettings:
    """The encoder as the recipe of that name has it; options that are not given become the recipe's."""
    from pipeline import settings

    if name not in settings.RECIPES:
        raise InputError(f"--recipe must be {' or '.join(settings.RECIPES)}. Received: {name!r}")
    recipe = settings.RECIPES[name]
    free = {option for option in options if context.get_parameter_source(option) == click.core.ParameterSource.DEFAULT}
    steps = recipe.training.get("steps", options["steps"]) if "steps" in free else options["steps"]
    asked = recipe.steps(steps, encoder.hidden_size)
    options |= {option: value for option, value in asked.items() if option in free}
    return recipe.encoder(encoder)


def _check_share(share: float, masking: str | None, files: list[str]) -> None:
    """Raises InputError where so large a share cannot be masked in these examples."""
    from preprocessing import features
    from preprocessing.batches import files as example_files

    require(masking is not None, "--masked-lm-prob needs --masking: other examples were masked when written", share)
    require(0 < share <= 1, "--masked-lm-prob must be above 0 and at most 1", share)
    for file in files:
        axes = example_files.axes(file, features.MASKED_PAIRS) or {}
        wanted, there = round(share * axes.get(features.LENGTH, 0)), axes.get("P", 0)
        require(
            wanted <= there,
            f"{file}: --masked-lm-prob {share} needs room for {wanted} predictions in an example; write them with "
            f"`bert examples --max-predictions {wanted}`",
            there,
        )


def _masking(kind, phrases: str | None, share: float | None, vocab: str, lower_case: bool | None, seed: int):
    """What masks each batch, anew in each epoch, and what that is in a word."""
    from preprocessing import tokenizer
    from preprocessing.examples import masking
    from preprocessing.examples import phrases as phrase_lists

    words = tokenizer.BertTokenizer.from_vocab(vocab, lower_case is not False)
    pieces, name = [], kind
    if phrases:
        known = phrase_lists.load(phrases, words)
        pieces, name = known.pieces, f"{kind} {known.fingerprint()}"
        for line in known.told():
            click.echo(line)
    vocabulary = masking.MaskingVocabulary.of(words, pieces)
    name = f"{name} {share:g}" if share else name

    def mask(batch, epoch):
        return masking.mask_features(
            batch, vocabulary, seed=seed, epoch=epoch, masking=kind, masked_lm_prob=share or DEFAULTS.masked_lm_prob
        )

    return mask, name


def _vocabulary_size(path: str) -> int:
    from preprocessing import vocab_file

    return len(vocab_file.load(path))


def encoder_settings_of(config: str, vocab_size: int):
    """A named size with the vocabulary's number of tokens, or the settings of a file."""
    from model import settings
    from model.checkpoints.configs import settings_in

    if config in settings.NAMED:
        return settings.NAMED[config](vocab_size=vocab_size)
    path = pathlib.Path(config)
    if not path.is_file():
        raise InputError(f"config must be {', '.join(settings.NAMED)} or a JSON file. Received: {config!r}")
    found = settings_in(path)
    if found.vocab_size != vocab_size:
        raise InputError(f"{config}: vocab_size must be the vocabulary's ({vocab_size}). Received: {found.vocab_size}")
    return found
