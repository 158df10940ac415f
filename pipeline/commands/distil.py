"""`bert distil`: a smaller model that answers as a larger one does."""

import dataclasses
import pathlib
from typing import get_args

import click

from model.settings import Precision
from pipeline import terminal
from preprocessing.errors import require
from preprocessing.settings import Masking


@click.command("distil")
@click.option(
    "--teacher",
    required=True,
    metavar="CHECKPOINT",
    help="In any format that `bert convert` reads; or HOME/serving/NAME, its newest.",
)
@click.option(
    "--layers",
    metavar="N|A,B,...",
    help="How many the student has, evenly of the teacher's, its last among them (0, 3, 5 of six), or which, from 0.",
)
@click.option(
    "--config", metavar="NAME|FILE", help="Instead of --layers: a size, as of `bert train`, and fresh weights."
)
@click.option("--examples", required=True, multiple=True, metavar="DIR", help="As for `bert train`; repeatable.")
@click.option("--held-out", required=True, metavar="DIR", help="Held-out examples, for the report.")
@click.option("--output", required=True, metavar="DIR", help="Gets model/, report.md, curves.png and both runs.")
@click.option("--steps", type=int, default=1000, show_default=True, help="Updates of the weights.")
@click.option("--batch-size", type=int, default=64, show_default=True, help="Examples an update.")
@click.option("--accumulate", type=int, default=1, show_default=True, help="Parts in which each batch is computed.")
@click.option("--learning-rate", type=float, default=5e-4, show_default=True)
@click.option(
    "--temperature", type=float, default=2.0, show_default=True, help="By which both models' logits are divided."
)
@click.option("--soft", type=float, default=5.0, show_default=True, help="Weight of the teacher's answers.")
@click.option("--masked", type=float, default=2.0, show_default=True, help="Weight of the right tokens.")
@click.option("--cosine", type=float, help="Weight of the tokens' hidden states.  [default: 1; of another width 0]")
@click.option(
    "--pooled",
    type=float,
    default=0.0,
    show_default=True,
    help="Weight of the texts' vectors, the means over the tokens.",
)
@click.option(
    "--relations",
    type=float,
    help="Weight of how like the tokens are to each other, at any width.  [default: of another width 1; else 0]",
)
@click.option("--relation-layer", type=int, default=-1, show_default=True, help="Of the teacher; -1 is its last.")
@click.option("--relation-heads", type=int, help="By default as many as the teacher has attention heads.")
@click.option("--dropout", type=float, default=0.0, show_default=True, help="Of the student, while it is trained here.")
@click.option(
    "--untaught/--no-untaught",
    default=None,
    help="Train the same student without the teacher, too.  [default: where something is masked]",
)
@click.option(
    "--masking",
    type=click.Choice([kind for kind in get_args(Masking) if kind not in ("phrases", "none")]),
    help="Mask anew in each epoch; unmasked examples.",
)
@click.option("--precision", type=click.Choice(get_args(Precision)), default="float32", show_default=True)
@click.option("--gpus", type=int, help="By default all there are.")
@click.option("--seed", type=int, default=12345, show_default=True)
@click.option("--evaluate-every", type=int, help="Steps; by default ten times a run.")
@click.option("--checkpoint-every", type=int, help="Steps; by default ten times a run.")
def command(
    teacher, layers, config, examples, held_out, output, temperature, soft, masked, cosine, pooled, relations,
    relation_layer, relation_heads, dropout, untaught, masking, **options,
):  # fmt: skip
    """Trains a student, which begins as some of its teacher's layers or anew, to say of masked tokens what the teacher
    says and to see every token as it does (DistilBERT). The same command goes on with a run that was interrupted.

    Examples must be made with the teacher's vocabulary. A teacher without a masked-language head, a model of sentences
    say, teaches its hidden states alone, of tokens and of texts; give it examples that are not masked (`bert examples
    --masking none`), where --masking is for the untaught student. Short ones take less time.

    A student of another width (--config) learns how like tokens are to each other in its last layer: the relations of
    queries, keys and values (MiniLM). It is a start for fine-tuning: without a masked-language head nothing teaches
    what comes after them, and its vectors are of no use as they are.

        bert distil --teacher CHECKPOINT --layers 3 --examples examples --held-out held-out --output out
    """
    require((layers is None) != (config is None), "give either --layers or --config", (layers, config))
    require(0 <= dropout < 1, "--dropout must be in [0, 1)", dropout)

    from model import checkpoints
    from model.encoder.smaller import layers_of
    from model.settings import TrainingSettings
    from model.tasks import distillation
    from pipeline.commands.train import encoder_settings_of
    from pipeline.distillation import run
    from pipeline.history import parents
    from preprocessing.batches import files

    settings = TrainingSettings(next_sentence=False, bias_correction=True, **options)
    train_files = [file for pattern in examples for file in files.find_files(pattern)]
    teacher = parents.checkpoint_of(teacher)
    read = checkpoints.read(teacher)
    loaded = checkpoints.build(read, [head for head in read.described_heads if head.name == "masked_lm"])
    chosen = None if layers is None else layers_of(layers, loaded.settings.num_layers)
    student = (
        encoder_settings_of(config, loaded.settings.vocab_size)
        if chosen is None
        else dataclasses.replace(loaded.settings, num_layers=len(chosen))
    )
    one_width = student.hidden_size == loaded.settings.hidden_size
    cosine = float(one_width) if cosine is None else cosine
    relations = float(not one_width) if relations is None else relations
    task = distillation.Distillation(
        loaded,
        temperature,
        soft,
        masked,
        cosine,
        pooled,
        relations,
        hidden_size=student.hidden_size,
        relation_layer=relation_layer,
        relation_heads=relation_heads,
    )
    if not task.speaks:
        click.echo(f"{teacher}: has no masked-language head: its hidden states alone are taught")
    if untaught is None:
        untaught = task.speaks or masking is not None
        if not untaught:
            click.echo("No student is trained without the teacher: for that something must be masked (--masking token)")
    plan = run.Plan(
        teacher=teacher,
        task=task,
        student=student,
        layers=chosen,
        dropout=dropout,
        training=settings,
        train_files=train_files,
        eval_files=files.find_files(held_out),
        untaught=untaught,
        transform=_masked(teacher, masking, settings.seed) if masking else None,
        masking=masking,
    )
    pathlib.Path(output).mkdir(parents=True, exist_ok=True)
    with terminal.native_log(pathlib.Path(output) / "native.log"):
        with terminal.Progress("Training", total=settings.steps * (1 + untaught), unit="steps") as progress:

            def report(before, task, step, figures):
                done = before * settings.steps + step
                progress.update(done, **terminal.training_figures(figures, task.curves))

            left_out = run.train(plan, output, report)
        found = run.compare(plan, output)
    rows = run.table(found)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    for line in left_out:
        click.echo(line)
    click.echo(f"Model: {pathlib.Path(output, 'model')}   report: {pathlib.Path(output, 'report.md')}")


def _masked(teacher: str, kind, seed: int):
    """What masks each batch, anew in each epoch."""
    from preprocessing.examples import masking
    from serving.export import text_rules

    vocabulary = masking.MaskingVocabulary.of(text_rules.tokenizer_of(teacher, None, None))
    return lambda batch, epoch: masking.mask_features(batch, vocabulary, seed=seed, epoch=epoch, masking=kind)
