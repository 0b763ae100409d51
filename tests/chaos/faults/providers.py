"""The push providers: down, slow, half-open, resetting, cutting answers, lying, refusing us, throttling."""

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from devstack.chat import LIVE
from devstack.emulators.client import EmulatorError, Fault, ProviderName
from tests.chaos.faults.base import Play
from tests.chaos.proxy import Mode

# What the emulator counts a request under whose bearer it does not know.
UNKNOWN_BEARER = "unauthenticated"


def answer(
    kind: str,
    provider: ProviderName = "fcm",
    *,
    seconds: tuple[float, float] = (2, 8),
    revoking: bool = False,
    **options: Any,
) -> Callable[[Play], None]:
    """Have the emulator answer so for a while, `revoking` the bearers it gave out; `options` are those of its faults."""

    def run(play: Play) -> None:
        emulator = play.scene.emulator
        rules = emulator.inject(Fault(kind=kind, provider=provider, seed=play.chance.randrange(1000), **options))
        try:
            if revoking:
                emulator.revoke_tokens()
            play.wait(play.chance.uniform(*seconds))
            play.until(lambda: _hits(play, rules))
            play.bit(_hits(play, rules))
        finally:
            with suppress(EmulatorError):  # all rules were cleared meanwhile
                emulator.clear(*rules)
            # What is still out is taken when its answer is due, though nobody waits for it any more.
            time.sleep(options.get("latency", 0))

    return run


def network(mode: Mode, *, seconds: tuple[float, float] = (2, 8), hosts: str = "ab") -> Callable[[Play], None]:
    """Do this to the network between the workers and all providers, for both hosts or for one."""

    def run(play: Play) -> None:
        _hinder(play, [f"provider-{host}" for host in hosts], mode, seconds)

    return run


def partition(*services: str, mode: Mode) -> Callable[[Play], None]:
    """Cut host B off from some services, while host A goes on."""

    def run(play: Play) -> None:
        _hinder(play, [f"{service}-b" for service in services], mode, (2, 10))

    return run


def revoke(play: Play) -> None:
    """Make every bearer that Google has given out unknown."""
    play.until(lambda: play.scene.emulator.stats().count("accepted"))
    before = _unknown_bearers(play)
    play.scene.emulator.revoke_tokens()
    play.until(lambda: _unknown_bearers(play) > before)
    play.bit(_unknown_bearers(play) - before)


def _hinder(play: Play, networks: list[str], mode: Mode, seconds: tuple[float, float]) -> None:
    """Have networks in a mode for a while, from when there is a connection on them."""
    proxies = [play.scene.network[name] for name in networks]
    play.until(lambda: any(proxy.connections for proxy in proxies))
    before = sum(proxy.hindered for proxy in proxies)
    for proxy in proxies:
        proxy.set(mode)
    try:
        play.wait(play.chance.uniform(*seconds))
    finally:
        play.bit(sum(proxy.hindered for proxy in proxies) - before)
        for proxy in proxies:
            proxy.set(Mode.OPEN)


def _hits(play: Play, rules: list[int]) -> int:
    hits = play.scene.emulator.hits()
    return sum(hits.get(rule, 0) for rule in rules)


def _unknown_bearers(play: Play) -> int:
    return play.scene.emulator.stats().count(UNKNOWN_BEARER)


# Only phones that live: what a dead one is answered says that it is dead.
PHONES = f"{LIVE}*"
