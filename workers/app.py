"""The Celery app: `celery -A workers.app worker|beat|flower|inspect`."""

import os
from pathlib import Path
from typing import Any

from celery import Celery, Task

from settings import ConfigurationError, get_settings
from tasks import broker
from tasks.jobs import JOBS
from workers import signals
from workers.celery_config import celery_config
from workers.exits import exit_if_misconfigured
from workers.messages.transport import ReadingAMQP

# Of one answer to beat.
REDBEAT_SECONDS = 10.0


class ChatTask(Task):  # type: ignore[type-arg]
    """The base of all tasks: what holds for each of them stands here once."""

    # How often a task that kills its process is run again before it is dropped; the beat sweep goes on all the same.
    max_retries = 3
    # A job that is not configured says so in a sentence (signals.py), without a traceback at each tick.
    throws = (ConfigurationError,)
    Strategy = "workers.task_events:strategy"
    # At once: a delay would be an ETA that waits in Redis.
    default_retry_delay = 0


# Flower reads this file wherever it is started; without it, it would be open to everyone. Its own variable names it.
os.environ.setdefault("FLOWER_CONF", str(Path(__file__).parent.parent / "flowerconfig.py"))


def make_app() -> Celery[Any]:
    """Return the app for the environment; stop the process with one sentence and exit code 2 if that is unusable."""
    with exit_if_misconfigured():
        settings = get_settings()
    celery: Celery[Any] = Celery("chat-workers", task_cls=ChatTask, amqp=ReadingAMQP)
    # Else a thread other than the importing one has an app without our tasks and routes, and refuses every message.
    celery.set_default()
    celery.conf.update(celery_config(settings))
    # Where RedBeat looks for its client. It connects at its first command, which beat alone sends.
    celery.redbeat_redis = broker.client(settings, seconds=REDBEAT_SECONDS)  # type: ignore[attr-defined]
    celery.autodiscover_tasks([f"tasks.{job.name}" for job in JOBS], related_name="task")
    signals.connect()
    return celery


app = make_app()
