"""Push providers: their keys must be keys, and Google must give a token for the service account."""

import asyncio
from collections.abc import Iterator

from tasks.notifications.providers import configured_providers
from tasks.notifications.providers.google_token import AccessToken, CredentialsError
from workers.doctor.report import Answer, Host, ok, wrong
from workers.doctor.secrets import private

TOKEN_SECONDS = 15.0
KEYS = ("GOOGLE_APPLICATION_CREDENTIALS", "APNS_KEY_FILE", "VAPID_KEY_FILE")


def push(host: Host) -> Iterator[Answer]:
    """Look at the credentials of FCM, APNs and Web Push."""
    settings = host.settings
    for variable in KEYS:
        if (path := getattr(settings, variable.lower())) is not None:
            private(variable, path, f"install -m 600 YOUR-KEY {path}")
    yield ok(f"the keys of {', '.join(configured_providers(settings))} can be read")
    if host.offline:
        yield "not tried", "Google was not asked for a token (--offline)"
        return
    assert settings.google_application_credentials is not None  # noqa: S101 - configured_providers has looked
    token = AccessToken(settings.google_application_credentials, settings.ssl_cert_file)
    try:
        asyncio.run(asyncio.wait_for(token.get(), TOKEN_SECONDS))
    except CredentialsError as error:
        yield wrong(f"{error}; see that the key of the service account was not deleted, and that Google can be reached")
    except TimeoutError:
        yield wrong(f"Google gave no token within {TOKEN_SECONDS:g} s; see that its token_uri can be reached from here")
    else:
        yield ok(f"Google gave a token for the project {token.project_id}")
