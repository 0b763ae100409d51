"""The `chat-workers` command: one module a command group, loaded when it is used."""

import sys
from importlib import import_module
from io import TextIOWrapper

import click

from workers.cli.group import Group
from workers.exits import exit_if_misconfigured

GROUPS = (
    "alerts", "attachments", "audit", "backups", "db", "doctor", "gateway",
    "messages", "notifications", "ping", "retention", "schedule", "status",
)  # fmt: skip


class LazyGroup(Group):
    """Loads the module of a command when it is asked for: all of them, with what they import, take more than a second."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        return list(GROUPS)

    def get_command(self, _ctx: click.Context, name: str) -> click.Command | None:
        if name not in GROUPS:
            return None
        command: click.Command = import_module(f"workers.cli.{name}").group
        return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="chat-workers")
def cli() -> None:
    """Background workers of the chat: the operators' command line.

    Exit codes: 0 done, 1 the work failed, 2 bad usage or configuration.
    """


def main() -> None:
    """Run the command line."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr is: a name outside of Latin-1 ends no command there
    with exit_if_misconfigured():
        cli()
