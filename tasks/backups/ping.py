"""Ping BACKUP_PING_URL, a dead man's switch of healthchecks.io's form, when a backup begins and when it has ended."""

import structlog

from settings import Settings
from tasks.backups.ledger import DID
from tasks.http import NoAnswerError, Server

log = structlog.get_logger(__name__)

CALL_SECONDS = 5.0
LONGEST_BODY = 10_000


def ping(settings: Settings, job: str, event: str, body: str = "") -> None:
    """Say of a job that it begins (/start), is done (nothing) or failed (/fail) with this sentence. It fails no backup."""
    if settings.backup_ping_url is None or job not in DID:
        return
    server = Server("BACKUP_PING_URL", settings.backup_ping_url.replace("{job}", job), private_network=True, connections=1)
    try:
        status = server.post({}, body.encode()[:LONGEST_BODY], CALL_SECONDS, more=event).status
        if status >= 300:
            raise NoAnswerError(f"BACKUP_PING_URL answered with status {status}")
    except NoAnswerError as error:
        log.warning("not pinged", job=job, reason=str(error))
