"""Where messages are examined: kombu's Redis transport, with a look at each element between Redis and Celery.

Everything else is kombu's: BRPOP, priorities, `unacked`, the visibility timeout. For kombu, a refused element is a BRPOP that
timed out. Only workers.app uses it; producers need nothing of it. Read against kombu 5.7, see docs/decisions/messages.md.
"""

from collections.abc import Callable
from functools import cached_property, wraps
from queue import Empty
from time import monotonic
from typing import Any, ClassVar, TypeVar, cast

import structlog
from celery import current_app
from celery.app.amqp import AMQP
from celery.app.utils import filter_hidden_settings
from kombu import Connection
from kombu.transport import redis as kombu_redis
from kombu.utils.json import dumps
from redis import Redis
from redis.exceptions import RedisError, ResponseError

from tasks.jobs import QUEUES
from workers.messages import call, contract, envelope, key_types, rejected
from workers.messages.contract import RESTORED, RefusedError

log = structlog.get_logger(__name__)

LINES_A_MINUTE = 20
# In place of a queue, where a fault is of none.
BROKER = "broker"

Method = TypeVar("Method", bound=Callable[..., Any])


def examine(message: dict[str, Any], queue: str) -> None:
    """Raise RefusedError unless a worker of a task queue can run the message."""
    call.fits(envelope.check(message, queue), current_app, queue)


class _Say:
    """A line for each refused message, but no flood of lines: so many a minute, then how many went unsaid."""

    began, said, unsaid = -60.0, 0, 0

    def __call__(self, queue: str, refused: RefusedError, size: int, event: str) -> None:
        if monotonic() - self.began >= 60:
            if self.unsaid:
                log.warning("more were refused than was said; see chat-workers messages list", unsaid=self.unsaid)
            self.began, self.said, self.unsaid = monotonic(), 0, 0
        if self.said >= LINES_A_MINUTE:
            self.unsaid += 1
            return
        self.said += 1
        log.warning(event, queue=queue, defect=refused.defect, detail=refused.detail, bytes=size)


say = _Say()


