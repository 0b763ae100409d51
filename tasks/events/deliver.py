"""Deliver events: what is due, a few at once, to the one receiver that EVENTS_URL names. Only one run does it at a time.

Each is signed so that the receiver can verify it (https://www.standardwebhooks.com).
"""

import base64
import hashlib
import hmac
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import orjson
from sqlalchemy import Engine

from db.locks import hold
from settings import ConfigurationError, Settings
from tasks.events import queue
from tasks.events.queue import Event, Refusal
from tasks.http import NoAnswerError, Server, retry_after

LOCK = "events:deliver"
RUN_SECONDS = 60
MOST_AT_ONCE = 8
# So often in a row none may be taken before the run ends: an event that its receiver chokes on does not stand for all of them,
# nor do hundreds, behind which one that was never tried comes next.
MOST_MISSES = 3
# So often events of rarer types are looked for, which go before a flood of dead devices.
RARER_SECONDS = 2.0

CALL_SECONDS = 10.0
LONGEST_RETRY_AFTER_SECONDS = 3600
LARGEST_FILE_BYTES = 4096
PREFIX = "whsec_"
KEY_BYTES = range(24, 65)


class Receiver:
    """Who is called with events. A secret that is changed in the file holds for the next one made."""

    def __init__(self, settings: Settings) -> None:
        """Read the secrets. Raise ConfigurationError."""
        if settings.events_url is None or settings.events_secret_file is None:
            raise ConfigurationError("EVENTS_URL and EVENTS_SECRET_FILE are not both set: nobody is called (docs/api.md)")
        self._keys = read_secrets(settings.events_secret_file)
        self._server = Server("EVENTS_URL", settings.events_url, private_network=True, connections=MOST_AT_ONCE)

    def send(self, event: Event) -> Refusal | None:
        """POST an event, signed by each of the secrets; return why it was not taken, None if it was."""
        body, name, stamp = orjson.dumps(event.told()), f"evt_{event.number}", str(int(time.time()))
        digests = [hmac.digest(key, f"{name}.{stamp}.".encode() + body, hashlib.sha256) for key in self._keys]
        signatures = " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests)
        headers = {"webhook-id": name, "webhook-timestamp": stamp, "webhook-signature": signatures}
        try:
            answer = self._server.post({**headers, "Content-Type": "application/json"}, body, CALL_SECONDS)
        except NoAnswerError as error:
            return Refusal(str(error))
        if 200 <= answer.status < 300:
            return None
        asked = retry_after(answer.headers.get("Retry-After"), LONGEST_RETRY_AFTER_SECONDS)
        return Refusal(f"EVENTS_URL answered with status {answer.status}", asked or 0.0)


def read_secrets(path: Path) -> list[bytes]:
    """Return the secrets of EVENTS_SECRET_FILE, a line each. Raise ConfigurationError with a sentence that shows none."""
    try:
        with path.open("rb") as file:
            lines = file.read(LARGEST_FILE_BYTES).decode().split()
        keys = [base64.b64decode(line.removeprefix(PREFIX), validate=True) for line in lines if line.startswith(PREFIX)]
    except OSError as error:
        raise ConfigurationError(f"EVENTS_SECRET_FILE cannot be read: {error}") from None
    except ValueError:
        keys = []
    if not keys or len(keys) < len(lines) or any(len(key) not in KEY_BYTES for key in keys):
        raise ConfigurationError("EVENTS_SECRET_FILE must hold whsec_ and the base64 of 24 to 64 random bytes, a line each")
    return keys


def deliver(
    engine: Engine, send: Callable[[Event], Refusal | None], stop: Callable[[], bool] = lambda: False
) -> tuple[int, list[str]]:
    """Send what is due until that is all, or nothing is taken any more. Return how many were taken, and why others were not.

    `send` returns why an event was not taken; a receiver that asks to be left alone ends the run. One is sent at a time until
    one is taken. A run that is killed between an answer and its commit leaves an event that is sent again, with the same
    number. Raise LockedError where another run is at it.
    """
    taken, faults, misses, at_once, rarer_at = 0, list[str](), 0, 1, 0.0
    ends = time.monotonic() + RUN_SECONDS
    with hold(engine, LOCK), ThreadPoolExecutor(MOST_AT_ONCE) as pool:
        while misses < MOST_MISSES and time.monotonic() < ends and not stop():
            wave = list[Event]()
            if time.monotonic() >= rarer_at and not (wave := _next(engine, at_once, misses, rarer=True)):
                rarer_at = time.monotonic() + RARER_SECONDS
            wave = wave or _next(engine, at_once, misses) or queue.due(engine, at_once)
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


def _next(engine: Engine, rows: int, misses: int, *, rarer: bool = False) -> list[Event]:
    """Return what is due, after a miss of what was never tried; behind it what has no number yet, and gets one."""
    wave = queue.due(engine, rows, untried=misses > 0, rarer=rarer)
    while not wave and queue.number(engine):
        wave = queue.due(engine, rows, untried=True, rarer=rarer)
    return wave
