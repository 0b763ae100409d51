"""Quiet ticks: beat's short ticks send no events, or Flower would have forgotten last night by noon."""

from collections.abc import Callable
from typing import Any

from celery import Task
from celery.worker.strategy import default

from workers.messages.read import QUIET


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
