"""Events of tasks: several in a message, and none of beat's short ticks, or Flower would have forgotten last night by noon."""

import time
from collections.abc import Callable
from typing import Any

from celery import Task
from celery.worker import consumer
from celery.worker.strategy import default

from workers.messages.read import QUIET

# Celery by itself publishes an event before it hands a task to a child, for which a push waits half a millisecond, and again
# when the task begins and when it ends.
EVENTS_SECONDS = 0.05


class Consumer(consumer.Consumer):
    """Celery's, which publishes what happened within EVENTS_SECONDS together."""

    hub: Any
    _flush_events: Any
    _next_flush = 0.0

    def on_send_event_buffered(self) -> Any:
        """Have the events published soon. That is asked again where it was forgotten: a lost connection ends all timers."""
        now = time.monotonic()
        if self.hub and now > self._next_flush:
            self._next_flush = now + EVENTS_SECONDS
            self.hub.call_later(EVENTS_SECONDS, self._flush_events)


class _Unheard:
    """Celery's consumer without the events that it sends."""

    event_dispatcher = None

    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._consumer, name)


def strategy(task: Task[Any, Any], app: Any, consumer: Any, **options: Any) -> Callable[..., Any]:
    """Return Celery's handler of a task's messages; quiet ones have one without events."""
    heard, quiet = (default(task, app, each, **options) for each in (consumer, _Unheard(consumer)))

    def handle(message: Any, *arguments: Any, **named: Any) -> Any:
        return (quiet if message.headers.get(QUIET) else heard)(message, *arguments, **named)

    return handle
