"""Whatever the token endpoint answers, there is a token that can be sent, or a sentence that opens the breaker."""

import asyncio
import gzip
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devstack.emulators.oauth import ensure_service_account
from tasks.notifications.providers import google_token
from tasks.notifications.providers.google_token import REFRESH_AHEAD_SECONDS, AccessToken, CredentialsError
from tests.trickle import ENDLESS, trickling

from .made import json_values

WORDS = ("access_token", "expires_in", "token_type", "error", "error_description", "id_token", "3599", "ya29.good")

Answers = Callable[..., AccessToken]


@pytest.fixture(scope="module")
def answered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Answers]:
    """Return a fresh AccessToken whose endpoint gives these answers, status and bytes, one after another."""
    waiting: Iterator[tuple[int, bytes]] = iter(())

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            assert form["grant_type"] == ["urn:ietf:params:oauth:grant-type:jwt-bearer"]
            assert self.headers["Accept-Encoding"] == "identity"
            status, data = next(waiting)
            self.send_response(status)
            if data.startswith(b"\x1f\x8b"):
                self.send_header("Content-Encoding", "gzip")
            if status != 204:
                self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(b"" if status == 204 else data)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=[0.05], daemon=True).start()
    folder = tmp_path_factory.mktemp("account")
    ensure_service_account(folder, f"http://127.0.0.1:{server.server_port}/token")

    def make(*answers: tuple[int, bytes]) -> AccessToken:
        nonlocal waiting
        waiting = iter(answers)
        return AccessToken(folder / "service-account.json")

    yield make
    server.shutdown()
    server.server_close()


def grant(**changes: Any) -> tuple[int, bytes]:
    return 200, json.dumps({"access_token": "ya29.good", "expires_in": 3599, "token_type": "Bearer"} | changes).encode()


ANSWERS: dict[str, tuple[int, bytes]] = {
    "a page": (200, b"<html>Log in to the Wi-Fi</html>"),
    "a list": (200, b"[]"),
    "null": (200, b"null"),
    "no token": (200, b'{"expires_in": 3599}'),
    "no end": (200, b'{"access_token": "ya29.good"}'),
    "an end in words": grant(expires_in="soon"),
    "an end beyond all time": grant(expires_in=1e99),
    "an end that has passed": grant(expires_in=-1),
    "an empty token": grant(access_token=""),
    "a token that is none": grant(access_token=None),
    "a token of two lines": grant(access_token="ya29\r\nx-other: 1"),
    "a token beyond ASCII": grant(access_token="ya29é"),
    "no text": (200, b"\xff\xfe\x00"),
    "an error without text": (500, b"\xff\xfe\x00"),
    "an error that a terminal obeys": (400, json.dumps({"error": "\x1b]0;owned\x07\n"}).encode()),
    "a list of errors": (400, b"[]"),
    "a page of an error": (404, b"<html>"),
    "a token packed, though it was asked for as it is": (200, gzip.compress(grant()[1])),
    "more than 64 KiB": (200, grant()[1][:-1] + b" " * 70_000 + b"}"),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_without_a_usable_token_is_a_credentials_fault(answered: Answers, name: str) -> None:
    tokens = answered(ANSWERS[name])
    for _ in range(2):  # the second is told without asking again
        with pytest.raises(CredentialsError, match="no access token from Google: ") as raised:
            asyncio.run(tokens.get())
        assert str(raised.value).isprintable()


def test_an_answer_that_would_swell_is_not_unpacked(answered: Answers) -> None:
    packed = gzip.compress(grant()[1][:-1] + bytes(300_000_000), 1)
    with pytest.raises(CredentialsError, match="no access token from Google: "):
        asyncio.run(answered((200, packed)).get())


@given(
    st.sampled_from([200, 201, 204, 302, 400, 401, 403, 404]),
    st.binary(max_size=200)
    | json_values(WORDS).map(lambda value: json.dumps(value).encode())
    | st.builds(lambda token, end: grant(access_token=token, expires_in=end)[1], json_values(WORDS), json_values(WORDS)),
)
def test_any_answer_ends_in_a_token_or_a_credentials_fault(answered: Answers, status: int, data: bytes) -> None:
    try:
        token = asyncio.run(answered((status, data)).get())
    except CredentialsError:
        return
    assert token.isascii()
    assert token.isprintable()
    assert " " not in token


def test_a_token_of_a_few_minutes_is_kept_for_half_of_them(answered: Answers) -> None:
    tokens = answered(grant(expires_in=60), grant(access_token="ya29.new"))

    async def ask() -> list[str]:
        return await asyncio.gather(*(tokens.get() for _ in range(100)))

    assert asyncio.run(ask()) == ["ya29.good"] * 100


def test_the_old_token_is_used_while_it_is_good_and_no_new_one_is_to_be_had(
    answered: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(google_token, "REFRESH_AHEAD_SHARE", 1)  # good, and to be renewed from the start
    tokens = answered(grant(expires_in=REFRESH_AHEAD_SECONDS), ANSWERS["a page"], grant(access_token="ya29.new"))

    async def ask() -> list[str]:
        found = [await tokens.get() for _ in range(3)]
        monkeypatch.setattr(google_token, "FAILURE_HOLDS_SECONDS", 0)
        return [*found, await tokens.get()]

    assert asyncio.run(ask()) == ["ya29.good", "ya29.good", "ya29.good", "ya29.new"]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("what", ENDLESS)
def test_a_token_endpoint_that_trickles_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    monkeypatch.setattr(google_token, "CALL_SECONDS", 1.0)
    with trickling(what) as server:
        ensure_service_account(tmp_path, f"http://127.0.0.1:{server.address[1]}/token")
        tokens = AccessToken(tmp_path / "service-account.json")

        async def ask() -> None:
            waiting = [tokens.get() for _ in range(100)]
            refused = await asyncio.gather(*waiting, return_exceptions=True)
            assert {type(error) for error in refused} == {CredentialsError}

        asyncio.run(ask())
        assert server.asked <= 1
