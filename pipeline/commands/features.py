"""`bert features`: vectors of texts, and what they are worth."""

import os

import click

from pipeline.commands.finetune import columns
from preprocessing.errors import InputError


@click.command("features")
@click.option("--model", required=True, metavar="MODEL", help="A checkpoint that `bert convert` reads, or an export.")
@click.option("--input", "path", required=True, metavar="FILE", help="TSV, CSV, JSONL, Parquet, or lines (.txt).")
@click.option("--output", metavar="FILE", help="Vectors, of pairs their scores: .parquet (by line) or .npy.")
@columns
@click.option("--layers", help="last, 5, -2, 0 (embeddings); last4:sum, 3..6:mean, all:concat.  [default: last]")
@click.option(
    "--pooling",
    type=click.Choice(["mean", "cls", "max", "pooler"]),
    help="Of the tokens.  [default: as the checkpoint says what it was trained for, else mean]",
)
@click.option(
    "--unit-length/--any-length",
    default=None,
    help="Divide vectors by their length.  [default: as the checkpoint says, of its own layers and pooling]",
)
@click.option("--logistic", is_flag=True, help="Train a logistic regression on the vectors, and test it.")
@click.option("--test", metavar="FILE", help="Its test rows.  [default: a quarter of the input]")
@click.option("--compare", is_flag=True, help="All layers and poolings: --logistic of each; of pairs the correlations.")
@click.option("--report", metavar="FILE", help="Gets the figures as JSON.")
@click.option("--max-seq-length", type=int, help="Tokens at which texts are cut.  [default: the checkpoint's, or 512]")
@click.option("--vocab", metavar="FILE", help="The vocabulary, where the checkpoint has none.")
@click.option("--lower-case/--cased", default=None, help="Kind of vocabulary, where the checkpoint does not say.")
@click.option("--seed", type=int, default=12345, show_default=True, help="Of what is split by chance.")
def command(
    model, path, output, columns, layers, pooling, unit_length, logistic, test, compare, report, max_seq_length, vocab,
    lower_case, seed,
):  # fmt: skip
    """Makes a vector of each text, in order; of a pair (--second) the cosine of both vectors, and with --label says how
    far it goes with that.

    A row that cannot be used has no vector. Layers are put together token by token, then tokens are pooled, [CLS] and
    [SEP] with them.

        bert features --model CHECKPOINT --input texts.txt --output vectors.parquet --layers last4:sum

        bert features --model CHECKPOINT --input stsb.csv --text 1 --second 2 --label 3

        bert features --model CHECKPOINT --input train.tsv --test test.tsv --logistic --compare
    """
    pairs, label = "second" in columns, columns.get("label")
    fits = logistic or (compare and not pairs)
    for wrong, rule in (
        (output is not None and not output.endswith((".parquet", ".npy")), "--output must end in .parquet or .npy"),
        (columns.keys() & {"separator", "id"}, "--separator and --id are not for vectors: a line of the input has one"),
        (pairs and fits, "--logistic is of single texts, not with --second"),
        (pairs and compare and label is None, "--compare of pairs needs --label, the column of their scores"),
        (label is not None and not pairs and not fits, "--label is for --logistic, --compare or --second"),
        (test is not None and not fits, "--test is for --logistic and --compare"),
        (output is not None and (fits or compare), "--output is not with --logistic or --compare; see --report"),
        (compare and (layers or pooling), "--compare takes all --layers and --pooling"),
        (output is None and not fits and label is None, "name an --output, or --logistic, --compare or --label"),
    ):  # fmt: skip
        if wrong:
            raise InputError(rule)

    from preprocessing.tasks.tables import Columns, Table

    wanted = Columns(**columns, labelled=fits or label is not None)
    read = [Table(file, wanted) for file in (path, test) if file is not None]  # before TensorFlow, which takes seconds

    from pipeline.features import run, sources, telling
    from pipeline.features.choices import every

    tables = run.Tables(read, click.echo)
    if unit_length is None and (layers or pooling or compare):
        unit_length = False
    pooling = "mean" if compare else pooling  # which is among all
    given = {"embedding": pooling, "unit_length": unit_length, "max_seq_length": max_seq_length}
    given = {name: value for name, value in given.items() if value is not None}
    source = sources.opened(model, vocab, lower_case, given, click.echo)
    if compare:
        choices = every(source.last, source.has_pooler, bool(unit_length))
    else:
        choices = [sources.chosen(layers, pooling, source)]
        click.echo(str(choices[0]))

    if fits:
        labels, judged = run.fitted(tables, source, choices, seed)
        found = [telling.of_regression(*one, labels) for one in judged]
        lines = telling.table(found, telling.REGRESSIONS) if compare else telling.regression(found[0], judged[0][1])
    else:
        made = {"model": os.path.abspath(model), "features": str(choices[0])}
        correlated = run.straight(tables, source, choices, output, made, pairs, label is not None)
        found = [telling.of_cosines(*one) for one in correlated]
        lines = telling.table(found, telling.COSINES) if found else iter(())
    for line in lines:
        click.echo(line)
    if fits and compare:
        best = max(found, key=lambda one: one["accuracy_on_its_choice"])
        click.echo(f"Best by the rows that chose C: layers {best['layers']}, pooling {best['pooling']}")
    if report is not None:
        about = {"model": model, "input": path, "test": test, "rows": [one.rows for one in tables.counts]}
        telling.write(report, about | {"found": found})
