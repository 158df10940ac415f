"""`bert export`: any checkpoint, or several tuned from one, becomes the next version of a served model."""

from typing import get_args

import click

from pipeline import keeping
from serving.settings import Pooling, Precision, Storage


@click.command()
@click.option(
    "--model",
    "models",
    required=True,
    multiple=True,
    metavar="[NAME=]CHECKPOINT",
    help="google, Hugging Face, keras-hub or our format; several times for several tasks.",
)
@click.option("--output", required=True, metavar="BASE", help="Folder of models; the version becomes BASE/NAME/N.")
@click.option("--name", default="bert", show_default=True, help="The model's name.")
@click.option("--vocab", metavar="FILE", help="The vocabulary, where the checkpoint has none.")
@click.option("--lower-case/--cased", default=None, help="Kind of vocabulary, where the checkpoint does not say.")
@click.option(
    "--max-seq-length", type=int, help="Texts are cut to so many tokens; by default as the checkpoint says, or 512."
)
@click.option(
    "--embedding",
    type=click.Choice(get_args(Pooling)),
    help="By default as the checkpoint's sentence-transformers files say, or mean.",
)
@click.option(
    "--unit-length/--any-length", default=None, help="Divide embeddings by their length; by default as for --embedding."
)
@click.option("--top-k", default=10, show_default=True, help="Candidates per [MASK].")
@click.option("--weights", type=click.Choice(get_args(Storage)), default="float32", show_default=True)
@click.option("--compute", type=click.Choice(get_args(Precision)), default="float32", show_default=True)
@click.option(
    "--parts",
    type=int,
    default=2,
    show_default=True,
    help="Parts of a layer, which a processor's cores work out side by side; 1 for GPUs.",
)
@keeping.options
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def command(models, output, name, vocab, lower_case, layers, tokens_of, as_json, **settings):
    """Write BASE/NAME/N, the next version of a SavedModel that takes raw text.

    It is loaded in a fresh process and must answer as the checkpoint does before it gets its number.

    Several checkpoints that were tuned from one with --tune head, lora or bias become one model, which has their equal
    weights once. Each answers its task; what no task answers, such as embeddings, is the first one's. Where two answer
    alike, names tell them apart:

        bert export --model mood=a/model --model topic=b/model --output served     # mood_classify, topic_classify
    """
    import json

    from serving.export.exporting import REPORT, export_version
    from serving.export.models import Named
    from serving.export.text_rules import settings_of

    def tell(line):
        click.echo(line, err=True)

    given = {key: value for key, value in settings.items() if value is not None}
    named = [Named.read(model) for model in models]
    first = named[0].path
    version = export_version(
        named,
        output,
        name,
        settings=settings_of(first, given, tell),
        vocab_path=vocab,
        lower_case=lower_case,
        report=tell,
        kept=keeping.kept(first, layers, tokens_of, tell, vocab, lower_case),
    )
    report = json.loads((version / REPORT).read_text())
    if as_json:
        click.echo(json.dumps({"version": str(version), **report}))
        return
    click.echo(f"{version}  {report['bytes'] / 1e6:.1f} MB, loads in {report['load_seconds']:.1f} s")
    click.echo(f"  answers {', '.join(report['signatures'])}")
    for reason in dict.fromkeys(report["left_out"].values()):
        names = ", ".join(name for name, why in report["left_out"].items() if why == reason)
        click.echo(f"  left out {names}: {reason}")
    for model in report.get("models", ()):
        own, whole = (model[name] / 1e6 for name in ("own_weight_bytes", "weight_bytes"))
        click.echo(f"  {model['checkpoint']}: {own:.1f} of {whole:.1f} MB of weights are its own")
    click.echo(f"  within {report['largest_difference']:.1g} of the checkpoint")
