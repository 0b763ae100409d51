"""Redis away or hanging: an answer within about a second that says what happens, and work as before when it is back."""

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from redis import Redis
from starlette.types import Receive, Scope, Send

from devstack.stack import Stack
from settings import get_settings
from workers.gateway import tokens
from workers.gateway.app import make_app
from workers.gateway.broker import DEADLINE_SECONDS, MOST_WAITING

from .conftest import Gateway, Queue

# Far more than the gateway's deadline, far less than what a Redis that hangs would take: nothing here measures speed.
PATIENCE_SECONDS = 10 * DEADLINE_SECONDS


@pytest.fixture(params=["hangs", "is gone"])
def broken(request: pytest.FixtureRequest, stack: Stack, gateway: Gateway) -> Iterator[str]:
    """A Redis that does not answer, until the test is over."""
    if request.param == "hangs":
        stack.redis.pause()
    else:
        stack.redis.kill()
    yield request.param
    mend(stack)


def mend(stack: Stack) -> None:
    stack.redis.resume()
    if not stack.redis.running:
        stack.redis.start()


def post(gateway: Gateway, token: str) -> httpx.Response:
    return httpx.post(
        f"{gateway.url}/v1/jobs/notifications", headers={"Authorization": f"Bearer {token}"}, timeout=PATIENCE_SECONDS
    )


def test_an_answer_comes_within_the_deadline_and_the_next_one_after_redis_is_back_is_good(
    gateway: Gateway, token: str, stack: Stack, broken: str, notifications: Queue
) -> None:
    answers = [post(gateway, token), gateway.post("attachments", token, {"attachment_id": 1})]
    for answer, sweep in zip(answers, ("every 5 s", "every 10 s"), strict=True):
        assert answer.status_code == 503
        assert int(answer.headers["Retry-After"]) > 0
        assert "Nothing is lost" in answer.json()["detail"]
        assert sweep in answer.json()["detail"]
    mend(stack)
    assert post(gateway, token).status_code == 202


def test_many_who_ask_a_redis_that_hangs_all_get_an_answer_and_other_pages_are_served_meanwhile(
    gateway: Gateway, token: str, stack: Stack
) -> None:
    stack.redis.pause()
    try:
        began = time.monotonic()
        with ThreadPoolExecutor(60) as threads:
            asked = [threads.submit(gateway.post, "attachments", token, {"attachment_id": each}) for each in range(1, 61)]
            assert httpx.get(f"{gateway.url}/healthz", timeout=PATIENCE_SECONDS).status_code == 200
            assert {each.result().status_code for each in asked} == {503}
        assert time.monotonic() - began < PATIENCE_SECONDS
    finally:
        stack.redis.resume()
    assert gateway.post("attachments", token, {"attachment_id": 1}).status_code == 202
    assert "Traceback" not in gateway.log.read_text()


def test_more_requests_than_may_wait_for_redis_are_told_so_and_to_come_back_in_a_second(
    environment: dict[str, str], stack: Stack, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In this process, so that all of them are there before the first one's second is over."""
    monkeypatch.setenv("GATEWAY_TOKENS_FILE", str(tmp_path / "tokens"))
    monkeypatch.setenv("ATTACHMENTS_URL", "file:///srv/uploads")
    headers = {"Authorization": f"Bearer {tokens.issue(tmp_path / 'tokens', 'test')}"}
    get_settings.cache_clear()
    app = make_app()

    async def scene() -> list[httpx.Response]:
        async with app.router.lifespan_context(app) as state:

            async def served(scope: Scope, receive: Receive, send: Send) -> None:
                await app({**scope, "state": {**(state or {})}}, receive, send)

            async with httpx.AsyncClient(transport=httpx.ASGITransport(served), base_url="http://gateway") as client:
                return await asyncio.gather(
                    *(client.post("/v1/jobs/attachments", headers=headers, json={"key": 1}) for _ in range(MOST_WAITING + 1))
                )

    stack.redis.pause()
    try:
        answers = asyncio.run(scene())
    finally:
        stack.redis.resume()
        get_settings.cache_clear()
    assert {answer.status_code for answer in answers} == {503}
    busy = [answer for answer in answers if "Too many requests are waiting for Redis" in answer.json()["detail"]]
    assert [answer.headers["Retry-After"] for answer in busy] == ["1"]


def test_a_connection_that_ended_while_it_was_idle_costs_no_nudge(gateway: Gateway, token: str, redis: Redis) -> None:
    assert post(gateway, token).status_code == 202
    redis.client_kill_filter(_type="normal", skipme=True)
    assert post(gateway, token).status_code == 202


def test_a_gateway_starts_while_redis_is_down(gateway: Gateway, stack: Stack, another: Callable[..., Gateway]) -> None:
    stack.redis.kill()
    try:
        fresh = another()
        token = fresh.token()
        assert post(fresh, token).status_code == 503
    finally:
        mend(stack)
    assert post(fresh, token).status_code == 202
