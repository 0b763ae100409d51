"""What the `pause` and `resume` commands share: for how long and why, the order itself, and the sentence that says so."""

from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from typing import Any

import click

from db.engine import get_engine
from settings import parse_age
from tasks import pause as pausing
from tasks.audit import who
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


def pause(what: Sequence[str], lasting: timedelta | None, why: str, until: str) -> None:
    """Pause these, as in tasks/pause.py, and say for how long or `until` which command."""
    with get_engine().begin() as connection:
        pausing.pause(connection, what, who(), why, lasting)
    seconds, names = lasting.total_seconds() if lasting else None, _names(what)
    ends = f"for {duration(seconds)}" if seconds else f"until: chat-workers {until}"
    emit({"paused": names, "seconds": seconds}, [f"paused {', '.join(names)} {ends}"])


def resume(what: Sequence[str]) -> None:
    """Take these pauses back, and say which there were."""
    with get_engine().begin() as connection:
        names = _names(pausing.resume(connection, what))
    emit({"resumed": names}, [f"resumed: {', '.join(names) or 'nothing was paused'}"])


def _names(what: Iterable[str]) -> list[str]:
    """Return what people call these: an entry or a policy by its name alone."""
    return [each.removeprefix(pausing.ENTRY).removeprefix(pausing.POLICY) or "all" for each in what]
