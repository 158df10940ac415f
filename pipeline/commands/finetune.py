"""`bert finetune`: from a file of rows and a checkpoint to a model that answers."""

import functools
import pathlib
from typing import get_args

import click

from model.settings import Pooling, Precision, Tune
from pipeline import terminal
from pipeline.finetuning import kinds
from preprocessing.features import Long

_COLUMNS = (
    click.option("--text", metavar="COLUMN",
                 help="Of the texts, by name or position from 1.  [default: text, or first]"),
    click.option("--second", metavar="COLUMN", help="Of the second text, where pairs are judged."),
    click.option("--label", metavar="COLUMN", help="Of the labels.  [default: label, or the second of two]"),
    click.option("--separator", metavar="TEXT", help="Between the labels of a row that may have several."),
    click.option("--id", "row_id", metavar="COLUMN", help="Of what rows are called.  [default: id, if there is one]"),
    click.option("--header/--no-header", default=None,
                 help="Whether TSV and CSV begin with names; else it is guessed, and told."),
)  # fmt: skip


def columns(command):
    """The options that say which columns of a table are meant: `columns`, those that were given, as
    `preprocessing.tasks.tables.Columns` takes them."""

    @functools.wraps(command)
    def of_columns(text, second, label, separator, row_id, header, **options):
        given = {"text": text, "second": second, "label": label, "separator": separator, "id": row_id, "header": header}
        return command(columns={name: value for name, value in given.items() if value is not None}, **options)

    for option in reversed(_COLUMNS):
        of_columns = option(of_columns)
    return of_columns


def task(**options):
    """The option that names a kind of fine-tuning."""
    return click.option("--task", type=click.Choice([kind.name for kind in kinds.ALL]), **options)


def named(command):
    """The option that names one of the models that an export holds."""
    text = "Of an export of several models the one that is asked, by the NAME that `bert export` was given."
    return click.option("--named", metavar="NAME", help=text)(command)


def _default(name: str) -> str:
    """Of an option, where the kinds differ by kind."""
    found = {kind.name: kind.defaults[name] for kind in kinds.ALL if name in kind.defaults}
    commonest = max(found.values(), key=list(found.values()).count)
    others = "".join(f"; {kind} {value}" for kind, value in found.items() if value != commonest)
    return f"  [default: {commonest}{others}]"


