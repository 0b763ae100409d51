"""The push providers: down, slow, half-open, resetting, cutting answers, lying, refusing us, throttling."""

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from devstack.chat import LIVE
from devstack.emulators.client import EmulatorError, Fault, ProviderName
from tests.chaos.faults.base import Play
from tests.chaos.proxy import Mode


def answer(
    kind: str, provider: ProviderName = "fcm", *, seconds: tuple[float, float] = (2, 8), **options: Any
) -> Callable[[Play], None]:
    """Have the emulator answer so for a while; `options` are those of its faults."""

    def run(play: Play) -> None:
        emulator = play.scene.emulator
        rules = emulator.inject(Fault(kind=kind, provider=provider, seed=play.chance.randrange(1000), **options))
        try:
            play.wait(play.chance.uniform(*seconds))
        finally:
            with suppress(EmulatorError):  # all rules were cleared meanwhile
                emulator.clear(*rules)
            # What is still out is taken when its answer is due, though nobody waits for it any more.
            time.sleep(options.get("latency", 0))

    return run


def network(mode: Mode, *, seconds: tuple[float, float] = (2, 8), hosts: str = "ab") -> Callable[[Play], None]:
    """Do this to the network between the workers and all providers, for both hosts or for one."""

    def run(play: Play) -> None:
        proxies = [play.scene.network[f"provider-{host}"] for host in hosts]
        for proxy in proxies:
            proxy.set(mode)
        try:
            play.wait(play.chance.uniform(*seconds))
        finally:
            for proxy in proxies:
                proxy.set(Mode.OPEN)

    return run


def partition(*services: str, mode: Mode) -> Callable[[Play], None]:
    """Cut host B off from some services, while host A goes on."""

    def run(play: Play) -> None:
        proxies = [play.scene.network[f"{service}-b"] for service in services]
        for proxy in proxies:
            proxy.set(mode)
        try:
            play.wait(play.chance.uniform(2, 10))
        finally:
            for proxy in proxies:
                proxy.set(Mode.OPEN)

    return run


def revoke(play: Play) -> None:
    """Make every bearer that Google has given out unknown."""
    play.scene.emulator.revoke_tokens()


# Only phones that live: what a dead one is answered says that it is dead.
PHONES = f"{LIVE}*"
