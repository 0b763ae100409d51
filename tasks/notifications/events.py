"""What the API is told at once: dead devices, as a Redis stream beside the table that is the truth."""

from typing import Any

import structlog
from redis.exceptions import RedisError

from tasks import broker
from tasks.notifications.journal import Attempt
from tasks.notifications.outcome import Kind

log = structlog.get_logger(__name__)

# XREAD this, or read worker_dead_devices: an event may be lost, a row is not.
DEAD_DEVICES = "chat-workers:dead-devices"
MOST_EVENTS = 10_000
ANSWER_SECONDS = 2.0


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
        with broker.shared(seconds=ANSWER_SECONDS).pipeline(transaction=False) as pipeline:
            for event in dead:
                pipeline.xadd(DEAD_DEVICES, event, maxlen=MOST_EVENTS, approximate=True)
            pipeline.execute()
    except RedisError as error:
        log.warning("dead devices not announced; they are in worker_dead_devices", devices=len(dead), error=str(error))
