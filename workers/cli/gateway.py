"""`chat-workers gateway`: who may start jobs over HTTP; make, list and revoke tokens."""

import json
from datetime import UTC, datetime
from pathlib import Path

import click

from settings import ConfigurationError, get_settings, parse_age
from workers.cli.table import echo_table
from workers.gateway import tokens
from workers.gateway.catalogue import CATALOGUE
from workers.gateway.tokens import NEVER, TokensError

as_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


class Moment(click.ParamType[datetime]):
    """When a token expires: in so many days, as in 90d, or at the start of a day in UTC, as in 2027-02-01."""

    name = "moment"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        text = str(value)
        try:
            when = datetime.fromisoformat(text) if "-" in text else datetime.now(UTC).replace(microsecond=0) + parse_age(text)
        except ValueError:
            self.fail(f"{text!r} is neither an age, as in 90d, nor a date, as in 2027-02-01", param, ctx)
        return when.replace(tzinfo=when.tzinfo or UTC)


@click.group("gateway")
def group() -> None:
    """Who may start jobs over HTTP: token, tokens, revoke. The gateway reads GATEWAY_TOKENS_FILE again when it changes."""


def _file() -> Path:
    path = get_settings().gateway_tokens_file
    if path is None:
        raise ConfigurationError("GATEWAY_TOKENS_FILE is not set; it names the file that holds the tokens' hashes")
    return path


@group.command()
@click.argument("name")
@click.option(
    "--expires", type=Moment(), metavar="WHEN", help="90d from now, or at the start of 2027-02-01 (UTC); default: never."
)
@click.option("--job", "jobs", multiple=True, type=click.Choice(list(CATALOGUE)), help="Only this job; may be repeated.")
@as_json_option
def token(name: str, expires: datetime | None, jobs: tuple[str, ...], as_json: bool) -> None:
    """Make a token for NAME, such as directus-2026-11, and print it, once: the file holds only its hash."""
    try:
        made = tokens.issue(_file(), name, expires=expires or NEVER, jobs=frozenset(jobs) if jobs else None)
    except TokensError as error:
        raise click.ClickException(str(error)) from None
    if as_json:
        click.echo(json.dumps({"name": name, "token": made, "expires": expires and expires.isoformat(), "jobs": jobs or None}))
        return
    click.echo(made)
    click.echo(f"{name} {f'expires at {expires:%Y-%m-%d %H:%M} UTC' if expires else 'does not expire'};"
               " this is the only time that it is shown", err=True)  # fmt: skip


@group.command("tokens")
@as_json_option
def list_command(as_json: bool) -> None:
    """List the tokens by name. Exit code 1 if one has expired."""
    try:
        found = tokens.read(_file())
    except TokensError as error:
        raise click.ClickException(str(error)) from None
    now = datetime.now(UTC)
    rows = [
        {
            "name": each.name,
            "expires": None if each.expires == NEVER else each.expires.isoformat(),
            "expired": each.expires <= now,
            "jobs": sorted(each.jobs) if each.jobs is not None else None,
        }
        for each in found
    ]
    if as_json:
        click.echo(json.dumps(rows))
    else:
        echo_table(
            ("name", "expires", "jobs", ""),
            [(r["name"], r["expires"] or "never", _names(r["jobs"]), "expired" if r["expired"] else "") for r in rows],
        )
    if any(row["expired"] for row in rows):
        raise SystemExit(1)


def _names(jobs: object) -> str:
    return ", ".join(jobs) if isinstance(jobs, list) else "all"


@group.command()
@click.argument("name")
@as_json_option
def revoke(name: str, as_json: bool) -> None:
    """Take NAME's token back; it is refused from the next request on."""
    try:
        tokens.revoke(_file(), name)
    except TokensError as error:
        raise click.ClickException(str(error)) from None
    click.echo(json.dumps({"revoked": name}) if as_json else f"{name} is revoked")
