"""Workload identity: the token of a file or URL becomes Google's, by the requests that Google's page describes.

https://docs.cloud.google.com/iam/docs/workload-identity-federation-with-other-providers, https://google.aip.dev/auth/4117
"""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from settings import ConfigurationError
from tasks.notifications.providers import google_token
from tasks.notifications.providers.google_token import SCOPE, AccessToken, CredentialsError
from tests.trickle import trickling

AUDIENCE = "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/pool/providers/cluster"
JWT, ACCESS = (f"urn:ietf:params:oauth:token-type:{kind}" for kind in ("jwt", "access_token"))
IMPERSONATED = "/v1/projects/-/serviceAccounts/push@chat.iam.gserviceaccount.com:generateAccessToken"


class Google(BaseHTTPRequestHandler):
    """The security token service, the service that impersonates accounts, and a cluster's own token endpoint."""

    protocol_version = "HTTP/1.1"
    refused = False

    def do_GET(self) -> None:
        assert self.headers["Metadata"] == "True"
        self.answer(200, {"access_token": "of-the-cluster"})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == IMPERSONATED:
            assert self.headers["Authorization"] == "Bearer of-the-sts"
            assert json.loads(body)["scope"] == [SCOPE]
            end = datetime.now(UTC) + timedelta(hours=1)
            self.answer(200, {"accessToken": "of-the-account", "expireTime": end.strftime("%Y-%m-%dT%H:%M:%SZ")})
            return
        form = {name: value for name, [value] in parse_qs(body.decode()).items()}
        assert self.path == "/v1/token"
        assert form.pop("scope") in {SCOPE, "https://www.googleapis.com/auth/iam"}
        assert form == {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "audience": AUDIENCE,
            "requested_token_type": ACCESS,
            "subject_token": "of-the-cluster",
            "subject_token_type": JWT,
        }
        if self.refused:
            self.answer(400, {"error": "invalid_grant", "error_description": "The audience is wrong."})
        else:
            given = {"access_token": "of-the-sts", "issued_token_type": ACCESS, "token_type": "Bearer", "expires_in": 3600}
            self.answer(200, given)

    def answer(self, status: int, given: dict[str, Any]) -> None:
        data = json.dumps(given).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def google() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Google)
    threading.Thread(target=server.serve_forever, args=[0.05], daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, google: str) -> Write:
    """Write the credentials as `gcloud iam workload-identity-pools create-cred-config` does; the token is in a file."""
    token = tmp_path / "token"
    token.write_text("of-the-cluster")

    def make(**changes: Any) -> Path:
        path = tmp_path / "account.json"
        account = {
            "type": "external_account",
            "audience": AUDIENCE,
            "subject_token_type": JWT,
            "token_url": f"{google}/v1/token",
            "credential_source": {"file": str(token)},
        }
        path.write_text(json.dumps(account | changes))
        return path

    return make


async def token_of(path: Path) -> str:
    tokens = AccessToken(path, project="chat")
    try:
        return await tokens.get()
    finally:
        await tokens.close()


def test_a_token_in_a_file_is_exchanged(write: Write) -> None:
    assert asyncio.run(token_of(write())) == "of-the-sts"


def test_a_token_behind_a_url_is_exchanged_and_an_account_impersonated(write: Write, google: str) -> None:
    form = {"type": "json", "subject_token_field_name": "access_token"}
    source = {"url": f"{google}/token", "headers": {"Metadata": "True"}, "format": form}
    path = write(credential_source=source, service_account_impersonation_url=google + IMPERSONATED)
    assert asyncio.run(token_of(path)) == "of-the-account"


def test_a_refusal_is_a_credentials_fault_in_google_s_words(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Google, "refused", True)
    with pytest.raises(CredentialsError, match=r"no access token from Google: .*invalid_grant.*The audience is wrong"):
        asyncio.run(token_of(write()))


@pytest.mark.parametrize("gone", ["file", "server"])
def test_a_token_that_is_not_there_is_a_credentials_fault(write: Write, tmp_path: Path, gone: str) -> None:
    path = write(**{"token_url": "http://127.0.0.1:9/v1/token"} if gone == "server" else {})
    if gone == "file":
        (tmp_path / "token").unlink()
    with pytest.raises(CredentialsError, match="no access token from Google: "):
        asyncio.run(token_of(path))


def test_an_exchange_that_hangs_is_given_up(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(google_token, "CALL_SECONDS", 0.5)
    with trickling((b"", b"")) as silent:
        path = write(token_url=f"http://127.0.0.1:{silent.address[1]}/v1/token")
        with pytest.raises(CredentialsError, match="in time"):
            asyncio.run(token_of(path))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"credential_source": {"executable": {"command": "/bin/token"}}}, 'has neither "file" nor "url"'),
        ({"credential_source": {"environment_id": "aws1", "url": "http://169.254.169.254"}}, "unusable file: "),
        ({"credential_source": None}, 'has neither "file" nor "url"'),
        ({"audience": None}, 'it has no "audience"'),
        ({"token_url": None}, 'it has no "token_url"'),
    ],
)
def test_what_is_no_such_identity_is_refused_at_start(write: Write, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        AccessToken(write(**changes), project="chat")


def test_the_app_must_name_the_project(write: Write) -> None:
    with pytest.raises(ConfigurationError, match=r"names an unusable file: it has no \"project_id\"; name the project"):
        AccessToken(write())
