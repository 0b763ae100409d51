"""Deliver events: what is due, a few at once, to the one receiver that EVENTS_URL names. Only one run does it at a time."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import Engine

from db.locks import hold
from tasks.events import queue
from tasks.events.queue import Event, Refusal

LOCK = "events:deliver"
RUN_SECONDS = 60
MOST_AT_ONCE = 8
# So often in a row none may be taken before the run ends: an event that its receiver chokes on does not stand for all of them.
MOST_MISSES = 3


def deliver(
    engine: Engine, send: Callable[[Event], Refusal | None], stop: Callable[[], bool] = lambda: False
) -> tuple[int, list[str]]:
    """Send what is due until that is all, or nothing is taken any more. Return how many were taken, and why others were not.

    `send` returns why an event was not taken; a receiver that asks to be left alone ends the run. One is sent at a time until
    one is taken. A run that is killed between an answer and its commit leaves an event that is sent again, with the same
    number. Raise LockedError where another run is at it.
    """
    taken, faults, misses, at_once = 0, list[str](), 0, 1
    ends = time.monotonic() + RUN_SECONDS
    with hold(engine, LOCK), ThreadPoolExecutor(MOST_AT_ONCE) as pool:
        while misses < MOST_MISSES and time.monotonic() < ends and not stop():
            wave = queue.due(engine, at_once) or (queue.due(engine, at_once) if queue.number(engine) else [])
            if not wave:
                break
            tried = [*zip(wave, pool.map(send, wave), strict=True)]
            queue.settle(engine, tried)
            failed = [refusal for _, refusal in tried if refusal]
            taken += len(wave) - len(failed)
            faults += [refusal.why for refusal in failed]
            if any(refusal.wait for refusal in failed):
                break
            misses, at_once = (misses + 1, 1) if len(failed) == len(wave) else (0, MOST_AT_ONCE)
    return taken, faults
