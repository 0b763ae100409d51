"""Push providers: their keys must be keys, and Google must give a token for the service account."""

import asyncio
from collections.abc import Iterator

from tasks.notifications.apps import push_apps, told_by_key
from tasks.notifications.providers import configured_providers
from tasks.notifications.providers.google_token import AccessToken, CredentialsError
from workers.doctor.report import Answer, Host, ok, wrong
from workers.doctor.secrets import private

TOKEN_SECONDS = 15.0
KEYS = ("GOOGLE_APPLICATION_CREDENTIALS", "APNS_KEY_FILE", "VAPID_KEY_FILE")


def push(host: Host) -> Iterator[Answer]:
    """Look at the credentials of every app, and ask Google for a token with each service account."""
    settings = host.settings
    apps = push_apps(settings)
    for app, own in apps.values():
        with told_by_key(settings, app.name):
            for variable in KEYS:
                if (path := getattr(own, variable.lower())) is not None:
                    private(variable, path, f"install -m 600 YOUR-KEY {path}")
    yield ok(f"the keys of {', '.join(configured_providers(settings))} can be read")
    if host.offline:
        yield "not tried", "Google was not asked for a token (--offline)"
        return
    for own in {own.google_application_credentials: own for _, own in apps.values()}.values():
        if own.google_application_credentials:
            yield _google(AccessToken(own.google_application_credentials, own.ssl_cert_file))


def _google(token: AccessToken) -> Answer:
    try:
        asyncio.run(asyncio.wait_for(token.get(), TOKEN_SECONDS))
    except CredentialsError as error:
        return wrong(f"{error}; see that the key of the service account was not deleted, and that Google can be reached")
    except TimeoutError:
        return wrong(f"Google gave no token within {TOKEN_SECONDS:g} s; see that its token_uri can be reached from here")
    return ok(f"Google gave a token for the project {token.project_id}")
