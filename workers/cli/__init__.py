"""The `chat-workers` command: one module a command group, loaded when it is used."""

import sys
from importlib import import_module

import click
from sqlalchemy.exc import DBAPIError

from settings import ConfigurationError, get_settings
from workers import logging

EXIT_FAILED = 1
EXIT_CONFIGURATION = 2


GROUPS = ("attachments", "backups", "db", "doctor", "gateway", "messages", "notifications", "retention", "schedule", "status")


class LazyGroup(click.Group):
    """Loads the module of a command when it is asked for: all of them, with what they import, take more than a second."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        return list(GROUPS)

    def get_command(self, _ctx: click.Context, name: str) -> click.Command | None:
        if name not in GROUPS:
            return None
        command: click.Command = import_module(f"workers.cli.{name}").group
        return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Background workers of the chat: the operators' command line.

    Exit codes: 0 done, 1 the work failed, 2 bad usage or configuration.
    """
    logging.configure(get_settings())


def main() -> None:
    """Run the command line; a configuration fault is one sentence and exit code 2."""
    try:
        cli()
    except ConfigurationError as error:
        print(f"chat-workers: {error}", file=sys.stderr)
        raise SystemExit(EXIT_CONFIGURATION) from None
    except DBAPIError as error:
        print(f"chat-workers: the database says: {error.orig}", file=sys.stderr)
        raise SystemExit(EXIT_FAILED) from None