def _mending(method: Method) -> Method:
    """Do it again, once, when a key that it needs was of a wrong type and has been set aside."""

    @wraps(method)
    def mended(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return method(self, *args, **kwargs)
        except ResponseError as error:
            if not key_types.is_wrong_type(error):
                raise
            self.channel.mend()
            return method(self, *args, **kwargs)

    return cast(Method, mended)


class QoS(kombu_redis.QoS):
    """What happens to messages of dead workers, which lie in `unacked` until they are put back."""

    append = _mending(kombu_redis.QoS.append)
    ack = _mending(kombu_redis.QoS.ack)
    restore_visible = _mending(kombu_redis.QoS.restore_visible)

    def restore_by_tag(self: Any, tag: Any, client: Any = None, leftmost: bool = False) -> None:
        """Put one message back on its queue, as kombu does; one that none can run is kept aside, in the same transaction."""
        refusals: list[tuple[str, RefusedError, int]] = []

        def restore(pipeline: Any) -> None:
            refusals.clear()
            raw = pipeline.hget(self.unacked_key, tag)
            pipeline.multi()
            self._remove_from_indices(tag, pipeline)
            if raw is None:
                return
            queue = BROKER
            try:
                message, exchange, queue = _entry(raw)
                raw = dumps(message).encode()
                if queue in QUEUES:  # another app's messages are its own business
                    examine(message, queue)
                    message["headers"][RESTORED] = message["headers"].get(RESTORED, 0) + 1
            except RefusedError as refused:
                rejected.keep(pipeline, queue, raw, refused)
                refusals.append((queue, refused, len(raw)))
            else:
                self.channel._do_restore_message(message, exchange, queue, pipeline, leftmost)

        with self.channel.conn_or_acquire(client) as connected:
            connected.transaction(restore, self.unacked_key)
        for refusal in refusals:
            say(*refusal, "a message in `unacked` was refused and is kept aside")


def _entry(raw: bytes) -> tuple[dict[str, Any], str, str]:
    """Return message, exchange and routing key of an entry of `unacked`. Raise RefusedError if kombu could not put it back."""
    try:
        message, exchange, queue = envelope.load_list(raw)
    except ValueError:
        raise RefusedError("unacked", "it is not a list of three: [message, exchange, routing key]") from None
    if not (isinstance(message, dict) and isinstance(exchange, str) and isinstance(queue, str)):
        raise RefusedError("unacked", "its message, exchange or routing key is of another type")
    envelope.check_any(message)
    return message, exchange, queue


class _Examining:
    """What both channels do more than kombu's."""

    QoS: Any = QoS

    @cached_property
    def client(self: Any) -> Redis:
        """The client that waits in BRPOP, whose replies are examined before kombu parses them."""
        client = self._create_client(asynchronous=True)
        client.set_response_callback("BRPOP", self._examined)
        return cast(Redis, client)

    @cached_property
    def _keeper(self: Any) -> Redis:
        # Made once: a client costs more than what it is used for here.
        return cast(Redis, self._create_client())

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

    def mend(self: Any) -> None:
        """Set aside what stands in the place of kombu's keys."""
        with self.conn_or_acquire() as client:
            key_types.mend(client, key_types.expected_types(self))
            key_types.mend_bindings(client, key_types.binding_tables(self), self.sep)

    def _brpop_read(self: Any, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)  # type: ignore[misc]
        except ResponseError as error:
            if not key_types.is_wrong_type(error):
                raise
            self.mend()
            raise Empty from None

    def _examined(self: Any, reply: list[bytes] | None, **_: Any) -> tuple[bytes, bytes] | None:
        if not reply:
            return None
        key, raw = reply
        queue = key.decode().removeprefix(self.global_keyprefix).rsplit(self.sep, 1)[0]
        try:
            if queue in QUEUES:
                examine(envelope.load(raw), queue)
            else:
                envelope.check_control(envelope.load(raw, None), contract.REPLY)
        except RefusedError as refused:
            self._refuse(queue, raw, refused)
            return None
        return key, raw

    def _handle_message(self: Any, client: Any, reply: Any) -> Any:
        payload = super()._handle_message(client, reply)  # type: ignore[misc]
        if payload["type"] in {b"message", b"pmessage"}:
            try:
                bodies = contract.EVENTS if b".celeryev" in payload["channel"] else contract.COMMAND
                envelope.check_control(envelope.load(payload["data"], None), bodies)
            except RefusedError as refused:
                self._refuse("control", payload["data"], refused)
                payload["data"] = None  # which kombu passes over
        return payload

    def _refuse(self: Any, queue: str, raw: bytes, refused: RefusedError) -> None:
        event = "a message was refused and is kept aside"
        try:
            with self._keeper.pipeline() as pipeline:
                if queue in QUEUES:
                    rejected.keep(pipeline, queue, raw, refused)
                else:
                    event = "a control message was refused and dropped"
                    rejected.count(pipeline, BROKER, "control")
                pipeline.execute()
        except RedisError as error:
            # Out of memory, or gone. What is lost is a message that could not run; its row waits in MySQL.
            event = f"a message was refused and could not be kept ({type(error).__name__})"
        say(queue, refused, len(raw), event)


class _Mending:
    """What both transports do more than kombu's."""

    def establish_connection(self: Any) -> Any:
        connection = super().establish_connection()  # type: ignore[misc]
        self._avail_channels[-1].mend()
        return connection


class Channel(_Examining, kombu_redis.Channel):
    """For redis:// and rediss://."""


class SentinelChannel(_Examining, kombu_redis.SentinelChannel):
    """For sentinel://."""


class Transport(_Mending, kombu_redis.Transport):
    """For redis:// and rediss://."""

    Channel = Channel


class SentinelTransport(_Mending, kombu_redis.SentinelTransport):
    """For sentinel://."""

    Channel = SentinelChannel


class ExaminingConnection(Connection):
    """A connection that finds these transports by the broker URL's scheme, where kombu would find its own."""

    transports: ClassVar = {"redis": Transport, "rediss": Transport, "sentinel": SentinelTransport}

    def get_transport_cls(self) -> Any:
        return self.transports.get(self.transport_cls) or super().get_transport_cls()

    def info(self) -> dict[str, Any]:
        """Return what `inspect stats` and Flower show of the connection: Celery leaves the sentinels' password in it."""
        shown: dict[str, Any] = super().info()
        return {**shown, "transport_options": filter_hidden_settings(shown["transport_options"])}


class ExaminingAMQP(AMQP):
    """For Celery(amqp=…): the app's connections are the ones above."""

    Connection = ExaminingConnection
