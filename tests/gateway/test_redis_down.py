"""Redis away or hanging: an answer within about a second that says what happens, and work as before when it is back."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from redis import Redis

from devstack.stack import Stack
from tests.processes import PLAIN
from workers.gateway.broker import DEADLINE_SECONDS

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
        f"{gateway.url}/v1/jobs/notifications",
        headers={"Authorization": f"Bearer {token}"},
        timeout=PATIENCE_SECONDS,
        verify=PLAIN,
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
            assert httpx.get(f"{gateway.url}/healthz", timeout=PATIENCE_SECONDS, verify=PLAIN).status_code == 200
            assert {each.result().status_code for each in asked} == {503}
        assert time.monotonic() - began < PATIENCE_SECONDS
    finally:
        stack.redis.resume()
    assert gateway.post("attachments", token, {"attachment_id": 1}).status_code == 202
    assert "Traceback" not in gateway.log.read_text()


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
