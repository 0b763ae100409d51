"""Run drains in this process: one event loop and one set of connections for its life, a fresh lease for each run."""

import asyncio
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache, partial
from typing import Any

import orjson
import uvloop
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from db.engine import get_engine
from db.transactions import transact
from settings import get_settings
from tasks import counters, pause
from tasks.notifications import breaker, journal, withdrawal
from tasks.notifications.delivery import Job
from tasks.notifications.devices import of_lane, read_devices, read_together
from tasks.notifications.drain import Drain, Summary
from tasks.notifications.facts import BACKLOG, SETTLED
from tasks.notifications.gate import Gate
from tasks.notifications.notification import Notification
from tasks.notifications.outcome import Outcome
from tasks.notifications.payload import build_push
from tasks.notifications.providers import Provider, absent, configured_providers
from tasks.notifications.queue import Queue
from tasks.notifications.senders import Senders
from tasks.notifications.sweep import adopt_strays, enter_queue, free_stuck_lanes
from tasks.shutdown import stop_requested

Claim = Callable[[Queue, int, tuple[str, ...]], tuple[list[Notification], bool]]

# Of each claim at most one in so many rows is a retry: a backlog must not starve the retries, nor an outage the fresh rows.
DUE_SHARE = 4
# Behind a backlog of SYSTEM rows this share of a claim is for what people wait for, wherever it stands; the rest goes by age.
CHAT_SHARE = 2
# A child that starts is waited for by Celery, four seconds in all.
WARM_SECONDS = 1.5


@cache
def _process() -> tuple[asyncio.AbstractEventLoop, dict[str, Provider]]:
    """Return what lives as long as the worker process, made after the fork. An asyncio.Runner would double a run's start."""
    return uvloop.new_event_loop(), configured_providers(get_settings())


def warm() -> None:
    """Make what the process's first drain would wait for; what is away, or slow, is for that drain to report."""
    loop, providers = _process()
    threading.Thread(target=_connect, name="warming", daemon=True).start()

    async def connect() -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(WARM_SECONDS):
                await asyncio.gather(*(provider.warm() for provider in providers.values()))

    loop.run_until_complete(connect())


def _connect() -> None:
    with suppress(SQLAlchemyError):
        get_engine().connect().close()


