"""Publish messages to Redis as Celery writes them: no more than a queue may hold, within a deadline."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from celery import Celery
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as NotConnectedError
from redis.exceptions import RedisError
from redis.retry import Retry

from settings import Settings
from tasks import broker
from workers.celery_config import celery_config
from workers.gateway.catalogue import Arguments, Job
from workers.messages.read import SENT_AT, Call, write

THREADS = 4
DEADLINE_SECONDS = 1.0
# Two of them fit into the deadline: to connect, and to be answered.
SOCKET_SECONDS = 0.4
# A queue this long is not made longer: sweeps wait behind the nudges, and find the rows of what is not there.
LONGEST_QUEUE = 500
DOWN = "Redis does not take the message"


class NotPublishedError(Exception):
    """A message that is not in its queue; the text says so to the caller, `why` to the log."""

    def __init__(self, text: str, why: str = "") -> None:
        super().__init__(text)
        self.why = why


class Broker:
    """The queues, for an event loop that must never wait: redis-py works in a few threads."""

    def __init__(self, settings: Settings) -> None:
        self._celery: Celery[Any] = Celery("gateway", set_as_current=False)
        self._celery.conf.update(celery_config(settings))
        self._redis = broker.client(settings, seconds=SOCKET_SECONDS, decode=False)
        # A connection that ended while it was idle is found out by the next message, which gets a fresh one; once.
        self._redis.set_retry(Retry(NoBackoff(), 1, (NotConnectedError,)))
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="broker")

    async def publish(self, job: Job, arguments: Arguments) -> list[str]:
        """Put a message into the job's queue for each of `arguments`; return their tasks' ids.

        Raise NotPublishedError within DEADLINE_SECONDS. The messages may be there all the same, if only the answer was lost.
        """
        calls = [Call(job.task, args, expires=job.expires, trace={SENT_AT: time.time()}) for args in arguments]
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                await asyncio.get_running_loop().run_in_executor(self._threads, self._push, job.queue, calls)
        except TimeoutError:
            raise NotPublishedError(DOWN, f"no answer within {DEADLINE_SECONDS:g} s") from None
        return [call.id for call in calls]

    def close(self) -> None:
        self._threads.shutdown(cancel_futures=True)
        self._redis.close()

    def _push(self, queue: str, calls: list[Call]) -> None:
        try:
            if int(self._redis.llen(queue)) + len(calls) > LONGEST_QUEUE:
                raise NotPublishedError("The queue is full: the workers have not kept up")
            self._redis.lpush(queue, *(write(call, queue, self._celery) for call in calls))
        except (RedisError, OSError) as error:
            raise NotPublishedError(DOWN, str(error)) from error
