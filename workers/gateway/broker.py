"""Publish messages to Redis as Celery writes them: no more than a queue may hold, within a deadline."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from celery import Celery
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as NotConnectedError
from redis.exceptions import RedisError
from redis.retry import Retry

from settings import Settings
from tasks import broker
from tasks.jobs import AGAIN
from workers.celery_config import celery_config
from workers.gateway.catalogue import Arguments, Job
from workers.messages.read import SENT_AT, Call, write

THREADS = 4
DEADLINE_SECONDS = 1.0
# Two of them fit into the deadline: to connect, and to be answered.
SOCKET_SECONDS = 0.4
# A queue this long is not made longer: nobody reads it, or the sweep will be there first.
LONGEST_QUEUE = 10_000

# A nudge may come before its row's commit, so that it is sent again after these pauses, unless the same comes meanwhile. A
# repeat makes no queue longer than this: what waits there is not yet done with. What has no sweep, a withdrawal, has no row to
# be early for: its worker looks again by itself.
REPEAT_PAUSES = (0.5, 1.5)
MOST_REPEATED = 1_000
LONGEST_FOR_REPEATS = 100


class NotPublishedError(Exception):
    """A message that is not in its queue; the text says so to the caller, `why` to the log."""

    def __init__(self, text: str, why: str = "") -> None:
        super().__init__(text)
        self.why = why


@dataclass(frozen=True, slots=True)
class Published:
    """The tasks whose messages are in the queue; `coalesced` if another request has brought them there."""

    task_ids: tuple[str, ...]
    coalesced: bool = False


class Broker:
    """The queues, for an event loop that must never wait: redis-py works in a few threads."""

    def __init__(self, settings: Settings) -> None:
        self._celery: Celery[Any] = Celery("gateway", set_as_current=False)
        self._celery.conf.update(celery_config(settings))
        self._redis = broker.client(settings, seconds=SOCKET_SECONDS, decode=False)
        # A connection that ended while it was idle is found out by the next message, which gets a fresh one; once.
        self._redis.set_retry(Retry(NoBackoff(), 1, (NotConnectedError,)))
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="broker")
        self._repeats: dict[tuple[object, ...], asyncio.Task[None]] = {}

    async def publish(self, job: Job, arguments: Arguments) -> Published:
        """Put a message into the job's queue for each of `arguments`, and again a moment later.

        Raise NotPublishedError within DEADLINE_SECONDS. The messages may be there all the same, if only the answer was lost.
        """
        calls = [Call(job.task, args, expires=job.expires, trace={SENT_AT: time.time()}) for args in arguments]
        await self._put(job.queue, calls, LONGEST_QUEUE)
        key = (job.task, *arguments)
        if earlier := self._repeats.pop(key, None):
            earlier.cancel()
        if job.sweep_seconds and len(self._repeats) < MOST_REPEATED:
            self._repeats[key] = asyncio.create_task(self._repeat(key, job.queue, calls))
        return Published(tuple(call.id for call in calls))

    async def _repeat(self, key: tuple[object, ...], queue: str, calls: list[Call]) -> None:
        repeats = [replace(call, id=f"{call.id}{AGAIN}", trace={}) for call in calls]
        for pause in REPEAT_PAUSES:
            await asyncio.sleep(pause)
            with suppress(NotPublishedError):
                await self._put(queue, repeats, LONGEST_FOR_REPEATS)
        del self._repeats[key]

    async def _put(self, queue: str, calls: list[Call], longest: int) -> None:
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                await asyncio.get_running_loop().run_in_executor(self._threads, self._push, queue, calls, longest)
        except TimeoutError:
            raise _down(f"no answer within {DEADLINE_SECONDS:g} s") from None

    def close(self) -> None:
        for repeat in self._repeats.values():
            repeat.cancel()
        self._threads.shutdown(cancel_futures=True)
        self._redis.close()

    def _push(self, queue: str, calls: list[Call], longest: int) -> None:
        try:
            if int(self._redis.llen(queue)) + len(calls) > longest:
                raise NotPublishedError("The queue is full: no worker takes its messages")
            self._redis.lpush(queue, *(write(call, queue, self._celery) for call in calls))
        except (RedisError, OSError) as error:
            raise _down(str(error)) from error


def _down(why: str) -> NotPublishedError:
    return NotPublishedError("Redis does not take the message", why)
