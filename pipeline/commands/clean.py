"""`bert clean`: what no run, server or lineage needs any more goes."""

import click

from pipeline.commands.runs import home_option


@click.command("clean")
@home_option
@click.option("--dry-run", is_flag=True, help="Only say what would go, and its size.")
@click.option("--runs", type=int, help="Newest runs whose artifacts all stay.  [default: the settings' retention.runs]")
@click.option("--versions", type=int, help="Newest versions that stay.  [default: the settings' retention.versions]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(home, dry_run, as_json, **given):
    """Remove artifacts and compiled steps of old runs, trainings that were broken off, and old versions.

    What stays: all artifacts of the newest runs; the newest versions, those that have a label, those that a label would
    go back to or that models.config names; and what these were made of, with the checkpoints of the models that they
    were warm-started from. The rule is `retention` in the settings of the run that ran last. MLMD is told before a file
    goes, and the records of runs stay. Not while a run is at work.
    """
    import collections
    import dataclasses
    import json

    from pipeline import terminal
    from pipeline.history import retention
    from pipeline.history.homes import Home

    found_home = Home.open(home)
    rule = retention.rule_of(found_home)
    rule = dataclasses.replace(rule, **{name: value for name, value in given.items() if value is not None})
    with found_home.alone():
        items = retention.plan(found_home, rule)
        if not dry_run:
            retention.carry_out(found_home, items)
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(item) for item in items], indent=2))
        return
    for item in items if dry_run else ():
        click.echo(f"{terminal.size(item.bytes):>9}  {item.kind:9} {item.path}")
    counts = collections.Counter(item.kind for item in items)
    what = ", ".join(f"{count:,} {kind}{'s' * (count > 1)}" for kind, count in counts.items()) or "nothing"
    total = terminal.size(sum(item.bytes for item in items))
    click.echo(f"{'Would remove' if dry_run else 'Removed'} {what}, {total}; rule: {rule}")
