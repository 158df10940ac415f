"""`bert distil`: a smaller model that answers as a larger one does."""

import pathlib
from typing import get_args

import click

from model.settings import Precision
from pipeline import terminal
from preprocessing.settings import Masking


@click.command("distil")
@click.option("--teacher", required=True, metavar="CHECKPOINT", help="In any format that `bert convert` reads.")
@click.option(
    "--layers",
    required=True,
    metavar="N|A,B,...",
    help="How many the student has, evenly of the teacher's (0, 2, 4 of six), or which of those, from 0.",
)
@click.option("--examples", required=True, multiple=True, metavar="DIR", help="As for `bert train`; repeatable.")
@click.option("--held-out", required=True, metavar="DIR", help="Held-out examples, for the report.")
@click.option("--output", required=True, metavar="DIR", help="Gets model/, report.md, curves.png and both runs.")
@click.option("--steps", type=int, default=1000, show_default=True, help="Updates of the weights.")
@click.option("--batch-size", type=int, default=32, show_default=True, help="Examples an update.")
@click.option("--accumulate", type=int, default=1, show_default=True, help="Parts in which each batch is computed.")
@click.option("--learning-rate", type=float, default=2e-4, show_default=True)
@click.option(
    "--temperature", type=float, default=2.0, show_default=True, help="By which both models' logits are divided."
)
@click.option("--soft", type=float, default=5.0, show_default=True, help="Weight of the teacher's answers.")
@click.option("--masked", type=float, default=2.0, show_default=True, help="Weight of the right tokens.")
@click.option("--cosine", type=float, default=1.0, show_default=True, help="Weight of the hidden states' cosine.")
@click.option(
    "--untaught/--no-untaught", default=True, show_default=True, help="Train the same student without the teacher, too."
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
    teacher, layers, examples, held_out, output, temperature, soft, masked, cosine, untaught, masking, **options
):
    """Trains a student, which begins as some of its teacher's layers, to say of masked tokens what the teacher says and
    to see every token as it does (DistilBERT). The same command goes on with a run that was interrupted.

    Examples must be made with the teacher's vocabulary. A teacher without a masked-language head, a model of sentences
    say, teaches its hidden states alone; give it examples that are not masked (`bert examples --masking none`).

        bert distil --teacher CHECKPOINT --layers 3 --examples examples --held-out held-out --output out
    """
    from model import checkpoints
    from model.encoder.smaller import layers_of
    from model.settings import TrainingSettings
    from model.tasks import distillation
    from pipeline.distillation import run
    from preprocessing.batches import files

    settings = TrainingSettings(next_sentence=False, bias_correction=True, **options)
    train_files = [file for pattern in examples for file in files.find_files(pattern)]
    read = checkpoints.read(teacher)
    loaded = checkpoints.build(read, [head for head in read.described_heads if head.name == "masked_lm"])
    task = distillation.Distillation(loaded, temperature, soft, masked, cosine)
    if not task.speaks:
        click.echo(f"{teacher}: has no masked-language head: its hidden states alone are taught")
    plan = run.Plan(
        teacher=teacher,
        task=task,
        layers=layers_of(layers, loaded.settings.num_layers),
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

            run.train(plan, output, report)
        found = run.compare(plan, output)
    rows = run.table(found)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    click.echo(f"Model: {pathlib.Path(output, 'model')}   report: {pathlib.Path(output, 'report.md')}")


def _masked(teacher: str, kind, seed: int):
    """What masks each batch, anew in each epoch."""
    from preprocessing.examples import masking
    from serving.export import text_rules

    vocabulary = masking.MaskingVocabulary.of(text_rules.tokenizer_of(teacher, None, None))
    return lambda batch, epoch: masking.mask_features(batch, vocabulary, seed=seed, epoch=epoch, masking=kind)
