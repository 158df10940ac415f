"""`bert promote`: which version callers mean by a label."""

import pathlib

import click

from pipeline.commands.runs import home_option

label_option = click.option("--label", default="stable", show_default=True, help="What callers name.")
config_option = click.option(
    "--config", metavar="FILE", help="The servers' models.config.  [default: serving/models.config of the home]"
)


@click.command("promote")
@click.argument("version")
@label_option
@home_option
@click.option("--name", help="Of the pipeline, where several ran in the home.  [default: that which ran last]")
@config_option
def command(version, label, home, name, config):
    """Give a pushed version a label, in the models.config that servers read. VERSION is a number, a label or `latest`.

    The file is written whole, and made where there is none. TensorFlow Serving and `bert serve` take the label over
    while they run, with --model_config_file FILE --model_config_file_poll_wait_seconds 1. They move it only to a
    version that they have loaded: those with a label, those that had it before, and the newest are. For another one the
    command is typed twice, which it says.

    What Kubeflow pushed is given a label in a pod that mounts the claim where the servers do: --home names the mount.

        bert promote latest --label canary
    """
    from pipeline.history import labels, lineage
    from pipeline.history.homes import Home
    from preprocessing.errors import require

    found_home = Home.open(home, claim=True)
    serving = found_home.serving(name)
    file = pathlib.Path(config) if config else found_home.models_config
    require(not label.isdecimal() and label != "latest", "a label must not read like a version", label)
    number = lineage.version_of(found_home, serving, version)
    if labels.promote(file, serving, number, label):
        click.echo(f"{label} is version {number} now: {file}")
    else:
        click.echo(
            f"{file}: servers are told to load version {number}, which they had no cause to. When they have (GET "
            f"/v1/models/{pathlib.Path(serving).name} says AVAILABLE), give the same command again, and {label} moves"
        )
