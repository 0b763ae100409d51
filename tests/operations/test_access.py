"""/metrics and /status are for operators: open on loopback, shut elsewhere, opened by a token; health tells nobody anything."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from settings import get_settings
from workers.gateway.admission import is_loopback

TOKEN = "an-operators-token-of-some-length"
ROUTES = ("/metrics", "/status", "/runbook")


@pytest.fixture
def set_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[pytest.MonkeyPatch]:
    """The environment, changed for this test only."""
    yield monkeypatch
    get_settings.cache_clear()


def change(patch: pytest.MonkeyPatch, **variables: str) -> None:
    for name, value in variables.items():
        patch.setenv(name, value)
    get_settings.cache_clear()


@pytest.mark.parametrize("route", ROUTES)
def test_loopback_is_open(gateway: TestClient, route: str) -> None:
    assert gateway.get(route).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "10.0.0.1", "x@localhost.evil"]
)
@pytest.mark.parametrize("route", ROUTES)
def test_loopback_is_shut_to_other_names_that_point_there(gateway: TestClient, route: str, host: str) -> None:
    assert gateway.get(route, headers={"Host": host}).status_code == 403
    for own in ("localhost", "localhost:8080", "127.0.0.1:8080", "[::1]:8080"):
        assert gateway.get(route, headers={"Host": own}).status_code == 200


@pytest.mark.parametrize("route", ROUTES)
def test_any_other_address_is_shut_without_a_token_file(gateway: TestClient, set_up: pytest.MonkeyPatch, route: str) -> None:
    change(set_up, GATEWAY_ADDRESS="0.0.0.0")  # noqa: S104
    answer = gateway.get(route)
    assert answer.status_code == 403
    assert "GATEWAY_OPERATIONS_TOKEN_FILE" in answer.json()["detail"]


@pytest.mark.parametrize("route", ROUTES)
def test_with_a_token_file_only_the_token_opens(
    gateway: TestClient, set_up: pytest.MonkeyPatch, tmp_path: Path, route: str
) -> None:
    path = tmp_path / "token"
    path.touch(0o600)
    path.write_text(f"{TOKEN}\n")
    change(set_up, GATEWAY_ADDRESS="0.0.0.0", GATEWAY_OPERATIONS_TOKEN_FILE=str(path))  # noqa: S104
    refused = gateway.get(route)
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"].startswith("Basic ")
    assert gateway.get(route, headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
    assert gateway.get(route, auth=("anyone", TOKEN)).status_code == 200
    wrong = ("Bearer", "Bearer ", f"Bearer {TOKEN}x", "Basic !", "Basic /w==", f"Digest {TOKEN}", TOKEN)
    for header in (*wrong, "Bearer schön", "Basic schön"):
        assert gateway.get(route, headers={"Authorization": header.encode()}).status_code == 401, header
    path.write_text("another-token-of-some-length\n")
    assert gateway.get(route, headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 401


def test_strangers_who_try_tokens_are_slowed_down_and_lock_no_operator_out(
    gateway: TestClient, set_up: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "token"
    path.touch(0o600)
    path.write_text(f"{TOKEN}\n")
    change(set_up, GATEWAY_OPERATIONS_TOKEN_FILE=str(path), GATEWAY_REFUSALS_PER_MINUTE="3")
    tries = [gateway.get(route, auth=("root", f"guess-{route}")) for route in ROUTES[:2] * 2]
    assert [answer.status_code for answer in tries] == [401, 401, 401, 429]
    assert 1 <= int(tries[-1].headers["Retry-After"]) <= 20
    assert gateway.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200


def test_a_parameter_that_is_none_is_said_as_every_other_refusal_is(gateway: TestClient) -> None:
    answer = gateway.get("/status?refresh=sometimes")
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    assert answer.json()["detail"] == "refresh: Input should be 'on' or 'off'."


@pytest.mark.parametrize("content", [None, "", "short\n", b"\xff" * 40])
def test_a_token_file_that_cannot_be_used_opens_nothing(
    gateway: TestClient, set_up: pytest.MonkeyPatch, tmp_path: Path, content: str | bytes | None
) -> None:
    path = tmp_path / "token"
    if content is not None:
        path.touch(0o600)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    change(set_up, GATEWAY_OPERATIONS_TOKEN_FILE=str(path))
    for header in ({}, {"Authorization": "Bearer "}, {"Authorization": "Bearer short"}):
        assert gateway.get("/metrics", headers=header).status_code == 503


def test_a_token_file_that_every_user_may_read_opens_nothing(
    gateway: TestClient, set_up: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "token"
    path.write_text(TOKEN)
    change(set_up, GATEWAY_OPERATIONS_TOKEN_FILE=str(path))
    for mode, status in ((0o644, 503), (0o640, 200)):
        path.chmod(mode)
        assert gateway.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == status


def test_health_is_open_and_says_no_more_than_a_word(gateway: TestClient, set_up: pytest.MonkeyPatch) -> None:
    change(set_up, GATEWAY_ADDRESS="0.0.0.0")  # noqa: S104
    assert gateway.get("/healthz").text == "ok\n"
    assert gateway.get("/readyz").text == "database: ok\nbroker: ok\n"
    assert [gateway.head(path).status_code for path in ("/healthz", "/readyz")] == [200, 200]


@pytest.mark.parametrize(
    ("address", "open_to_this_machine_only"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("[::1]", True),
        ("localhost", True),
        ("0.0.0.0", False),  # noqa: S104
        ("::", False),
        ("10.0.0.1", False),
        ("gateway.internal", False),
        ("", False),
    ],
)
def test_what_counts_as_loopback(address: str, open_to_this_machine_only: bool) -> None:
    assert is_loopback(address) is open_to_this_machine_only
