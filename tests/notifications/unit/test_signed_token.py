"""Provider tokens age by a clock that nobody sets; one that was signed under a wrong clock is signed again when that is set."""

import time
from collections.abc import Callable

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tasks.notifications.providers.signed_token import SignedToken

HOUR = 3600.0
Clocks = Callable[..., None]


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    """Let time pass, and set the wall clock."""
    wall, steady = time.time(), time.monotonic()

    def move(*, passed: float = 0, wall_set_by: float = 0) -> None:
        nonlocal wall, steady
        wall, steady = wall + passed + wall_set_by, steady + passed
        monkeypatch.setattr(time, "time", lambda: wall)
        monkeypatch.setattr(time, "monotonic", lambda: steady)

    move()
    return move


@pytest.fixture
def token() -> SignedToken:
    return SignedToken(ec.generate_private_key(ec.SECP256R1()), lambda now: {"iat": now}, seconds=0.75 * HOUR)


def age(token: SignedToken) -> float:
    """How old the provider takes the token for, whose own clock is right."""
    issued: float = jwt.decode(token.get(), options={"verify_signature": False})["iat"]
    return time.time() - issued


def test_a_token_is_kept_for_its_time_and_signed_again_after_it(token: SignedToken, clocks: Clocks) -> None:
    first = token.get()
    clocks(passed=0.7 * HOUR)
    assert token.get() == first
    clocks(passed=0.1 * HOUR)
    assert token.get() != first


@pytest.mark.parametrize("wrong_by", [9 * HOUR, -9 * HOUR, 60.0])
def test_a_token_of_a_wrong_clock_ends_when_the_clock_is_set(token: SignedToken, clocks: Clocks, wrong_by: float) -> None:
    clocks(wall_set_by=wrong_by)
    token.get()
    clocks(passed=1, wall_set_by=-wrong_by)
    assert 0 <= age(token) < 2


def test_a_clock_that_is_slewed_by_seconds_costs_no_new_token(token: SignedToken, clocks: Clocks) -> None:
    first = token.get()
    for _ in range(8):
        clocks(passed=300, wall_set_by=2)
    assert token.get() == first


def test_a_refused_token_is_signed_again_unless_it_is_young(token: SignedToken, clocks: Clocks) -> None:
    first = token.get()
    clocks(passed=60)
    token.reject(first, oldest=1200)
    assert token.get() == first
    clocks(passed=1200, wall_set_by=-10)
    token.reject(first, oldest=1200)
    assert token.get() != first
