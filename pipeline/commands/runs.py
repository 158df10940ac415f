"""`bert runs`: what ran in a home, and how it ended."""

import click

home_option = click.option(
    "--home", default=".bert", show_default=True, envvar="BERT_HOME", metavar="DIR", help="Where the pipeline ran."
)


@click.command("runs")
@home_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(home, as_json):
    """List the runs of a home, the oldest first: how each ended, what its steps did, and the version that it pushed.

    `broken off` are those on which nothing is at work any more, or not at this moment: the next run goes on where they
    stopped.
    """
    import json

    from pipeline.history import runs
    from pipeline.history.homes import Home

    entries = runs.listed(Home.open(home))
    if as_json:
        click.echo(json.dumps(entries, indent=2))
        return
    for line in runs.told(entries):
        click.echo(line)
    for entry in entries[-1:]:
        if entry["error"]:
            click.echo(f"\nThe last one failed: {entry['error']}")
