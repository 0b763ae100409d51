"""What the API is told at once: dead devices, as a Redis stream beside the table that is the truth."""

from functools import cache
from typing import Any, cast

import structlog
from kombu import Connection
from kombu.exceptions import OperationalError
from redis import Redis
from redis.exceptions import RedisError

from settings import get_settings
from tasks.notifications.journal import Attempt
from tasks.notifications.outcome import Kind

log = structlog.get_logger(__name__)

# XREAD this, or read worker_dead_devices: an event may be lost, a row is not.
DEAD_DEVICES = "chat-workers:dead-devices"
MOST_EVENTS = 10_000


@cache
def _client() -> Redis:
    """Return the broker's Redis as kombu finds it: by URL, TLS or Sentinel. It reconnects by itself."""
    timeouts = {"socket_timeout": 2, "socket_connect_timeout": 2}
    connection = Connection(get_settings().celery_broker_url, transport_options=timeouts)
    client: Redis = cast(Any, connection.channel()).client
    return client


def announce(attempts: list[Attempt]) -> None:
    """Add an event for each device that these attempts found dead: its provider, key, recipient and the reason."""
    dead: list[dict[Any, Any]] = [
        {
            "provider": device.provider,
            "device_key": device.key,
            "recipient_id": attempt.recipient_id,
            "notification_id": attempt.settlement.notification_id,
            "reason": outcome.reason,
        }
        for attempt in attempts
        for device, outcome in attempt.outcomes
        if outcome.kind is Kind.DEAD
    ]
    if not dead:
        return
    try:
        with _client().pipeline(transaction=False) as pipeline:
            for event in dead:
                pipeline.xadd(DEAD_DEVICES, event, maxlen=MOST_EVENTS, approximate=True)
            pipeline.execute()
    except (RedisError, OperationalError) as error:
        log.warning("dead devices not announced; they are in worker_dead_devices", devices=len(dead), error=str(error))
