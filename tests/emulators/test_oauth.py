"""Which JWT grants are traded for a bearer, and which bearers may send."""

import time
from typing import Any

import jwt
import orjson
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from pyreqwest.client import SyncClient

from devstack.emulators.client import Emulator, Fault
from tests.processes import wait_until

from .senders import FCM_SCOPE, Reply, Send, bearer, post

GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"


@pytest.fixture
def account(emulator: Emulator) -> dict[str, str]:
    account: dict[str, str] = orjson.loads(emulator.service_account_file.read_bytes())
    return account


@pytest.fixture(scope="module")
def strange_key() -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(encoding, form, serialization.NoEncryption()).decode()


def grant(client: SyncClient, account: dict[str, str], key: str = "", **changes: Any) -> Reply:
    now = int(time.time())
    claims = {"iss": account["client_email"], "aud": account["token_uri"], "iat": now, "exp": now + 3600}
    claims = {name: value for name, value in {**claims, "scope": FCM_SCOPE, **changes}.items() if value is not None}
    assertion = jwt.encode(claims, key or account["private_key"], "RS256")
    return trade(client, account, grant_type=GRANT, assertion=assertion)


def trade(client: SyncClient, account: dict[str, str], **form: str) -> Reply:
    body = "&".join(f"{name}={value}" for name, value in form.items()).encode()
    return post(client, account["token_uri"], {"content-type": "application/x-www-form-urlencoded"}, body)


def test_a_signed_grant_is_answered_with_an_hour_long_bearer(client: SyncClient, account: dict[str, str]) -> None:
    answer = grant(client, account).json()

    assert answer["token_type"] == "Bearer"
    assert answer["expires_in"] == 3600
    assert answer["access_token"].startswith("ya29.")


REASONABLE = "Token must be a short-lived token (60 minutes) and in a reasonable timeframe"


@pytest.mark.parametrize(
    ("changes", "error", "description"),
    [
        ({"aud": "https://example.com/token"}, "invalid_grant", "Invalid JWT: Failed audience check."),
        ({"iss": "stranger@example.com"}, "invalid_grant", "Invalid grant: account not found"),
        ({"exp": 1, "iat": 0}, "invalid_grant", REASONABLE),
        ({"exp": int(time.time()) + 9000}, "invalid_grant", REASONABLE),
        ({"exp": None}, "invalid_grant", REASONABLE),
        ({"scope": "https://www.googleapis.com/auth/drive"}, "invalid_scope", "Invalid OAuth scope"),
        ({"scope": None}, "invalid_scope", "Invalid OAuth scope"),
    ],
)
def test_a_wrong_claim_is_refused(
    client: SyncClient, account: dict[str, str], changes: dict[str, Any], error: str, description: str
) -> None:
    refused = grant(client, account, **changes)

    assert (refused.status, refused.json()["error"]) == (400, error)
    assert description in refused.json()["error_description"]


def test_a_signature_by_another_key_is_refused(client: SyncClient, account: dict[str, str], strange_key: str) -> None:
    assert grant(client, account, strange_key).json() == {
        "error": "invalid_grant",
        "error_description": "Invalid JWT Signature.",
    }


def test_another_grant_type_is_refused(client: SyncClient, account: dict[str, str]) -> None:
    assert trade(client, account, grant_type="password").json()["error"] == "unsupported_grant_type"
    assert trade(client, account, grant_type=GRANT).json()["error"] == "invalid_request"


@pytest.mark.parametrize("credentials", [None, "Basic abc"])
def test_a_request_without_a_bearer_is_unauthenticated(send: Send, credentials: str | None) -> None:
    refused = send({"token": "device"}, credentials=credentials)

    error = refused.json()["error"]
    assert (refused.status, error["code"], error["status"]) == (401, 401, "UNAUTHENTICATED")
    assert error["message"].startswith("Request is missing required authentication credential.")


@pytest.mark.parametrize("credentials", ["Bearer ", "Bearer nonsense", "Bearer ya29.AAAA"])
def test_a_bearer_that_was_never_given_out_is_unauthenticated(send: Send, credentials: str) -> None:
    refused = send({"token": "device"}, credentials=credentials)

    assert refused.status == 401
    assert refused.json()["error"]["message"].startswith("Request had invalid authentication credentials.")


def test_an_expired_bearer_is_unauthenticated(send: Send, emulator: Emulator) -> None:
    assert send({"token": "device"}).status == 200  # the handshake takes none of the short life
    emulator.set(token_lifetime=3)
    credentials = f"Bearer {bearer(emulator)}"

    assert send({"token": "device"}, credentials=credentials).status == 200
    wait_until(lambda: send({"token": "device"}, credentials=credentials).status == 401, "the bearer had expired")
    assert emulator.stats().count("unauthenticated") == 1


def test_a_revoked_bearer_is_unauthenticated_and_a_new_one_is_not(send: Send, emulator: Emulator) -> None:
    emulator.revoke_tokens()

    assert send({"token": "device"}).status == 401
    assert send({"token": "device"}, credentials=f"Bearer {bearer(emulator)}").status == 200


def test_the_token_endpoint_fails_on_command_and_counts_its_calls(
    client: SyncClient, account: dict[str, str], emulator: Emulator
) -> None:
    emulator.inject(Fault(kind="unavailable", provider="oauth", times=1))

    assert [grant(client, account).status for _ in range(2)] == [503, 200]
    assert emulator.stats().requests("oauth") == 2
    assert list(emulator.accepted()) == []
