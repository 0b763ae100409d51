"""Celery's settings, each with its reason. Facts: Celery 5.7 with kombu 5.7 on Redis 7."""

from datetime import timedelta
from typing import Any

from kombu import Exchange, Queue

from beat_schedule import BEAT_SCHEDULE
from settings import Settings, parse_broker
from tasks import broker
from tasks.jobs import BEAT, JOBS, QUEUES, STARTED_BY, configured
from workers.messages.read import QUIET

# The longest hard limit any task may have. Redis hands a message out again once the visibility timeout has passed, even
# while its task is running, so that timeout must be the longer one.
LONGEST_TIME_LIMIT_SECONDS = 3 * 3600
VISIBILITY_TIMEOUT_SECONDS = LONGEST_TIME_LIMIT_SECONDS + 1800

BEAT_PREFIX = "chat-workers:beat:"
BEAT_LOOP_SECONDS = 2
OFTEN = timedelta(minutes=1)
# From the death of the beat that holds RedBeat's lock to another's taking over; several looks, for one may be slow.
BEAT_LOCK_SECONDS = 5 * BEAT_LOOP_SECONDS


def beat_entries(settings: Settings) -> dict[str, dict[str, Any]]:
    """Return the entries whose tasks are configured: nobody would take, or could do, the others."""
    tasks = configured(settings)
    return {name: _signed(entry) for name, entry in BEAT_SCHEDULE.items() if entry["task"] in tasks}


def _signed(entry: dict[str, Any]) -> dict[str, Any]:
    """Say that beat sends it; the ticks of an entry send no events (workers/task_events.py) if there are several a minute."""
    often = getattr(entry["schedule"], "run_every", OFTEN) < OFTEN
    headers = {STARTED_BY: BEAT} | ({QUIET: True} if often else {})
    return {**entry, "options": {**entry["options"], "headers": headers}}


def celery_config(settings: Settings) -> dict[str, Any]:
    """Return Celery's configuration for the given environment."""
    socket_options = {
        # The shortest one among all apps of a Redis database wins.
        "visibility_timeout": VISIBILITY_TIMEOUT_SECONDS,
        # Look for messages of dead workers at each sweep (10 s), not at each tenth.
        "unacked_restore_throttle": 1,
        # A half-open connection is noticed within seconds instead of never.
        "socket_timeout": 30,
        "socket_connect_timeout": 5,
        "socket_keepalive": True,
        "health_check_interval": 10,
        "retry_on_timeout": True,
        **broker.of_sentinels(settings),
    }
    return {
        "broker_url": settings.celery_broker_url,
        "broker_use_ssl": parse_broker(settings.celery_broker_url).tls or None,
        "broker_transport_options": socket_options,
        # Redis may come up after the workers, go away for an hour, or fail over to a replica that was read-only.
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_channel_error_retry": True,
        # Nobody waits for results; the row is the truth.
        "task_ignore_result": True,
        # JSON only: unpickling what someone wrote to Redis would run their code.
        "accept_content": ["json"],
        # A message is acknowledged when its task has ended, so that a killed worker's task runs again ...
        "task_acks_late": True,
        "task_acks_on_failure": True,
        "task_acks_on_timeout": True,
        # ... a bounded number of times (the base task's max_retries): reject_on_worker_lost would loop for ever on a task
        # that kills its process.
        "task_reject_on_worker_lost": False,
        "task_retry_on_worker_lost": True,
        # One message a child: with late acks a larger window hides waiting tasks behind a slow one.
        "worker_prefetch_multiplier": 1,
        # Late-ack tasks are given back on a lost connection and would run beside their own second delivery.
        "worker_cancel_long_running_tasks_on_connection_loss": True,
        # SIGQUIT, or SIGTERM with REMAP_SIGTERM=SIGQUIT: this long, then what still runs is cancelled and its message put back.
        "worker_soft_shutdown_timeout": 10.0,
        # Children are replaced before a slow leak matters.
        "worker_max_tasks_per_child": 1000,
        "worker_max_memory_per_child": 400_000,  # KiB
        # Hard limits for tasks that name none; prefork enforces them.
        "task_time_limit": 300,
        # A message to a queue that no worker reads would wait for ever, unseen.
        "task_create_missing_queues": False,
        # Each with an exchange and key of its own: left out, all four would share the default queue's and every message
        # would reach every queue.
        "task_queues": [Queue(name, Exchange(name), routing_key=name) for name in QUEUES],
        "task_default_queue": "housekeeping",
        "task_routes": {f"tasks.{job.name}.*": {"queue": job.queue} for job in JOBS},
        # Flower and `celery events` see what runs.
        "worker_send_task_events": True,
        "worker_consumer": "workers.task_events:Consumer",
        "timezone": "UTC",
        # Our own logging set-up (workers.logging) stays.
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
        # Beat: RedBeat keeps due times in Redis and holds a lock, so that a second beat can stand by.
        "beat_scheduler": "workers.scheduler:Scheduler",
        "beat_schedule": beat_entries(settings),
        "beat_max_loop_interval": BEAT_LOOP_SECONDS,
        # RedBeat is given a client of ours (workers.app), and warns where these are not set.
        "redbeat_redis_url": "redis://",
        "redbeat_redis_options": {},
        "redbeat_key_prefix": BEAT_PREFIX,
        "redbeat_lock_timeout": BEAT_LOCK_SECONDS,
        # `celery inspect ping -d celerybeat@host` answers only while the scheduler ticks.
        "beat_enable_remote_control": True,
    }
