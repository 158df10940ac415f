"""`bert lineage`: what a pushed version was made of."""

import click

from pipeline.commands.runs import home_option


@click.command("lineage")
@click.argument("version")
@home_option
@click.option("--name", help="Of the pipeline, where several ran in the home.  [default: that which ran last]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with all files and settings.")
@click.option("--picture", metavar="FILE", help="Draw it, too: an .svg or .png file.")
def command(version, home, name, as_json, picture):
    """Say of what data, vocabulary, settings, code and parent a version was made, what the gate said of it, and which
    model it was compared with. VERSION is a number, a label or `latest`.

    What a run did not record yet when it was older is named so, and what a claim of Kubeflow, as --home, does not hold.

        bert lineage latest --picture lineage.svg
    """
    import json

    from pipeline.history import lineage, telling
    from pipeline.history.homes import Home

    found_home = Home.open(home, claim=True)
    serving = found_home.serving(name)
    found = lineage.trace(found_home, serving, lineage.version_of(found_home, serving, version))
    if picture:
        from pipeline.history import picture as pictures

        pictures.draw(found, picture)
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    for line in telling.lines(found):
        click.echo(line)
    if picture:
        click.echo(f"{'picture':12}{picture}")
