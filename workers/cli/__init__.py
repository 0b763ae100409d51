"""The `chat-workers` command: one module a command group."""

import sys

import click

from settings import ConfigurationError
from workers.cli import attachments, db

EXIT_CONFIGURATION = 2


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Background workers of the chat: the operators' command line.

    Exit codes: 0 done, 1 the work failed, 2 bad usage or configuration.
    """


cli.add_command(attachments.group)
cli.add_command(db.group)


def main() -> None:
    """Run the command line; a configuration fault is one sentence and exit code 2."""
    try:
        cli()
    except ConfigurationError as error:
        print(f"chat-workers: {error}", file=sys.stderr)
        raise SystemExit(EXIT_CONFIGURATION) from None
