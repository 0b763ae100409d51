"""`chat-workers alerts`: Prometheus's rules, made from the facts."""

import click

from workers.cli.group import Command
from workers.operations.alerts import RUNBOOK, rules
from workers.operations.snapshot import FACTS


@click.command("alerts", cls=Command, reports=False)
@click.option("--runbook", default=RUNBOOK, show_default=True, help="The address where you publish that page.")
def group(runbook: str) -> None:
    """Print Prometheus's alert rules, as in deploy/prometheus/alerts.yml."""
    click.echo(rules(FACTS, runbook), nl=False)
