"""kombu's Redis transport with the reader in it: each element is read and written anew between Redis and Celery.

Read against kombu 5.7, see docs/decisions/messages.md.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any, ClassVar, cast

import structlog
from celery import current_app
from celery.app.amqp import AMQP
from celery.app.utils import filter_hidden_settings
from kombu import Connection
from kombu.transport import redis as kombu_redis
from redis import Redis
from redis.exceptions import DataError, RedisError

from tasks.jobs import QUEUES
from workers.limits import Buckets
from workers.messages import control, rejected
from workers.messages.read import RESTORED, RefusedError, count, load, part, read, write

log = structlog.get_logger(__name__)

# Of the log; the counts have all that is refused.
LINES_A_MINUTE = 20
# In place of a queue, where a fault is of none.
BROKER = "broker"

_lines = Buckets(LINES_A_MINUTE)


class QoS(kombu_redis.QoS):
    """How messages of dead workers, which lie in `unacked`, are put back."""

    def restore_by_tag(self: Any, tag: Any, client: Any = None, leftmost: bool = False) -> None:
        """Put one message back as kombu does. What is none is kept aside: kombu would come no further than that."""
        try:
            super().restore_by_tag(tag, client, leftmost)
        except (AttributeError, TypeError, ValueError, DataError):
            refused = RefusedError("json", "what lay in `unacked` is not [message, exchange, routing key]")
            self.channel._refuse(BROKER, self.channel._asking.hget(self.unacked_key, tag) or b"", refused)
            self._remove_from_indices(tag).execute()


class _Reading:
    """What both channels do more than kombu's."""

    QoS: Any = QoS

    def _connparams(self: Any, asynchronous: bool = False) -> dict[str, Any]:
        """Return the options of a connection. One that the event loop watches fails when it ends, and the worker connects anew.

        redis-py would dial again by itself, and the loop then waits within the new connection for what no one sends.
        """
        options: dict[str, Any] = super()._connparams(asynchronous)  # type: ignore[misc]
        return {**options, "retry_on_timeout": options["retry_on_timeout"] and not asynchronous}

    def _do_restore_message(self: Any, message: Any, exchange: Any, queue: Any, *options: Any) -> None:
        """Put a message back as kombu does, and count that in its header: the reader refuses one that came back too often."""
        headers = part(message, "headers")
        if queue in QUEUES or RESTORED in headers:  # another app's messages are its own business
            message["headers"] = {**headers, RESTORED: count(headers.get(RESTORED)) + 1}
        super()._do_restore_message(message, exchange, queue, *options)  # type: ignore[misc]

    @cached_property
    def client(self: Any) -> Redis:
        """The client that waits in BRPOP, whose replies are read before kombu parses them."""
        client = self._create_client(asynchronous=True)
        client.set_response_callback("BRPOP", self._read)
        return cast(Redis, client)

    @cached_property
    def _asking(self: Any) -> Redis:
        """The client whose answers are waited for, unlike those of BRPOP."""
        return cast(Redis, self._create_client())

    @contextmanager
    def conn_or_acquire(self: Any, client: Redis | None = None) -> Iterator[Redis]:
        """Yield the client to ask. kombu makes one for each question, which costs more than most answers."""
        yield client or self._asking

    def close(self: Any) -> None:
        """Close it, whether or not the BRPOP that is out is answered: kombu gives up there when Redis has gone away.

        Left open, it would be closed again when its connection is forgotten, with an AttributeError that ends the worker.
        """
        try:
            super().close()  # type: ignore[misc]
        except (RedisError, OSError):
            if self.closed:
                raise
            super().close()  # type: ignore[misc]

    def _read(self: Any, reply: list[bytes] | None, **_: Any) -> tuple[bytes, str] | None:
        if not reply:
            return None
        key, raw = reply
        queue = key.decode().removeprefix(self.global_keyprefix).rsplit(self.sep, 1)[0]
        try:
            if queue.endswith(control.REPLIES):
                return key, control.rewrite(raw, control.REPLY)
            return key, write(read(load(raw), queue, current_app), queue, current_app)
        except RefusedError as refused:
            self._refuse(queue, raw, refused)
            return None

    def _handle_message(self: Any, client: Any, reply: Any) -> Any:
        payload = super()._handle_message(client, reply)  # type: ignore[misc]
        if payload["type"] in {b"message", b"pmessage"}:
            bodies = control.EVENTS if b".celeryev" in payload["channel"] else control.COMMAND
            try:
                payload["data"] = control.rewrite(payload["data"], bodies)
            except RefusedError as refused:
                self._refuse(BROKER, payload["data"], refused)
                payload["data"] = None  # which kombu passes over
        return payload

    def _refuse(self: Any, queue: str, raw: bytes, refused: RefusedError) -> None:
        event = "a message was refused and is kept aside"
        try:
            with self._asking.pipeline() as pipeline:
                if refused.defect == "control":
                    event = "a control message was refused and dropped"
                    rejected.count(pipeline, BROKER, refused.defect)
                else:
                    rejected.keep(pipeline, queue, raw, refused)
                pipeline.execute()
        except RedisError as error:
            # Out of memory, or gone. What is lost is a message that could not run; its row waits in MySQL.
            event = f"a message was refused and could not be kept ({type(error).__name__})"
        if not _lines.take(""):
            log.warning(event, queue=queue, defect=refused.defect, detail=refused.detail, bytes=len(raw))


class _Checking:
    """What both transports do more than kombu's."""

    def establish_connection(self: Any) -> Any:
        """Connect. Raise ConnectionError if a key holds another type than kombu's: Celery logs that, waits, and tries again.

        Each of kombu's commands would fail on it: someone ran SET on a queue.
        """
        connection = super().establish_connection()  # type: ignore[misc]
        channel = self._avail_channels[-1]
        lists = [channel._q_for_pri(queue, step) for queue in QUEUES for step in channel.priority_steps]
        expected = dict.fromkeys(lists, b"list") | {channel.unacked_key: b"hash", channel.unacked_index_key: b"zset"}
        expected[channel.keyprefix_binding_deadlines] = b"zset"
        with channel.conn_or_acquire() as client, client.pipeline(transaction=False) as pipeline:
            for key in expected:
                pipeline.type(key)
            found = zip(expected, pipeline.execute(), strict=True)
        if wrong := [key for key, kind in found if kind not in {expected[key], b"none"}]:
            self._avail_channels.pop().close()
            raise ConnectionError(f"these keys of Redis must be renamed or deleted: {', '.join(map(repr, wrong))}")
        return connection


def _reading(transport: type) -> type:
    """Return one of kombu's transports with the reader in it."""
    channel = type("Channel", (_Reading, transport.Channel), {})  # type: ignore[attr-defined]
    return type("Transport", (_Checking, transport), {"Channel": channel})


_PLAIN = _reading(kombu_redis.Transport)


class ReadingConnection(Connection):
    """A connection that finds these transports by the broker URL's scheme, where kombu would find its own."""

    transports: ClassVar = {"redis": _PLAIN, "rediss": _PLAIN, "sentinel": _reading(kombu_redis.SentinelTransport)}

    def get_transport_cls(self) -> Any:
        return self.transports.get(self.transport_cls) or super().get_transport_cls()

    def info(self) -> dict[str, Any]:
        """Return what `inspect stats` and Flower show of the connection: Celery leaves the sentinels' password in it."""
        shown: dict[str, Any] = super().info()
        return {**shown, "transport_options": filter_hidden_settings(shown["transport_options"])}


class ReadingAMQP(AMQP):
    """For Celery(amqp=…): the app's connections are the ones above."""

    Connection = ReadingConnection
