"""Workers, their children, beat and the gateway: killed, stopped, asked to end, under a wrong clock, of two versions."""

import os
import signal
from collections.abc import Callable
from contextlib import suppress

from devstack.folder import PROJECT
from tests.chaos.faults.base import Play

WORKERS = ("notifications", "attachments", "housekeeping", "backups")
OFFSETS = ("+90s", "-90s", "+2h", "-2h")


def kill_parent(*roles: str) -> Callable[[Play], None]:
    """SIGKILL a main process alone: its children find themselves orphaned until the supervisor comes."""

    def run(play: Play) -> None:
        name = _one(play, roles)
        started = play.scene.fleet.members[name].starts
        play.scene.fleet.signal(name, signal.SIGKILL)
        play.killed()
        play.scene.fleet.await_started(name, started)
        play.killed()

    return run


def kill_all(*roles: str) -> Callable[[Play], None]:
    """SIGKILL a process with its children, as a power cut does."""

    def run(play: Play) -> None:
        name = _one(play, roles)
        started = play.scene.fleet.members[name].starts
        play.scene.fleet.signal_all(name, signal.SIGKILL)
        play.killed()
        play.scene.fleet.await_started(name, started)

    return run


def kill_child(*roles: str) -> Callable[[Play], None]:
    """SIGKILL one or two children of a pool, as the kernel's out-of-memory killer does."""

    def run(play: Play) -> None:
        children = play.scene.fleet.children(_one(play, roles))
        for pid in play.chance.sample(children, min(len(children), play.chance.randint(1, 2))):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            play.killed()
            play.wait(play.chance.uniform(0, 2))

    return run


def freeze(*roles: str) -> Callable[[Play], None]:
    """SIGSTOP a process with its children for a while, as a hypervisor does."""

    def run(play: Play) -> None:
        name = _one(play, roles)
        play.scene.fleet.signal_all(name, signal.SIGSTOP)
        try:
            play.wait(play.chance.uniform(2, 8))
        finally:
            play.scene.fleet.signal_all(name, signal.SIGCONT)

    return run


def terminate(*roles: str) -> Callable[[Play], None]:
    """SIGTERM a main process and await its end in good order and its next start."""

    def run(play: Play) -> None:
        play.scene.fleet.roll(_one(play, roles))

    return run


def move_clock(*roles: str) -> Callable[[Play], None]:
    """Run a process under a wrong clock for a while."""

    def run(play: Play) -> None:
        name = _one(play, roles)
        play.scene.fleet.roll(name, clock=play.chance.choice(OFFSETS))
        try:
            play.wait(play.chance.uniform(6, 12))
        finally:
            play.scene.fleet.roll(name, clock="")

    return run


def roll(play: Play) -> None:
    """Restart both notifications workers and both beats one by one; host B runs the old version for a while, if any."""
    fleet, old = play.scene.fleet, play.scene.old_code
    for name in ("notifications-b", "beat-b"):
        fleet.roll(name, code=old or PROJECT)
    try:
        fleet.roll("notifications-a")
        play.wait(play.chance.uniform(2, 5))
        fleet.roll("beat-a")
    finally:
        for name in ("notifications-b", "beat-b"):
            fleet.roll(name, code=PROJECT)


def _one(play: Play, roles: tuple[str, ...]) -> str:
    fleet = play.scene.fleet
    return play.chance.choice([name for role in roles for name in fleet.names(role)])
