"""Handlers of Celery's signals in the worker processes: log set-up, the stop request, the task's name in each log line."""

import gc
import os
import signal
import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog
from billiard.process import current_process
from celery import Task, current_app
from celery.apps import worker
from celery.signals import (
    before_task_publish,
    celeryd_init,
    setup_logging,
    task_failure,
    task_postrun,
    task_prerun,
    task_revoked,
    worker_init,
    worker_process_init,
    worker_process_shutdown,
    worker_shutting_down,
)

from db.privileges import require
from settings import ConfigurationError, get_settings
from tasks import shutdown
from tasks.notifications import run
from tasks.notifications.providers import configured_providers
from tasks.notifications.providers.transport import trusted
from workers import error_reports, logging, tracing
from workers.exits import exit_if_misconfigured, say_ready
from workers.operations import worker_signals

log = structlog.get_logger(__name__)


def _set_up_logging(**_: Any) -> None:
    logging.configure(get_settings())


def _start(sender: Any, **_: Any) -> None:
    shutdown.forget()
    sender.quiet = True  # Celery's banner is in no format of ours, nor is what it says of shutdowns
    worker.safe_say = _say  # type: ignore[attr-defined]
    settings = get_settings()
    with exit_if_misconfigured():
        if "notifications" in sender.app.amqp.queues.consume_from:
            configured_providers(settings)
            trusted()  # which the children share
            require(settings.database_url)
        tracing.check(settings)
        error_reports.start(settings)
    say_ready()
    gc.freeze()  # what is loaded by now stays for good: children share its memory, and no collection looks through it


def _say(text: str, *_: Any) -> None:
    """Log what Celery says in a signal's handler: in a thread, for it may have cut into another line, or into logging itself.

    Even `log.info` alone would make a logger there, while redis-py, for one, goes through all of them.
    """
    threading.Thread(target=lambda: log.info(text)).start()


def _start_child(**_: Any) -> None:
    _let_go_of_connections()
    tracing.start(get_settings())
    if "notifications" in current_app.amqp.queues.consume_from:
        run.warm()


def _let_go_of_connections() -> None:
    """Put nothing in the place of the network connections that a child was forked with; they are the parent's.

    Held by a child, one that the parent closes stays among those that its loop waits for, under a number that it uses anew: for
    each of its events another, silent connection is read, and what comes on that one is left lying.
    """
    with Path(os.devnull).open("r+b") as nothing:
        for number in [int(path.name) for path in Path("/proc/self/fd").iterdir()]:
            with suppress(OSError):
                found = socket.socket(fileno=number)
                family, _ = found.family, found.detach()
                if family in {socket.AF_INET, socket.AF_INET6}:
                    os.dup2(nothing.fileno(), number, inheritable=False)


def _end_child(**_: Any) -> None:
    tracing.flush()
    error_reports.flush()


def _begin(task_id: str, task: Task[Any, Any], **_: Any) -> None:
    structlog.contextvars.bind_contextvars(task=task.name, task_id=task_id)
    if current_process().name != "MainProcess":  # a pool's child
        _own_handler.append(signal.signal(signal.SIGTERM, _let_pass))


def _end(**_: Any) -> None:
    structlog.contextvars.clear_contextvars()
    if _own_handler:
        signal.signal(signal.SIGTERM, _own_handler.pop())


def _say_what_is_not_configured(sender: Task[Any, Any], exception: BaseException, **_: Any) -> None:
    if isinstance(exception, ConfigurationError):
        log.error(f"not done: {exception}", task=sender.name)


# What the child does at SIGTERM outside of tasks; set aside while one runs.
_own_handler: list[Any] = []


def _let_pass(number: int, _frame: Any) -> None:
    """Let the first SIGTERM during a task pass: honcho and systemd send it to the whole group, but the parent shuts down.

    A child that died of it would leave its rows to their leases. The second one, a cold shutdown's, ends the child.
    """
    signal.signal(number, _own_handler[-1])


def connect() -> None:
    """Connect the handlers. Receiving setup_logging keeps Celery from installing its own."""
    for celery_signal, handler in (
        (celeryd_init, _set_up_logging),  # before Celery warns of a worker that is root
        (setup_logging, _set_up_logging),
        (worker_init, _start),
        (worker_process_init, _start_child),
        (worker_process_shutdown, _end_child),
        (worker_shutting_down, lambda **_: shutdown.request_stop()),
        (task_prerun, _begin),
        (task_postrun, _end),
        (task_failure, _say_what_is_not_configured),
        (before_task_publish, worker_signals.stamp),
        (worker_init, worker_signals.start),
        (task_prerun, worker_signals.task_starts),
        (task_postrun, worker_signals.task_ends),
        (task_failure, worker_signals.task_killed),
        (task_revoked, worker_signals.task_expired),
    ):
        celery_signal.connect(handler, weak=False)
