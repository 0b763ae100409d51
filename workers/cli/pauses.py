"""What each `pause` command shares: for how long, why, and the sentence that says so."""

from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

import click

from settings import parse_age
from tasks.words import duration
from workers.cli.output import emit


def age(text: str) -> timedelta:
    """Return what an age such as 90d means, as the type of an option."""
    try:
        return parse_age(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def pause_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--for` and `--why`."""
    lasting = click.option("--for", "lasting", type=age, metavar="AGE", help="It ends by itself after so long, as in 2h.")
    return lasting(click.option("--why", default="", help="For those who will find it.")(command))


def say_paused(names: Iterable[str], lasting: timedelta | None, until: str) -> None:
    """Say what is paused, and for how long or `until` which command."""
    seconds = lasting.total_seconds() if lasting else None
    ends = f"for {duration(seconds)}" if seconds else f"until: chat-workers {until}"
    emit({"paused": [*names], "seconds": seconds}, [f"paused {', '.join(names)} {ends}"])


def say_resumed(names: Iterable[str]) -> None:
    """Say what was resumed."""
    emit({"resumed": [*names]}, [f"resumed: {', '.join(names) or 'nothing was paused'}"])