@click.command("finetune")
@task(required=True, help="What for.")
@click.option("--train", required=True, metavar="FILE", help="A table of texts, sentences with tags, or questions.")
@click.option("--dev", required=True, metavar="FILE", help="Other rows, by which the best model is chosen.")
@click.option(
    "--model",
    required=True,
    metavar="CHECKPOINT",
    help="google, Hugging Face, keras-hub or our format; or HOME/serving/NAME, its newest.",
)
@click.option("--output", required=True, metavar="DIR", help="Gets model/, metrics.json, report.md, errors.tsv, ...")
@columns
@click.option("--labels", metavar="FILE|A,B,...", help="The labels, in this order; else those of train, sorted.")
@click.option(
    "--epochs",
    type=float,
    help="[default: 3; of few rows more, up to 1,000 updates (25 a class, if those are more) or 20 epochs]",
)
@click.option("--batch-size", type=int, help="Rows an update.  [default: 32]")
@click.option(
    "--learning-rate",
    type=float,
    help="[default: by hidden size: from 768 3e-5, from 384 1e-4, below 3e-4; with --tune lora 10 times as "
    "much, bias 30, head 100]",
)
@click.option("--max-seq-length", type=int, help=f"Tokens that the model sees of a row.{_default('max_seq_length')}")
@click.option(
    "--long",
    type=click.Choice(get_args(Long)),
    help="What is seen of a longer text: its beginning; a quarter of that and the rest from its end; or all of it, as "
    f"windows whose answers are averaged.{_default('long')}",
)
@click.option(
    "--pooling",
    type=click.Choice(get_args(Pooling)),
    help="What the head stands on: [CLS], by the pooler, or the mean of the tokens.  [default: as the checkpoint says]",
)
@click.option("--stride", type=int, help=f"Tokens from one window of a context to the next one.{_default('stride')}")
@click.option("--max-question", type=int, help=f"Tokens of a question; more are cut off.{_default('max_question')}")
@click.option("--max-answer", type=int, help=f"Tokens of the longest answer.{_default('max_answer')}")
@click.option(
    "--class-weights",
    metavar="balanced|FILE",
    help="Weights of the labels (multi-label: of their presence); FILE has lines LABEL TAB WEIGHT.",
)
@click.option(
    "--watch",
    type=click.Choice([*dict.fromkeys(name for kind in kinds.ALL for name in kind.watched)]),
    help="The figure on dev by which the best model is chosen.  "
    f"[default: {', '.join(f'{kind.name} {kind.watched[0]}' for kind in kinds.ALL)}]",
)
@click.option(
    "--patience",
    type=int,
    help="Evaluations on dev, of which there are ten, without a better --watch that end a run.  [default: it runs all "
    "updates]",
)
@click.option(
    "--dev-rows",
    type=int,
    help="Examples of dev on which the best model is chosen, the same ones each time; figures are always of all.  "
    "[default: all]",
)
@click.option("--seeds", type=int, default=1, show_default=True, help="Runs; metrics.json has every one's figures.")
@click.option("--seed", type=int, default=12345, show_default=True, help="Of the first run; the others follow.")
@click.option("--search", is_flag=True, help="Try four learning rates on dev first, half to four times the default.")
@click.option(
    "--tune",
    type=click.Choice(get_args(Tune)),
    default="all",
    show_default=True,
    help="Weights that are trained: all; pooler and head; or with those low-rank adapters of query and value, which "
    "DIR/model has added to its kernels; or with those all biases.",
)
@click.option("--rank", type=int, help="Of the adapters of --tune lora, whose alpha is 16.  [default: 8]")
@click.option(
    "--freeze",
    type=int,
    default=0,
    show_default=True,
    help="Layers from below that are not trained, with the embeddings; they get no adapters.",
)
@click.option(
    "--layers",
    metavar="N|A,B,...",
    help="Layers of the checkpoint that the model has: so many, evenly (0, 2, 4 of six), or which, from 0 (of parts of "
    "speech 0,1,2 know more).  [default: all]",
)
@click.option(
    "--teacher",
    metavar="CHECKPOINT",
    help="A model that was fine-tuned for the same (DIR/model): its answers are learned too, also of rows of train "
    "without a label (of tagging: in JSONL).  Of classification and tagging.",
)
@click.option("--soft", type=float, help="The teacher's share of the loss.  [default: 0.5]")
@click.option("--temperature", type=float, help="By which the teacher's answers are softened.  [default: 2]")
@click.option(
    "--untaught/--no-untaught", default=None, help="Train the same without the teacher, too.  [default: untaught]"
)
@click.option("--reinit", type=int, default=0, show_default=True, help="Layers from the top that begin anew.")
@click.option(
    "--layer-decay",
    type=float,
    default=1.0,
    show_default=True,
    help="Learning rate of a layer as a share of that of the one above.",
)
@click.option(
    "--head-rate",
    type=float,
    default=1.0,
    show_default=True,
    help="Learning rate of pooler and head as a multiple of the layers'.",
)
@click.option("--precision", type=click.Choice(get_args(Precision)), default="float32", show_default=True)
@click.option("--vocab", metavar="FILE", help="The vocabulary, where the checkpoint has none.")
@click.option("--lower-case/--cased", default=None, help="Kind of vocabulary, where the checkpoint does not say.")
def command(task, train, dev, model, output, columns, vocab, lower_case, **options):
    """Trains a checkpoint on a table. The same command goes on with a run that was interrupted.

    What it will do is told first. DIR/model is then ready for `bert export`, with labels and temperature;
    DIR/report.md says how good it is on dev, DIR/errors.tsv where it is wrong, the costliest first. Warm-up is a tenth
    of the updates, weight decay 0.01, gradients are clipped at 1, Adam's bias is corrected.

        bert finetune --task classification --train train.tsv --dev dev.tsv --model CHECKPOINT --output out

        bert export --model out/model --output served
    """
    from preprocessing.tasks.tables import Columns

    kind = next(kind for kind in kinds.ALL if kind.name == task)
    wanted = Columns(**columns)
    sources = kind.source(train, wanted), kind.source(dev, wanted)  # before TensorFlow, which takes seconds

    from pipeline.finetuning import planning, run
    from pipeline.finetuning.cost import Cost
    from pipeline.history import parents

    chosen = planning.Options.of(kind, **options)
    start = planning.Start.read(parents.checkpoint_of(model), vocab, lower_case, click.echo)
    pathlib.Path(output).mkdir(parents=True, exist_ok=True)
    with terminal.native_log(pathlib.Path(output) / "native.log"):
        with terminal.Progress("Reading", unit="rows") as progress:
            plan = run.plan(kind, *sources, start, output, chosen, progress.update)
        for line in plan.told():
            click.echo(line)
        with terminal.Progress("Training", total=plan.training.steps * plan.runs, unit="updates") as progress:

            def report(done, step, steps, figures):
                progress.update(done * steps + step, **terminal.training_figures(figures, plan.task.curves))

            metrics = run.run(plan, sources[1], output, report, click.echo)
    steps = plan.training.steps
    for seed, ended in metrics["ended"].items():
        if ended["step"] < steps:
            click.echo(f"seed {seed} ended after {ended['step']:,} of {steps:,} updates: {ended['by']}")
    click.echo(f"the best model on dev is that after {metrics['best_step']:,} of {steps:,} updates")
    several = chosen.seeds > 1
    if several:
        click.echo(f"the best of {chosen.seeds} seeds is {metrics['best_seed']}")
    for name, title in ((name, title) for name, title in kind.figures.items() if name in metrics):
        spread = f"  on average {metrics['mean'][name]:.4f}, spread {metrics['spread'][name]:.4f}" if several else ""
        click.echo(f"  {title}: {metrics[name]:.4f}{spread}")
    click.echo(f"Cost: {Cost(**metrics['cost'])}")
    click.echo(f"Model: {pathlib.Path(output, 'model')}   report: {pathlib.Path(output, 'report.md')}")
