"""How messages get into Redis: as Celery writes them, over kombu's connection, in one atomic step, within a deadline."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from typing import Any
from uuid import uuid4

from celery import Celery
from kombu.serialization import dumps as serialize
from kombu.utils.json import dumps
from redis.exceptions import RedisError

from settings import Settings
from workers.celery_config import celery_config
from workers.gateway.catalogue import Arguments, Job
from workers.messages.read import SENT_AT

THREADS = 4
# Publications that wait for a thread or for Redis; more are refused at once.
MOST_WAITING = 256
DEADLINE_SECONDS = 1.0
# Two of them fit into the deadline: to connect, and to be answered.
SOCKET_SECONDS = 0.4
# A queue this long is not made longer: nobody reads it, or the sweep will be there first.
LONGEST_QUEUE = 10_000
# A client tries again within seconds or minutes; at the default rate this many records are some 30 MB.
IDEMPOTENCY_SECONDS = 900

# Either all of it happens or nothing, so that a gateway that dies, here or there, leaves nothing half done.
#
# A nudge is left out only if an earlier one still waits in the queue, byte for byte: whoever takes that one looks at MySQL
# afterwards, and so sees the rows of both. One that a worker has taken is no longer in the list, and a lost or flushed Redis
# has neither the message nor the note of it.
PUBLISH = """
local queue, note, record = KEYS[1], KEYS[2], KEYS[3]
local fingerprint, remember, nudge, longest, ids = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
if remember > 0 then
  local known = redis.call('GET', record)
  if known then return {'replayed', known} end
end
local coalesced = '0'
local waiting = nudge > 0 and redis.call('GET', note)
if waiting and redis.call('LPOS', queue, string.sub(waiting, 38), 'MAXLEN', 1000) then
  coalesced, ids = '1', string.sub(waiting, 1, 36)
else
  if redis.call('LLEN', queue) + #ARGV - 5 > longest then return {'full', ''} end
  redis.call('LPUSH', queue, unpack(ARGV, 6))
  if nudge > 0 then redis.call('SET', note, ids .. ' ' .. ARGV[6], 'EX', nudge) end
end
local answer = fingerprint .. ' ' .. coalesced .. ' ' .. ids
if remember > 0 then redis.call('SET', record, answer, 'EX', remember) end
return {'done', answer}
"""


class BrokerDownError(Exception):
    """Redis did not take the message, or did not say so in time; the text says what is wrong."""


class BusyError(Exception):
    """More messages wait to be put into Redis than may."""


class QueueFullError(Exception):
    """The job's queue holds as much as it may."""


@dataclass(frozen=True, slots=True)
class Published:
    """What became of a request. `fingerprint` is that of the request that the idempotency key was first used for."""

    task_ids: tuple[str, ...]
    coalesced: bool = False
    replayed: bool = False
    fingerprint: str = ""


class Broker:
    """The queues, for an event loop that must never wait: redis-py works in a few threads, behind a queue with an end.

    kombu's connection is used rather than one of our own, so that rediss:// and sentinel:// mean what they mean to the workers.
    """

    def __init__(self, settings: Settings) -> None:
        self._celery: Celery[Any] = Celery("gateway", set_as_current=False)
        self._celery.conf.update(celery_config(settings))
        options = {"socket_timeout": SOCKET_SECONDS, "socket_connect_timeout": SOCKET_SECONDS, "retry_on_timeout": False}
        self._connection = self._celery.connection_for_write(
            transport_options=self._celery.conf.broker_transport_options | options
        )
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="broker")
        self._lock = Lock()
        self._channel: Any = None
        self._waiting = 0

    async def publish(self, job: Job, arguments: Arguments, *, key: str = "", fingerprint: str = "-") -> Published:
        """Put a message into the job's queue for each of `arguments`, unless `key` was seen before.

        Raise BusyError, BrokerDownError within DEADLINE_SECONDS, or QueueFullError. After BrokerDownError the messages may be
        there all the same, if only the answer was lost: tasks may run twice.
        """
        if self._waiting >= MOST_WAITING:
            raise BusyError
        self._waiting += 1
        work = asyncio.get_running_loop().run_in_executor(self._threads, self._publish, job, arguments, key, fingerprint)
        work.add_done_callback(self._done)
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                return await work
        except TimeoutError:
            raise BrokerDownError(f"Redis did not answer within {DEADLINE_SECONDS:g} s") from None

    def close(self) -> None:
        self._threads.shutdown(cancel_futures=True)
        self._connection.release()

    def _done(self, _work: "asyncio.Future[Published]") -> None:
        self._waiting -= 1

    def _publish(self, job: Job, arguments: Arguments, key: str, fingerprint: str) -> Published:
        ids = [str(uuid4()) for _ in arguments]
        try:
            channel = self._connected()
            messages = [self._message(channel, job, task_id, args) for task_id, args in zip(ids, arguments, strict=True)]
            # Half of its life is left to a message that a nudge is coalesced with.
            nudge = job.expires // 2 if job.coalesces else 0
            keys = (job.queue, f"chat-workers:gateway:nudge:{job.queue}", f"chat-workers:gateway:idempotency:{key}")
            remember = IDEMPOTENCY_SECONDS if key else 0
            state, answer = channel.client.register_script(PUBLISH)(
                keys, (fingerprint, remember, nudge, LONGEST_QUEUE, ",".join(ids), *messages)
            )
        except (RedisError, OSError) as error:
            raise BrokerDownError(str(error)) from error
        if state == b"full":
            raise QueueFullError
        first, coalesced, task_ids = answer.decode().split(" ")
        return Published(tuple(task_ids.split(",")), coalesced == "1", state == b"replayed", first)

    def _connected(self) -> Any:
        """Return kombu's channel, made when Redis first answers; its client then reconnects by itself."""
        with self._lock:
            if self._channel is None:
                transport = self._connection.transport
                self._channel = transport.create_channel(transport)
            return self._channel

    def _message(self, channel: Any, job: Job, task_id: str, args: tuple[int, ...]) -> str:
        """Return the message that `send_task` would put into the list."""
        task = self._celery.amqp.as_task_v2(task_id, job.task, args, expires=job.expires, ignore_result=True)
        content_type, content_encoding, content = serialize(task.body, "json")
        body, body_encoding = channel.encode_body(content, channel.body_encoding)
        properties = {
            **task.properties,
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": job.queue},
            "body_encoding": body_encoding,
            "delivery_tag": str(uuid4()),
        }
        headers = {**task.headers, SENT_AT: time.time()}
        message = channel.prepare_message(body, 0, content_type, content_encoding, headers, properties)
        return str(dumps(message))
