"""Push providers: the files of their keys, whether they can be read by us and by no one else, and a token from Google."""

import asyncio
import stat
from collections.abc import Iterator
from pathlib import Path

from settings import ConfigurationError, Settings
from tasks.notifications.providers import configured_providers
from tasks.notifications.providers.google_token import AccessToken, CredentialsError
from workers.doctor.report import Finding, Question, not_configured, ok, wrong

TOKEN_SECONDS = 15.0
OTHERS = stat.S_IRWXO


def push(question: Question) -> Iterator[Finding]:
    """Find out about FCM, APNs and Web Push."""
    settings = question.settings
    if question.only_backs_up:
        yield not_configured("push", "GOOGLE_APPLICATION_CREDENTIALS is not set, BACKUP_DIR is: a host for backups alone")
        return
    yield from _files(settings)
    try:
        configured = configured_providers(settings)
    except ConfigurationError as error:
        yield wrong("push", str(error))
        return
    yield from _fcm(question)
    for name, variable in (("apns", "APNS_KEY_FILE"), ("webpush", "VAPID_KEY_FILE")):
        if name in configured:
            yield ok(name, f"the key of {variable} is one")
        else:
            yield not_configured(name, f"{variable} is not set")


def _files(settings: Settings) -> Iterator[Finding]:
    files = {
        "GOOGLE_APPLICATION_CREDENTIALS": settings.google_application_credentials,
        "APNS_KEY_FILE": settings.apns_key_file,
        "VAPID_KEY_FILE": settings.vapid_key_file,
    }
    for variable, path in files.items():
        if path and (mode := _mode(path)) is not None and mode & OTHERS:
            yield wrong("secrets", f"{path} ({variable}) may be read by every user of this host; run: chmod o-rwx {path}")


def _mode(path: Path) -> int | None:
    try:
        return path.stat().st_mode
    except OSError:
        return None  # configured_providers says what is the matter with it


def _fcm(question: Question) -> Iterator[Finding]:
    account = question.settings.google_application_credentials
    assert account is not None  # noqa: S101 - configured_providers has looked
    if question.offline:
        yield ok("fcm", "the service account is one; Google was not asked (--offline)")
        return
    token = AccessToken(account, question.settings.ssl_cert_file)
    try:
        asyncio.run(asyncio.wait_for(token.get(), TOKEN_SECONDS))
    except CredentialsError as error:
        yield wrong("fcm", f"{error}; see that the key of the service account was not deleted, and that Google can be reached")
    except TimeoutError:
        yield wrong("fcm", f"Google gave no token within {TOKEN_SECONDS:g} s; see that its token_uri can be reached from here")
    else:
        yield ok("fcm", f"Google gave a token for the project {token.project_id}")
