"""`bert skew`: what a model is asked, beside what it was trained on."""

import click

from pipeline.commands.runs import home_option


@click.command("skew")
@click.option("--model", "version", default="latest", show_default=True, help="Version: its number or label.")
@click.option(
    "--log", "logs", required=True, multiple=True, metavar="FILES", help="Logs of requests; globs, several times."
)
@click.option(
    "--bound", "bounds", multiple=True, metavar="NAME=VALUE", help="Another bound, from 0 to 1; several times."
)
@home_option
@click.option("--name", help="Of the pipeline, where several ran in the home.  [default: that which ran last]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(version, logs, bounds, home, name, as_json):
    """Compare the request log of a server (`bert serve --request-log`) with the statistics of what a version was
    trained on: language, kinds of characters, words a text, tokens. Ends with status 1 where one is beyond its bound.

    A log without texts (--request-log-texts) is compared by its characters and words alone.

        bert skew --model stable --log '/var/log/bert/requests-*' --bound words=0.5
    """
    import dataclasses
    import glob
    import json

    from pipeline import terminal
    from pipeline.history import lineage
    from pipeline.history.homes import Home
    from preprocessing.errors import InputError

    terminal.quiet()
    from pipeline.drift import comparing, served

    stated = served.bounds_of(bounds)
    found_home = Home.open(home)
    serving = found_home.serving(name)
    files = sorted(path for pattern in logs for path in glob.glob(pattern))
    if not files:
        raise InputError(f"--log must name files of a request log. Received: {', '.join(logs)}")
    number = lineage.version_of(found_home, serving, version)
    found = served.compare(found_home, serving, number, files, stated)
    if as_json:
        lines = [dataclasses.asdict(line) | {"passes": line.passes} for line in found.moved]
        click.echo(json.dumps(dataclasses.asdict(found) | {"moved": lines}, indent=2))
    else:
        click.echo(f"{found.texts:,} texts asked of version {number}, {found.repeated:,} of them repeated")
        if found.only_outlines:
            click.echo("The log has outlines instead of texts: languages and tokens are not known.")
        for line in found.moved:
            click.echo(f"  {'  ' if line.passes else '! '}{line}")
    comparing.check(found.moved, "Look at what is asked, or state another --bound")
