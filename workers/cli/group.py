"""Command groups: the settings, the log and the form of errors for every command of `chat-workers`."""

from typing import Any

import click
from sqlalchemy.exc import DBAPIError

from settings import get_settings
from tasks.words import printable
from workers import logging


class Command(click.Command):
    """A command, which needs the settings; its --help does not."""

    def invoke(self, ctx: click.Context) -> Any:
        logging.configure(get_settings())
        return super().invoke(ctx)


class Group(click.Group):
    """A group of commands. Its `errors`, whose text is a sentence, end a command with that sentence and exit code 1."""

    command_class = Command
    group_class = type

    def __init__(self, *args: Any, errors: tuple[type[Exception], ...] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._errors = errors

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except self._errors as error:
            raise click.ClickException(printable(error)) from None
        except DBAPIError as error:
            raise click.ClickException(printable(f"the database says: {error.orig}")) from None
        except click.ClickException as error:
            error.message = printable(error.message)  # type: ignore[misc]  # final for type checkers alone
            raise
