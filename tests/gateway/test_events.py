"""`GET /v1/events?after=…`: every event once, in the order of its number, for the API's tokens and the operators'."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine

from tasks import outbox
from tests.processes import PLAIN

from .conftest import Gateway

OPERATORS = "an-operators-token"
Reading = Callable[..., httpx.Response]


@pytest.fixture
def guarded(another: Callable[..., Gateway], tmp_path: Path) -> Gateway:
    (tmp_path / "operations").write_text(OPERATORS)
    (tmp_path / "operations").chmod(0o600)
    return another(GATEWAY_OPERATIONS_TOKEN_FILE=str(tmp_path / "operations"))


def read(gateway: Gateway, token: str = OPERATORS, **parameters: int) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.get(f"{gateway.url}/v1/events", headers=headers, params=parameters, timeout=20, verify=PLAIN)


def test_a_reader_goes_on_behind_the_last_and_misses_none(gateway: Gateway, token: str, chat: Engine) -> None:
    def happen(*names: str) -> None:
        with chat.begin() as connection:
            outbox.emit(connection, "breaker.opened", *({"provider": name} for name in names))

    seen, after, more = list[Any](), 0, True
    with chat.connect() as late:
        outbox.emit(late, "breaker.opened", {"provider": "late"})
        happen("a", "b", "c")
        while more:
            page = read(gateway, token, after=after, limit=2).json()
            seen += page["events"]
            after, more = seen[-1]["number"], page["more"]
        late.commit()
    happen("d")
    seen += read(gateway, token, after=after).json()["events"]
    assert [event["data"]["provider"] for event in seen] == ["a", "b", "c", "late", "d"]
    assert [event["number"] for event in seen] == sorted({event["number"] for event in seen})
    assert read(gateway, token, after=seen[-1]["number"]).json() == {"events": [], "more": False}


def test_tokens_for_events_and_for_everything_may_read_and_others_not(guarded: Gateway, chat: Engine) -> None:
    allowed = [OPERATORS, guarded.token(), guarded.token(jobs=frozenset({"events"}))]
    assert [read(guarded, token).status_code for token in allowed] == [200, 200, 200]
    refused = [guarded.token(jobs=frozenset({"notifications"})), "nobody's", "cw_nobodys"]
    assert [read(guarded, token).status_code for token in refused] == [403, 401, 401]
    assert guarded.post("notifications", allowed[2]).status_code == 403
    assert read(guarded, after=-1).status_code == 422
