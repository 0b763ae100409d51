"""One process posting finished messages through each HTTP client that might carry the bytes, a hundred in flight.

`python -m bench.notifications.transports NAME ROWS` prints seconds and CPU seconds as JSON; it is what `measure` starts.
"""

import asyncio
import json
import os
import ssl
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import cast

import aiohttp
import httpx
import uvloop
from firebase_admin import messaging

from bench.notifications import firebase
from bench.notifications.field import Field
from bench.notifications.limits import push
from devstack.folder import PROJECT
from settings import get_settings
from tasks.notifications.providers import configured_providers
from tasks.notifications.providers.fcm import Fcm

IN_FLIGHT = 100
BATCH = 500
ROW = {"id": 1, "conversation_id": 1, "title": "New message from Ana", "body": "When can you deliver?"}
Post = Callable[[], Awaitable[int]]


@dataclass(frozen=True, slots=True)
class Carried:
    """What one client did; CPU in ms a message."""

    name: str
    messages: int
    rate: float
    cpu_ms: float


def measure(field: Field, rows: int) -> list[Carried]:
    """Return how fast each client posts; the slow ones post fewer."""
    found = []
    for name, share in CLIENTS.items():
        field.reset(1)
        messages = max(rows // share, BATCH)
        command = [sys.executable, "-m", "bench.notifications.transports", name, str(messages)]
        done = subprocess.run(command, cwd=PROJECT, env=field.environment, check=True, capture_output=True, timeout=300)
        seconds, cpu = json.loads(done.stdout.splitlines()[-1])
        found.append(Carried(name, messages, messages / seconds, cpu / messages * 1000))
    return found


async def _at_once(messages: int, post: Post) -> float:
    left = iter(range(messages))

    async def one_after_another() -> None:
        for _ in left:
            assert await post() == 200

    began = time.perf_counter()
    await asyncio.gather(*(one_after_another() for _ in range(IN_FLIGHT)))
    return time.perf_counter() - began


async def _request(fcm: Fcm) -> tuple[str, dict[str, str], bytes]:
    headers = {"authorization": f"Bearer {await fcm._token.get()}", "content-type": "application/json"}
    return str(fcm._url), headers, b'{"message":' + fcm.prepare(push()) + b',"token":"token-of-a-transport"}}'


async def _pyreqwest(messages: int) -> float:
    fcm = cast(Fcm, configured_providers(get_settings())["fcm"])
    _, headers, body = await _request(fcm)

    async def post() -> int:
        return (await fcm._transport.post(fcm._url, headers, body)).status

    return await _at_once(messages, post)


async def _aiohttp(messages: int) -> float:
    url, headers, body = await _request(cast(Fcm, configured_providers(get_settings())["fcm"]))
    trusted = ssl.create_default_context(cafile=os.environ["SSL_CERT_FILE"])
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=IN_FLIGHT, ssl=trusted)) as client:

        async def post() -> int:
            async with client.post(url, headers=headers, data=body) as response:
                await response.read()
                return int(response.status)

        return await _at_once(messages, post)


async def _httpx(messages: int) -> float:
    url, headers, body = await _request(cast(Fcm, configured_providers(get_settings())["fcm"]))
    trusted = ssl.create_default_context(cafile=os.environ["SSL_CERT_FILE"])
    async with httpx.AsyncClient(http2=True, verify=trusted) as client:

        async def post() -> int:
            return (await client.post(url, headers=headers, content=body)).status_code

        return await _at_once(messages, post)


async def _send(messages: int) -> float:
    firebase.initialize()
    began = time.perf_counter()
    for _ in range(messages):
        messaging.send(firebase.message(ROW, "token-of-send"))
    return time.perf_counter() - began


async def _send_each(messages: int) -> float:
    firebase.initialize()
    began = time.perf_counter()
    for _ in range(messages // BATCH):
        assert not messaging.send_each([firebase.message(ROW, "token-of-send-each")] * BATCH).failure_count
    return time.perf_counter() - began


async def _send_each_async(messages: int) -> float:
    firebase.initialize()
    began = time.perf_counter()
    for _ in range(messages // BATCH):
        answer = await messaging.send_each_async([firebase.message(ROW, "token-of-send-each-async")] * BATCH)
        assert not answer.failure_count
    return time.perf_counter() - began


WAYS: dict[str, Callable[[int], Awaitable[float]]] = {
    "pyreqwest, HTTP/2": _pyreqwest,
    "aiohttp, 100 connections": _aiohttp,
    "httpx, HTTP/2": _httpx,
    "firebase-admin send": _send,
    "firebase-admin send_each x500": _send_each,
    "firebase-admin send_each_async x500": _send_each_async,
}
# name -> the share of the messages that it gets
CLIENTS = dict(zip(WAYS, (1, 2, 8, 20, 20, 20), strict=True))


async def _main() -> float:
    return await WAYS[sys.argv[1]](int(sys.argv[2]))


if __name__ == "__main__":
    cpu = time.process_time()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        seconds = runner.run(_main())
    print(json.dumps([seconds, time.process_time() - cpu]))
