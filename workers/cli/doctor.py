"""`chat-workers doctor`: every dependency in a line, and what to mend."""

import shutil
import textwrap

import click

from settings import get_settings
from workers.cli.group import Command
from workers.cli.output import as_json, emit, say
from workers.doctor import QUESTIONS
from workers.doctor.report import PROCESSES, Finding, Host, examine

MARKS = {"OK": ("ok", "green"), "RISK": ("risk", "yellow"), "WRONG": ("WRONG", "red")}
INDENT = 20


@click.command("doctor", cls=Command)
@click.option("--offline", is_flag=True, help="Ask no push provider for a token.")
@click.option("--only", type=click.Choice(PROCESSES), multiple=True, help="A process that runs here; may be repeated.")
def group(offline: bool, only: tuple[str, ...]) -> None:
    """Ask every dependency whether it is as this host's processes need it; nothing is changed. Exit code 1 if one is not."""
    found = []
    for finding in examine(Host(get_settings(), frozenset(only or PROCESSES), offline), QUESTIONS):
        found.append(finding)
        if not as_json():
            _echo(finding)
    faults = sum(finding.state == "WRONG" for finding in found)
    lines = [f"{faults} to mend" if faults else "nothing to mend"]
    emit([finding._asdict() for finding in found], lines, wrong=faults)


def _echo(finding: Finding) -> None:
    """Print a finding within the terminal's width, its sentence in a column of its own."""
    mark, colour = MARKS.get(finding.state, ("-", ""))
    width = shutil.get_terminal_size((80, 24)).columns - INDENT
    first, *more = textwrap.wrap(finding.sentence, max(width, INDENT), break_long_words=False, break_on_hyphens=False)
    say([(mark.ljust(5), colour), f"  {finding.what.ljust(INDENT - 9)}  {first}"], *(" " * INDENT + line for line in more))