def drain(on_backlog: Callable[[], None] = lambda: None) -> Summary:
    """Send PENDING rows, oldest first, and those due for another attempt between them, until there are none left.

    `on_backlog` is called once if there is more than a batch: the time to have another process help.
    """
    full, helped, behind = False, False, False

    def claim(queue: Queue, rows: int, lanes: tuple[str, ...]) -> tuple[list[Notification], bool]:
        nonlocal full, helped, behind
        if full and rows > 1 and not helped:
            helped = True
            on_backlog()  # before the claim: were it slow, no lease would run meanwhile
        due = queue.claim_due(max(1, rows // DUE_SHARE), lanes)
        chat = queue.claim_chat(rows // CHAT_SHARE) if behind and rows > 1 else []
        left = rows - len(due) - len(chat)
        fresh = queue.claim_fresh(left) if left > 0 else []
        full = len(due) >= max(1, rows // DUE_SHARE) or len(fresh) >= left
        # Where most rows by age are the chat's, it has its share already, in the order in which they were written.
        behind = full and sum(row.notification_type == "SYSTEM" for row in fresh) * CHAT_SHARE > len(fresh)
        # Behind a claim that saw the queue's end another look costs as much, and finds what has a nudge of its own.
        return due + chat + fresh, bool(due) or not queue.saw_end

    counters.sample(waiting=_waiting)
    return _drain(claim)


def _waiting() -> int:
    with get_engine().connect() as connection:
        return int(connection.execute(BACKLOG).all()[0].notifications)


def retry_failed() -> Summary:
    """Send rows that are due for another attempt, and rows whose worker died."""
    return _drain(lambda queue, rows, lanes: (queue.claim_due(rows, lanes), True))


def adopt() -> int:
    """Give rows without a status or FAILED ones without an entry what they lack, and release those that wait for nothing.

    Return how many there were of the first two.
    """
    _, providers = _process()
    free_stuck_lanes(get_engine(), list(providers))
    return enter_queue(get_engine()) + adopt_strays(get_engine())


def preview(notification_id: int, app: str | None = None) -> list[tuple[str, dict[str, Any]]]:
    """Return what each device of a row would be sent, by its key, or by lane what each of an app's providers would send.

    Raise LookupError where there is no such row, or no such app.
    """
    _, providers = _process()
    if (notification := Queue(get_engine(), lease="").peek(notification_id)) is None:
        raise LookupError(f"there is no notification {notification_id}")
    lanes = {lane: lane for lane in providers if of_lane(lane)["app"] == app}
    if app is None:
        lanes = {device.key: device.lane for device in read_devices(notification.device_tokens).usable}
    elif not lanes:
        raise LookupError(f"there is no app {app}")
    shown = []
    for key, lane in lanes.items():
        if provider := providers.get(lane):
            shown.append((key, provider.show(provider.prepare(build_push(notification, time.time(), provider.app)))))
        else:
            shown.append((key, {"not sent": absent(lane).reason}))
    return shown


def try_out(entry: Mapping[str, Any], *, dry_run: bool) -> Outcome:
    """Send a test push to one device, named as in `device_tokens`. Raise LookupError where that is no device."""
    found = read_devices(orjson.dumps([entry]))
    if not found.usable:
        raise LookupError(found.faults[0])
    [device] = found.usable
    loop, providers = _process()
    if (provider := providers.get(device.lane)) is None:
        return absent(device.lane)
    test = Notification(0, 0, 0, 0, 0, "SYSTEM", "Test", "A push from chat-workers", None, False, time.time())
    push = build_push(test, time.time(), provider.app)
    return loop.run_until_complete(provider.send(provider.prepare(push), device, dry_run=dry_run))


def withdraw(recipient_id: int) -> int | None:
    """Take away what a recipient's devices show in vain; return how many were told. Raise RedisError.

    None calls for another look: others were told a moment ago, or nothing is found that a push in flight may bring.
    """
    loop, providers = _process()
    if not withdrawal.asking(providers):
        return 0
    found = withdrawal.find(get_engine(), recipient_id, providers)
    if not found or not withdrawal.hold(recipient_id):
        return None
    gate = _gate(get_engine(), providers)

    async def send() -> None:
        await gate.ask()
        async with asyncio.TaskGroup() as sending:
            in_flight = get_settings().notifications_in_flight
            Senders(providers, gate, sending, in_flight, lambda _: None).put(found, lambda: not stop_requested())
        await asyncio.to_thread(gate.leave)

    loop.run_until_complete(send())
    return found.keep()


def can_withdraw(recipient_id: int) -> bool:
    """Return True if there is something to withdraw and no hold on it."""
    _, providers = _process()
    return not withdrawal.is_held(recipient_id) and withdrawal.find(get_engine(), recipient_id, providers) is not None


def _gate(engine: Engine, providers: Mapping[str, Provider]) -> Gate:
    rate = get_settings().notifications_per_minute / 60
    return Gate(providers, partial(breaker.ask, engine, rate=rate), partial(pause.paused, engine))


def _drain(claim: Claim) -> Summary:
    settings, engine = get_settings(), get_engine()
    loop, providers = _process()
    queue = Queue(engine, lease=uuid.uuid4().hex)
    gate = _gate(engine, providers)

    def claim_jobs(rows: int, lanes: tuple[str, ...]) -> tuple[list[Job | int], bool]:
        notifications, more = claim(queue, rows, lanes)
        devices = read_together([notification.device_tokens for notification in notifications])
        keys = [device.key for read in devices if read for device in read.usable]
        dead = transact(engine, partial(journal.known_dead, keys=keys)) if keys else frozenset()
        return [Job(each, read, dead) if read else each.id for each, read in zip(notifications, devices, strict=True)], more

    async def work() -> Summary:
        bounds = {"batch_rows": settings.notifications_batch_rows, "in_flight": settings.notifications_in_flight}
        return await Drain(queue, providers, gate, **bounds, stop=stop_requested).run(claim_jobs)

    summary = loop.run_until_complete(work())
    for status, rows in summary.rows.items():
        counters.add(SETTLED, status, amount=rows)
    return summary
