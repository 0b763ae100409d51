"""Command groups: the settings, the log and the form of errors for every command of `chat-workers`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click
from sqlalchemy.exc import DBAPIError

from db.engine import get_engine
from settings import get_settings
from tasks import audit
from tasks.words import printable
from workers import logging
from workers.cli.output import AS_JSON, CAME_TO

Changes = Callable[[dict[str, Any]], object]

# What stands in no audit: a device's address.
UNSAID = {"token"}


def always(_parameters: dict[str, Any]) -> bool:
    """Say of a command that it changes something whatever it is called with."""
    return True


def if_told(parameters: dict[str, Any]) -> object:
    """Say of a command that it changes something with --yes, or without --dry-run."""
    return parameters.get("yes", not parameters.get("dry_run", True))


class Command(click.Command):
    """A command, which needs the settings; its --help does not. One that `reports`, by `emit`, has --json.

    `changes` says whether it changes something with these parameters: then it stands in the audit.
    """

    def __init__(self, *args: Any, changes: Changes | None = None, reports: bool = True, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.changes = changes
        if reports:
            self.params.append(AS_JSON)

    def invoke(self, ctx: click.Context) -> Any:
        logging.configure(get_settings())
        if not (self.changes and self.changes(ctx.params)):
            return super().invoke(ctx)
        with _audited(ctx):
            return super().invoke(ctx)


@contextmanager
def _audited(ctx: click.Context) -> Iterator[None]:
    given = {name: value for name, value in ctx.params.items() if value not in (None, False, "", ()) and name not in UNSAID}
    entry = audit.begin(get_engine(), audit.who(), ctx.command_path.partition(" ")[2], given)
    # Others have no sentence, and who knows what their text would hold.
    sentences = (click.ClickException, *getattr(ctx.parent and ctx.parent.command, "errors", ()))
    outcome = "done"
    try:
        yield
    except BaseException as error:
        why = "" if isinstance(error, SystemExit) else f": {error if isinstance(error, sentences) else type(error).__name__}"
        outcome = f"failed{why}"
        raise
    finally:
        if entry is not None:
            numbers = ", ".join(f"{name} {number}" for name, number in ctx.meta.get(CAME_TO, {}).items())
            audit.end(get_engine(), entry, f"{outcome}: {numbers}" if numbers else outcome)


class Group(click.Group):
    """A group of commands. Its `errors`, whose text is a sentence, end a command with that sentence and exit code 1."""

    command_class = Command
    group_class = type

    def __init__(self, *args: Any, errors: tuple[type[Exception], ...] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.errors = errors

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except self.errors as error:
            raise click.ClickException(printable(error)) from None
        except DBAPIError as error:
            raise click.ClickException(printable(f"the database says: {error.orig}")) from None
        except click.ClickException as error:
            error.message = printable(error.message)  # type: ignore[misc]  # final for type checkers alone
            raise
