"""Connections end, stall and fill up, tokens run out: no row loses its result for it."""

import asyncio
from collections.abc import Iterator

import pytest

from devstack.emulators.client import Emulator, Fault
from devstack.stack import Stack
from settings import get_settings
from tasks.notifications import run
from tasks.notifications.providers import google_token
from tasks.notifications.providers.google_token import REFRESH_AHEAD_SECONDS, AccessToken
from tests.notifications.conftest import Accepted, Chat, forget_process


def worker_with(name: str, value: str) -> Iterator[None]:
    """Have this process be a worker that was started with a variable of the environment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(name, value)
        get_settings.cache_clear()
        forget_process()
        yield
    get_settings.cache_clear()
    forget_process()


@pytest.fixture
def three_connections(environment: dict[str, str]) -> Iterator[None]:
    """A worker with three connections' worth of requests in flight."""
    yield from worker_with("NOTIFICATIONS_IN_FLIGHT", "300")


@pytest.fixture
def short_deadline(environment: dict[str, str]) -> Iterator[None]:
    """A worker that waits a few seconds for an answer."""
    yield from worker_with("NOTIFICATIONS_REQUEST_SECONDS", "3")


def test_more_in_flight_than_a_connection_has_streams_costs_no_result(
    three_connections: None, api: Chat, emulator: Emulator, accepted: Accepted
) -> None:
    row = api.notify(*(f"phone-{number}" for number in range(900)))
    emulator.set(latency=0.05)
    run.drain()
    assert api.status(row) == ("SENT", 1, None)
    assert len(accepted()) == 900


def test_a_connection_that_the_provider_closed_costs_no_attempt(api: Chat, emulator: Emulator, stack: Stack) -> None:
    api.notify("phone")
    run.drain()
    stack.fcm.restart()
    row = api.notify("phone")
    run.drain()
    assert api.status(row) == ("SENT", 1, None)


def test_a_provider_that_goes_silent_costs_a_deadline_and_the_rows_are_sent_later(
    short_deadline: None, api: Chat, emulator: Emulator, stack: Stack
) -> None:
    api.notify("phone")
    run.drain()
    rows = [api.notify("phone") for _ in range(5)]
    stack.fcm.pause()
    try:
        run.drain()
        for row in rows:
            status, _, why = api.status(row)
            assert status == "FAILED"
            assert "no answer" in (why or "")
    finally:
        stack.fcm.resume()
    api.let_pass(30)
    run.retry_failed()
    assert {api.status(row) for row in rows} == {("SENT", 1, None)}


def test_however_many_messages_one_token_is_asked_for(api: Chat, emulator: Emulator) -> None:
    forget_process()
    api.notify(*(f"phone-{number}" for number in range(300)))
    run.drain()
    assert emulator.stats().requests("oauth") == 1


def test_a_token_is_renewed_ahead_of_its_end_once_while_the_others_go_on_with_the_old_one(
    environment: dict[str, str], emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(google_token, "REFRESH_AHEAD_SHARE", 1)  # good, and to be renewed from the start
    emulator.set(token_lifetime=REFRESH_AHEAD_SECONDS)
    tokens = AccessToken(emulator.service_account_file)

    async def ask() -> tuple[str, list[str]]:
        first = await tokens.get()
        emulator.set(token_lifetime=3600)
        emulator.inject(Fault(provider="oauth", kind="slow", latency=0.5))  # or the new one may be there before the second asks
        return first, await asyncio.gather(*(tokens.get() for _ in range(50)))

    first, after = asyncio.run(ask())
    assert emulator.stats().requests("oauth") == 2
    assert after.count(first) == 49


def test_a_provider_that_is_away_as_a_process_starts_is_asked_again_by_its_first_row(
    api: Chat, emulator: Emulator, stack: Stack
) -> None:
    forget_process()
    stack.fcm.pause()
    try:
        run.warm()
    finally:
        stack.fcm.resume()
    row = api.notify("phone")
    run.drain()
    assert api.status(row) == ("SENT", 1, None)


def test_a_warm_connection_that_the_provider_closed_costs_the_first_row_no_pause(
    api: Chat, emulator: Emulator, stack: Stack
) -> None:
    forget_process()
    run.warm()
    stack.fcm.restart()
    row = api.notify("phone")
    run.drain()
    assert api.status(row) == ("SENT", 1, None)
    _, providers = run._process()
    [origin] = [origin for origin in providers["fcm"]._transport._origins.values() if origin]  # type: ignore[attr-defined]
    assert origin.dial_at < origin.connections[0]._made_at
