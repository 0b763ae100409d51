"""Files with secrets: whether anyone but their readers may read them, and whether the one who reads them can use them."""

import stat
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from settings import ConfigurationError
from workers.doctor.report import Finding, Question, ok, wrong
from workers.flower_login import read_users
from workers.gateway import tokens
from workers.gateway.operators import read_token
from workers.gateway.tokens import TokensError

# What docs/deployment.md has systemd read, and honcho's.
FOLDER = Path("/etc/chat-workers")
ENVIRONMENTS = ("env", "*.env")

# Before a token of the gateway ends there must be time to make another and to change the API over.
TOKEN_ENDS_SOON = timedelta(days=14)

# The passphrase of backups and the keys' contents have checks of their own.
FILES = (
    "GOOGLE_APPLICATION_CREDENTIALS",
    "APNS_KEY_FILE",
    "VAPID_KEY_FILE",
    "GATEWAY_OPERATIONS_TOKEN_FILE",
    "GATEWAY_TOKENS_FILE",
    "FLOWER_BASIC_AUTH_FILE",
)
USED_BY: dict[str, Callable[[Path], Any]] = {
    "GATEWAY_OPERATIONS_TOKEN_FILE": read_token,
    "GATEWAY_TOKENS_FILE": tokens.read,
    "FLOWER_BASIC_AUTH_FILE": read_users,
}


def secrets(question: Question) -> Iterator[Finding]:
    """Find out about the files that variables name, and those that hold the variables."""
    named = {variable: getattr(question.settings, variable.lower()) for variable in FILES}
    found = [*_files({variable: path for variable, path in named.items() if path}), *environments(Path.cwd(), FOLDER)]
    yield from found or [ok("secrets", "their files are closed to other users")]
    yield from _tokens(question.settings.gateway_tokens_file)


def _files(named: dict[str, Path]) -> Iterator[Finding]:
    for variable, path in named.items():
        if _open_to_all(path):
            yield wrong("secrets", f"{path} ({variable}) may be read by every user of this host; run: chmod o-rwx {path}")
        elif variable in USED_BY:
            try:
                USED_BY[variable](path)
            except (ConfigurationError, TokensError) as error:
                yield wrong("secrets", f"{variable}: {error}".replace(f"{variable}: {variable}", variable))


def _tokens(path: Path | None) -> Iterator[Finding]:
    """Find tokens of the gateway that have ended or soon will: nudges are refused then, and only the callers' logs say so."""
    try:
        found = tokens.read(path) if path else ()
    except TokensError:
        return  # said above
    now = datetime.now(UTC)
    for token in found:
        if token.expires < now + TOKEN_ENDS_SOON:
            ends = "has expired" if token.expires <= now else "expires"
            yield wrong(
                "gateway tokens",
                f"{token.name} {ends} at {token.expires:%Y-%m-%d %H:%M} UTC; make another with `chat-workers gateway token`, "
                f"have the API use it, then run: chat-workers gateway revoke {token.name}",
            )


def environments(here: Path, folder: Path) -> Iterator[Finding]:
    """Find environment files that every user may read: `.env` here, and what the units read from `folder`."""
    for path in (here / ".env", *(each for pattern in ENVIRONMENTS for each in sorted(folder.glob(pattern)))):
        if _open_to_all(path):
            yield wrong("secrets", f"{path} may be read by every user of this host; run: chmod o-rwx {path}")


def _open_to_all(path: Path) -> bool:
    try:
        return bool(path.stat().st_mode & stat.S_IRWXO)
    except OSError:
        return False  # who uses it says what is the matter with it
