"""`chat-workers gateway`: make, list and revoke the tokens that may start jobs over HTTP."""

from datetime import UTC, datetime
from pathlib import Path

import click

from settings import ConfigurationError, get_settings, parse_age
from tasks.words import moment
from workers.cli.group import Group, always
from workers.cli.output import Table, as_json_option, emit, say
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


def _moment(text: str) -> datetime:
    """Return when a token expires: in so many days, as in 90d, or at the start of a day in UTC, as in 2027-02-01."""
    try:
        when = datetime.fromisoformat(text) if "-" in text else datetime.now(UTC).replace(microsecond=0) + parse_age(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is neither an age, as in 90d, nor a date, as in 2027-02-01") from None
    return when.replace(tzinfo=when.tzinfo or UTC)


@group.command(changes=always)
@click.argument("name")
@click.option(
    "--expires", type=_moment, metavar="WHEN", help="90d from now, or at the start of 2027-02-01 (UTC); default: never."
)
@click.option(
    "--job",
    "jobs",
    multiple=True,
    type=click.Choice([*CATALOGUE, EVENTS]),
    help="Only this job or these events; may be repeated.",
)
@as_json_option
def token(name: str, expires: datetime | None, jobs: tuple[str, ...], as_json: bool) -> None:
    """Make a token for NAME, such as directus-2026-11, and print it, once: the file holds only its hash."""
    made = tokens.issue(_file(), name, expires=expires or NEVER, jobs=frozenset(jobs) if jobs else None)
    emit({"name": name, "token": made, "expires": expires, "jobs": jobs or None}, as_json, [made])
    if not as_json:
        until = f"expires at {moment(expires)}" if expires else "does not expire"
        say(f"{name} {until}; this is the only time that it is shown", err=True)


@group.command("tokens")
@as_json_option
def list_command(as_json: bool) -> None:
    """List the tokens by name. Exit code 1 if one has expired."""
    now = datetime.now(UTC)
    found = [(each, None if each.expires == NEVER else each.expires, each.expires <= now) for each in tokens.read(_file())]
    rows = [{"name": each.name, "expires": ends, "expired": expired, "jobs": each.jobs} for each, ends, expired in found]
    table = [
        (each.name, ends or "never", ", ".join(sorted(each.jobs or ["all"])), "expired" if expired else "")
        for each, ends, expired in found
    ]
    emit(rows, as_json, [Table(("name", "expires", "jobs", ""), table)], wrong=any(expired for *_, expired in found))


@group.command(changes=always)
@click.argument("name")
@as_json_option
def revoke(name: str, as_json: bool) -> None:
    """Take NAME's token back; it is refused from the next request on."""
    tokens.revoke(_file(), name)
    emit({"revoked": name}, as_json, [f"{name} is revoked"])
