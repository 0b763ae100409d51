"""`chat-workers alerts`: Prometheus's rules, made from the facts."""

import click

from workers.cli.group import Command
from workers.operations.alerts import rules
from workers.operations.snapshot import FACTS


@click.command("alerts", cls=Command, reports=False)
def group() -> None:
    """Print Prometheus's alert rules, as in deploy/prometheus/alerts.yml."""
    click.echo(rules(FACTS), nl=False)
