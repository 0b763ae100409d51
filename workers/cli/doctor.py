"""`chat-workers doctor`: every dependency in a line, and what to mend."""

from collections.abc import Mapping

import click

from settings import get_settings
from workers.cli.group import Command
from workers.cli.output import as_json_option, emit, say
from workers.doctor.database import database
from workers.doctor.exposure import exposure
from workers.doctor.folders import folders
from workers.doctor.push import push
from workers.doctor.redis import redis
from workers.doctor.report import Check, Finding, Question, examine
from workers.doctor.scanner import clamd
from workers.doctor.secrets import secrets
from workers.doctor.storage import backups, buckets
from workers.doctor.user import user

CHECKS: Mapping[str, Check] = {
    "user": user,
    "database": database,
    "redis": redis,
    "push": push,
    "clamd": clamd,
    "folders": folders,
    "backups": backups,
    "S3": buckets,
    "secrets": secrets,
    "exposure": exposure,
}
MARKS = {"OK": ("ok", "green"), "WRONG": ("WRONG", "red"), "not configured": ("-", ""), "not tried": ("-", "")}


@click.command("doctor", cls=Command)
@click.option("--offline", is_flag=True, help="Ask no push provider for a token.")
@click.option("--only", type=click.Choice(["backups"]), help="The environment is that of the backups process alone.")
@as_json_option
def group(offline: bool, only: str | None, as_json: bool) -> None:
    """Ask every dependency whether it is as the workers need it; nothing is changed. Exit code 1 if something is wrong."""
    found = []
    for finding in examine(Question(get_settings(), offline, only == "backups"), CHECKS):
        found.append(finding)
        if not as_json:
            _echo(finding)
    faults = sum(finding.state == "WRONG" for finding in found)
    emit(found, as_json, [f"{faults} to mend" if faults else "nothing to mend"])
    if faults:
        raise SystemExit(1)


def _echo(finding: Finding) -> None:
    mark, colour = MARKS[finding.state]
    say([(mark.ljust(5), colour), f"  {finding.what.ljust(17)}  {finding.sentence}"])
