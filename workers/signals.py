"""What the worker processes do at Celery's signals: log set-up, the stop request, the task's name in each log line."""

import sys
from typing import Any

import structlog
from celery import Task
from celery.signals import setup_logging, task_postrun, task_prerun, worker_init, worker_shutting_down

from settings import ConfigurationError, get_settings
from tasks import shutdown
from tasks.notifications.providers import configured_providers
from workers import logging


def _set_up_logging(**_: Any) -> None:
    logging.configure(get_settings())


def _start(sender: Any, **_: Any) -> None:
    shutdown.forget()
    if "notifications" in sender.app.amqp.queues.consume_from:
        try:
            configured_providers(get_settings())
        except ConfigurationError as error:
            print(f"chat-workers: {error}", file=sys.stderr)
            raise SystemExit(2) from None


def _stop(**_: Any) -> None:
    shutdown.request_stop()


def _bind(task_id: str, task: Task[Any, Any], **_: Any) -> None:
    structlog.contextvars.bind_contextvars(task=task.name, task_id=task_id)


def _unbind(**_: Any) -> None:
    structlog.contextvars.clear_contextvars()


def connect() -> None:
    """Connect the handlers. Receiving setup_logging keeps Celery from installing its own."""
    for signal, handler in (
        (setup_logging, _set_up_logging),
        (worker_init, _start),
        (worker_shutting_down, _stop),
        (task_prerun, _bind),
        (task_postrun, _unbind),
    ):
        signal.connect(handler, weak=False)
