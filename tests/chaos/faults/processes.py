"""Workers, their children, beat and the gateway: killed, stopped, asked to end, under a wrong clock, of two versions."""

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from devstack.folder import PROJECT
from tasks.notifications.queue import LEASE_SECONDS
from tests.chaos.faults.base import Play, ToothlessError
from tests.chaos.scene import HOST_B

WORKERS = ("notifications", "attachments", "housekeeping", "backups")
# In so many seconds whoever goes on has settled what it had claimed; a worker is stopped so often to find it with rows, which
# the providers' latency sees to.
SETTLED_SECONDS, STOPS, SLOW_SECONDS = 3.0, 10, 1.0
OFFSETS = ("+90s", "-90s", "+2h", "-2h")


def kill_parent(*roles: str) -> Callable[[Play], None]:
    """SIGKILL a main process alone: its children find themselves orphaned until the supervisor comes."""

    def run(play: Play) -> None:
        name = _one(play, roles)
        started = play.scene.fleet.members[name].starts
        play.bit(play.scene.fleet.signal(name, signal.SIGKILL))
        play.killed(name)
        play.scene.fleet.await_started(name, started)
        play.killed(name)

    return run


def kill_all(*roles: str) -> Callable[[Play], None]:
    """SIGKILL a process with its children, as a power cut does."""

    def run(play: Play) -> None:
        name = _one(play, roles)
        started = play.scene.fleet.members[name].starts
        play.bit(play.scene.fleet.signal_all(name, signal.SIGKILL))
        play.killed(name)
        play.scene.fleet.await_started(name, started)

    return run


def signal_child(number: signal.Signals, *roles: str) -> Callable[[Play], None]:
    """Signal one or two children of a pool: SIGKILL, as the kernel's out-of-memory killer does, or SIGTERM, as people do."""

    def run(play: Play) -> None:
        name = _one(play, roles)
        for pid in _children(play, name, play.chance.randint(1, 2)):
            with suppress(ProcessLookupError):
                os.kill(pid, number)
                play.bit()
            play.killed(name)
            play.wait(play.chance.uniform(0, 2))

    return run


def freeze(*roles: str) -> Callable[[Play], None]:
    """SIGSTOP a process with its children for a while, as a hypervisor does."""

    def run(play: Play) -> None:
        name = _one(play, roles)
        play.bit(play.scene.fleet.signal_all(name, signal.SIGSTOP))
        try:
            play.wait(play.chance.uniform(2, 8))
        finally:
            play.scene.fleet.signal_all(name, signal.SIGCONT)

    return run


def freeze_past_lease(*roles: str) -> Callable[[Play], None]:
    """SIGSTOP a process and its children while it has rows claimed, and let it go on when another has taken them over."""

    def run(play: Play) -> None:
        name = _one(play, roles)
        try:
            held = _freeze_with_rows(play, name)
            if held:
                # To its end in any case: a worker that still has its claims when it goes on takes what it missed for lost.
                time.sleep(LEASE_SECONDS + play.chance.uniform(5, 15))
            left = play.scene.leased()
            play.bit(sum(left.get(number) != ends for number, ends in held.items()))
        finally:
            play.event.woke = time.time()
            play.scene.fleet.signal_all(name, signal.SIGCONT)

    return run


def _freeze_with_rows(play: Play, name: str) -> dict[int, float]:
    """Stop a process that has rows claimed which others can take over; return them with the ends of their leases.

    The providers are slow before, so that there are some. Rows that it was just writing stay locked while it is stopped: if it
    has no others it goes on and is stopped again.
    """
    fleet, emulator = play.scene.fleet, play.scene.emulator
    for _ in range(STOPS):
        emulator.set(latency=SLOW_SECONDS)
        play.wait(2 * SLOW_SECONDS)
        fleet.signal_all(name, signal.SIGSTOP)
        play.killed(name)
        emulator.set(latency=0)
        play.wait(SETTLED_SECONDS)
        [*_, (_, before)], now = play.event.in_flight, play.scene.leased(unlocked=True)
        held = {number: ends for number, ends in before.items() if now.get(number) == ends}
        if held or play.over.is_set():
            return held
        fleet.signal_all(name, signal.SIGCONT)
    raise ToothlessError(f"{name} had no row claimed at any of {STOPS} moments")


def freeze_child(*roles: str) -> Callable[[Play], None]:
    """SIGSTOP one child of a pool for a while; its main process and its sisters go on."""

    def run(play: Play) -> None:
        for pid in _children(play, _one(play, roles), 1):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
                play.bit()
                try:
                    play.wait(play.chance.uniform(2, 8))
                finally:
                    os.kill(pid, signal.SIGCONT)

    return run


def terminate(*roles: str) -> Callable[[Play], None]:
    """SIGTERM a main process and await its end in good order and its next start."""

    def run(play: Play) -> None:
        play.bit(play.scene.fleet.roll(_one(play, roles)))

    return run


def move_clock(*roles: str) -> Callable[[Play], None]:
    """Run a process under a wrong clock for a while."""

    def run(play: Play) -> None:
        name = _one(play, roles)
        play.scene.fleet.roll(name, clock=play.chance.choice(OFFSETS))
        try:
            play.wait(play.chance.uniform(6, 12))
            play.bit(_is_under_faketime(play.scene.fleet.pid(name)))
        finally:
            play.scene.fleet.roll(name, clock="")

    return run


def roll(play: Play) -> None:
    """Restart both notifications workers and both beats one by one; host B runs the old version for a while, if any."""
    fleet, old = play.scene.fleet, play.scene.old_code
    written = fleet.log("notifications-b").stat().st_size
    for name in HOST_B:
        play.bit(fleet.roll(name, code=old or PROJECT))
    starts = [fleet.members[name].starts for name in HOST_B]
    try:
        ready = fleet.await_ready("notifications-b", written)
        fleet.roll("notifications-a")
        play.wait(play.chance.uniform(2, 5))
        fleet.roll("beat-a")
        # Another fault may kill the beat meanwhile, but not twice.
        again = [fleet.members[name].starts - started for name, started in zip(HOST_B, starts, strict=True)]
        if not ready or again[0] or again[1] > 1:
            raise ToothlessError(f"{' and '.join(HOST_B)} did not stay up; their logs say why")
    finally:
        for name in HOST_B:
            fleet.roll(name, code=PROJECT)


def _one(play: Play, roles: tuple[str, ...]) -> str:
    """Draw a member of these roles and wait until it is up."""
    fleet = play.scene.fleet
    name = play.chance.choice([name for role in roles for name in fleet.names(role)])
    play.until(lambda: fleet.pid(name))
    return name


def _children(play: Play, name: str, most: int) -> list[int]:
    """Draw so many children of a member's pool at most; wait until it has one."""
    fleet = play.scene.fleet
    play.until(lambda: fleet.children(name))
    children = fleet.children(name)
    return play.chance.sample(children, min(len(children), most))


def _is_under_faketime(pid: int | None) -> bool:
    with suppress(OSError):
        return "libfaketime" in Path(f"/proc/{pid}/maps").read_text()
    return False
