"""`chat-workers gateway`: make, list and revoke the tokens that may start jobs over HTTP."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from settings import ConfigurationError, get_settings
from tasks.words import moment
from workers.cli.group import Group, always
from workers.cli.output import Table, emit, say
from workers.cli.pauses import age
from workers.gateway import tokens
from workers.gateway.catalogue import CATALOGUE, EVENTS
from workers.gateway.tokens import NEVER, TokensError


@click.group("gateway", cls=Group, errors=(TokensError,))
def group() -> None:
    """Who may start jobs over HTTP: token, tokens, revoke. The gateway reads GATEWAY_TOKENS_FILE again when it changes."""


def _file() -> Path:
    path = get_settings().gateway_tokens_file
    if path is None:
        example = "GATEWAY_TOKENS_FILE=/etc/chat-workers/gateway/tokens"
        raise ConfigurationError(f"GATEWAY_TOKENS_FILE is not set; set it, here and for the gateway, as in {example}")
    return path


@group.command(changes=always)
@click.argument("name")
@click.option("--expires", "lasting", type=age, metavar="AGE", help="After so long, as in 90d; default: never.")
@click.option("--job", "jobs", multiple=True, type=click.Choice([*CATALOGUE, EVENTS]), help="Only this; may be repeated.")
def token(name: str, lasting: timedelta | None, jobs: tuple[str, ...]) -> None:
    """Make a token for NAME, such as directus-2026-11, and print it, once: the file holds only its hash."""
    expires = None if lasting is None else datetime.now(UTC).replace(microsecond=0) + lasting
    made = tokens.issue(_file(), name, expires=expires or NEVER, jobs=frozenset(jobs) if jobs else None)
    emit({"name": name, "token": made, "expires": expires, "jobs": jobs or None}, [made])
    until = f"expires at {moment(expires)}" if expires else "does not expire"
    say(f"{name} {until}; this is the only time that it is shown", err=True)


@group.command("tokens")
def list_command() -> None:
    """List the tokens by name. Exit code 1 if one has expired."""
    now = datetime.now(UTC)
    rows: list[dict[str, Any]] = [
        {"name": t.name, "expires": t.expires if t.expires != NEVER else None, "expired": t.expires <= now, "jobs": t.jobs}
        for t in tokens.read(_file())
    ]
    table = [
        (row["name"], row["expires"] or "never", ", ".join(sorted(row["jobs"] or ["all"])), "expired" if row["expired"] else "")
        for row in rows
    ]
    emit(rows, [Table(("name", "expires", "jobs", ""), table)], wrong=any(row["expired"] for row in rows))


@group.command(changes=always)
@click.argument("name")
def revoke(name: str) -> None:
    """Take NAME's token back; it is refused from the next request on."""
    tokens.revoke(_file(), name)
    emit({"revoked": name}, [f"{name} is revoked"])
