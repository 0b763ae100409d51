"""Push providers: whether their keys are keys, and a token from Google."""

import asyncio
from collections.abc import Iterator

from settings import ConfigurationError
from tasks.notifications.providers import configured_providers
from tasks.notifications.providers.google_token import AccessToken, CredentialsError
from workers.doctor.report import Finding, Question, not_configured, not_tried, ok, wrong

TOKEN_SECONDS = 15.0


def push(question: Question) -> Iterator[Finding]:
    """Find out about FCM, APNs and Web Push."""
    settings = question.settings
    if question.only_backs_up:
        yield not_tried("push", "the backups process sends nothing (--only backups)")
        return
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


def _fcm(question: Question) -> Iterator[Finding]:
    account = question.settings.google_application_credentials
    assert account is not None  # noqa: S101 - configured_providers has looked
    if question.offline:
        yield not_tried("fcm", "the service account is one; Google was not asked (--offline)")
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
