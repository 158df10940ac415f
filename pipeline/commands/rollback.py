"""`bert rollback`: a label goes back to the version that had it before."""

import pathlib

import click

from pipeline.commands.promote import config_option, label_option
from pipeline.commands.runs import home_option


@click.command("rollback")
@label_option
@home_option
@click.option("--name", help="Of the pipeline, where several ran in the home.  [default: that which ran last]")
@config_option
def command(label, home, name, config):
    """Take a label back to the version that had it before, in the models.config that servers read.

    The version that had it is unloaded, where no other label is its. Its model is rolled back: the next run that makes
    the same model does not push it, and no candidate is compared with it, until `bert promote` names it again. What
    Kubeflow pushed is rolled back in a pod that mounts the claim, as `bert promote --help` says.
    """
    from pipeline.history import labels
    from pipeline.history.homes import Home

    found_home = Home.open(home, claim=True)
    serving = found_home.serving(name)
    file = pathlib.Path(config) if config else found_home.models_config
    back, to = labels.roll_back(file, serving, label)
    click.echo(f"{label} is version {to} again: {file}")
    click.echo(f"Version {back} is rolled back: its model is not pushed again, nor compared with")
    click.echo("A server that was not given this file still takes the newest folder")
