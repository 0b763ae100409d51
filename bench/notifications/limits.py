"""The limits: our HTTP client alone, our claim and settle alone, h2load on the endpoint. Each runs in a process of its own.

`python -m bench.notifications.limits client|database ROWS` prints seconds and CPU seconds as JSON; it is what `measure` starts.
"""

import asyncio
import json
import re
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import cast

import uvloop

from bench.notifications.field import Field, Run, cpu_seconds
from db.engine import get_engine
from db.transactions import transact
from devstack.folder import PROJECT
from settings import get_settings
from tasks.notifications.devices import Device, read_devices
from tasks.notifications.journal import Attempt, known_dead
from tasks.notifications.ledger import Entry, Ledger, State
from tasks.notifications.notification import Notification
from tasks.notifications.outcome import Kind, Outcome
from tasks.notifications.payload import Push, build_push
from tasks.notifications.providers import configured_providers
from tasks.notifications.providers.fcm import Fcm
from tasks.notifications.queue import Queue
from tasks.notifications.settlement import Settlement

CLIENT = "limit: our HTTP client alone"
DATABASE = "limit: our claim and settle alone"
H2LOAD = "limit: h2load on the endpoint"
BATCH = 500
TEXT = "When can you deliver?"


def measure(field: Field, rows: int) -> list[Run]:
    """Return how fast each part is without the others, and the endpoint's own limit."""
    return [*parts(field, rows), _h2load(field, rows)]


def parts(field: Field, rows: int) -> list[Run]:
    """Return how fast the requests are without the database, and the database without them."""
    return [_apart(field, "client", CLIENT, rows), _apart(field, "database", DATABASE, rows)]


def _apart(field: Field, part: str, name: str, rows: int) -> Run:
    field.reset(rows)
    endpoint, database = field.stack.fcm.pid, field.stack.mariadb.pid
    before = cpu_seconds(endpoint), cpu_seconds(database)
    command = [sys.executable, "-m", "bench.notifications.limits", part, str(rows)]
    done = subprocess.run(command, cwd=PROJECT, env=field.environment, check=True, capture_output=True, timeout=300)
    seconds, cpu = json.loads(done.stdout)
    after = cpu_seconds(endpoint), cpu_seconds(database)
    return Run(
        name, 1, rows, seconds, cpu / rows * 1000, (after[1] - before[1]) / rows * 1000, (after[0] - before[0]) / seconds, 0, []
    )


def _h2load(field: Field, rows: int) -> Run:
    """Have h2load post one of our messages again and again, over as many connections and streams as the workers use."""
    field.reset(1)
    fcm = cast(Fcm, configured_providers(get_settings())["fcm"])
    token = asyncio.run(fcm._token.get())
    endpoint = field.stack.fcm.pid
    with tempfile.TemporaryDirectory() as folder:
        body = Path(folder) / "message.json"
        body.write_bytes(b'{"message":' + fcm.prepare(push()) + b',"token":"token-h2load"}}')
        headers = ["-H", f"authorization: Bearer {token}", "-H", "content-type: application/json"]
        before = cpu_seconds(endpoint)
        command = ["h2load", "-n", str(rows), "-c", "2", "-m", "100", "-t", "1", "-d", str(body), *headers, str(fcm._url)]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    found = re.search(r"finished in ([\d.]+)(m?s), ([\d.]+) req/s", done.stdout)
    succeeded = re.search(r"(\d+) succeeded", done.stdout)
    if not found or not succeeded or int(succeeded[1]) != rows:
        raise RuntimeError(f"h2load did not send all of its requests:\n{done.stdout}")
    seconds = rows / float(found[3])
    return Run(H2LOAD, 1, rows, seconds, 0, 0, (cpu_seconds(endpoint) - before) / seconds, 0, [])


def push() -> Push:
    """Return a push like those of the rows."""
    now = time.time()
    return build_push(Notification(1, 1, 1, 1, 1, "MESSAGE", "New message from Ana", TEXT, None, False, now), now)


def _client(rows: int) -> float:
    """POST `rows` finished messages, as many in flight as the workers have; return the seconds."""
    settings = get_settings()
    fcm = cast(Fcm, configured_providers(settings)["fcm"])

    async def send() -> float:
        token = await fcm._token.get()
        headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
        body = b'{"message":' + fcm.prepare(push()) + b',"token":"token-of-the-client-alone"}}'
        left = iter(range(rows))

        async def one_after_another() -> None:
            for _ in left:
                answer = await fcm._transport.post(fcm._url, headers, body)
                assert answer.status == 200

        began = time.perf_counter()
        await asyncio.gather(*(one_after_another() for _ in range(settings.notifications_in_flight)))
        return time.perf_counter() - began

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(send())


def _database(_rows: int) -> float:
    """Claim and settle all rows as SENT without sending them; return the seconds."""
    queue = Queue(get_engine(), lease=uuid.uuid4().hex)
    began = time.perf_counter()
    while claimed := queue.claim_fresh(BATCH):
        devices = [read_devices(notification.device_tokens).usable[0] for notification in claimed]
        transact(get_engine(), partial(known_dead, keys=[device.key for device in devices]))
        sent = [_sent(notification, device) for notification, device in zip(claimed, devices, strict=True)]
        queue.settle(sent)
    return time.perf_counter() - began


def _sent(notification: Notification, device: Device) -> Attempt:
    settlement = Settlement(notification.id, "SENT", True, None)
    ledger = Ledger()
    ledger.entries[device.key] = Entry(State.SENT, attempts=1)
    return Attempt(settlement, notification.recipient_id, ((device, Outcome(Kind.SENT)),), ledger)


PARTS: dict[str, Callable[[int], float]] = {"client": _client, "database": _database}

if __name__ == "__main__":
    cpu = time.process_time()
    seconds = PARTS[sys.argv[1]](int(sys.argv[2]))
    print(json.dumps([seconds, time.process_time() - cpu]))
