"""The gateway's files of tokens: of callers, who start jobs, and of operators, who see its pages."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from workers.doctor.report import Answer, Host, ok, wrong
from workers.doctor.secrets import private
from workers.gateway.operators import read_token
from workers.gateway.tokens import TokensError, read

# Before a token of the gateway ends there must be time to make another and to change the API over.
TOKEN_ENDS_SOON = timedelta(days=14)


def tokens(host: Host) -> Iterator[Answer]:
    """Find tokens of the gateway that have ended or soon will: nudges are refused then, and only the callers' logs say so."""
    path = Path(str(host.settings.gateway_tokens_file))
    try:
        found = read(private("GATEWAY_TOKENS_FILE", path, "chat-workers gateway token directus"))
    except TokensError as error:
        yield wrong(f"GATEWAY_TOKENS_FILE: {error}")
        return
    now = datetime.now(UTC)
    for token in found:
        if token.expires < now + TOKEN_ENDS_SOON:
            ends = "has expired" if token.expires <= now else "expires"
            yield wrong(
                f"{token.name} {ends} at {token.expires:%Y-%m-%d %H:%M} UTC; make another with `chat-workers gateway token`,"
                f" have the API use it, then run: chat-workers gateway revoke {token.name}"
            )
    yield ok(f"{len(found)} in {path}")


def operators(host: Host) -> Iterator[Answer]:
    """Look at the token that opens /metrics and /status."""
    path = Path(str(host.settings.gateway_operations_token_file))
    read_token(private("GATEWAY_OPERATIONS_TOKEN_FILE", path, f"(umask 077; openssl rand -hex 32 > {path})"))
    yield ok(f"whoever has the token in {path} may see /metrics and /status")
