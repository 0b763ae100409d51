"""How the tests speak to the emulator: one HTTP client, one reply, one FCM sender."""

from collections.abc import Callable
from typing import Any, NamedTuple

import google.auth.transport.requests
import orjson
import requests
from google.oauth2 import service_account
from pyreqwest.client import SyncClient, SyncClientBuilder

from devstack.emulators.client import Emulator

FCM_SCOPE = "https://www.googleapis.com/auth/firebase.messaging"


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return orjson.loads(self.body)


Send = Callable[..., Reply]


def client_of(emulator: Emulator, *, http2: bool = True) -> SyncClient:
    authority = emulator.ca_file.read_bytes()
    return SyncClientBuilder().add_root_certificate_pem(authority).http2(http2).build()


def post(client: SyncClient, url: str, headers: dict[str, str], body: bytes) -> Reply:
    response = client.post(url).headers(headers).body_bytes(body).build().send()
    return Reply(response.status, dict(response.headers), bytes(response.bytes()))


def bearer(emulator: Emulator) -> str:
    """Trade the service account's JWT for a bearer, the way google-auth does it."""
    account: Any = service_account.Credentials.from_service_account_file(  # type: ignore[no-untyped-call]
        emulator.service_account_file, scopes=[FCM_SCOPE]
    )
    session = requests.Session()
    session.trust_env = False
    session.verify = str(emulator.ca_file)
    account.refresh(google.auth.transport.requests.Request(session))
    return str(account.token)


def fcm_sender(emulator: Emulator, client: SyncClient, authorization: str | None) -> Send:
    """Return `send(message)`, or with any body, project and Authorization of its own."""

    def send(
        message: dict[str, Any] | None = None,
        *,
        body: bytes | None = None,
        project: str = "demo-project",
        credentials: str | None = authorization,
        **request: Any,
    ) -> Reply:
        url = f"{emulator.base_url}/v1/projects/{project}/messages:send"
        headers = {"authorization": credentials} if credentials else {}
        content = orjson.dumps({"message": message, **request}) if body is None else body
        return post(client, url, headers, content)

    return send
