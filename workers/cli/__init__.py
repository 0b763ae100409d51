"""The `chat-workers` command: one module a command group."""

import sys

import click
from sqlalchemy.exc import DBAPIError

from settings import ConfigurationError, get_settings
from workers import logging
from workers.cli import attachments, backups, db, doctor, gateway, messages, notifications, retention, schedule, status

EXIT_FAILED = 1
EXIT_CONFIGURATION = 2


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Background workers of the chat: the operators' command line.

    Exit codes: 0 done, 1 the work failed, 2 bad usage or configuration.
    """
    logging.configure(get_settings())


for module in (attachments, backups, db, doctor, gateway, messages, notifications, retention, schedule, status):
    cli.add_command(module.group)


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
