"""Who competes: this project, the obvious Celery app, `send_each` batches, fcm-django, and Node."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from celery import Celery

from bench.notifications.field import Contestant, Field
from devstack.folder import PROJECT

OURS = "chat-workers"
OBVIOUS = "the obvious Celery app"
BATCHES = "send_each x500, our SQL"
DJANGO = "fcm-django bulk, Celery"
NODE = "Node, BullMQ, sendEach x500"
NODE_OURS = "Node, sendEach x500, our message"
NODE_ROWS = "Node, BullMQ, a job a row"

NODE_SOURCE = Path(__file__).parent / "node"
NODE_PEERS = PROJECT / ".devstack" / "bench-node"
BATCH = 500


def contestants(rows: int) -> list[Contestant]:
    """Return all of them. The slow ones get fewer rows: rows a second are compared."""
    node = {"NODE_PEERS": str(NODE_PEERS)}
    command = ["node", str(NODE_SOURCE / "worker.mjs")]
    return [
        *(Contestant(OURS, n, rows, ours(n), _nudge) for n in (1, 2, 4)),
        *(
            Contestant(OBVIOUS, n, rows // 12, _celery("bench.notifications.obvious", "obvious", n), _a_task_a_row)
            for n in (2, 4)
        ),
        *(
            Contestant(BATCHES, n, rows // 12, _celery("bench.notifications.batches", "batches", n), _a_task_a_process(n))
            for n in (1, 2)
        ),
        *(
            Contestant(DJANGO, n, rows // 12, _celery("bench.notifications.django_bulk", "django", n), _a_task_a_batch)
            for n in (1, 2)
        ),
        *(
            Contestant(name, n, share, command, partial(_node, node | told), n, node | told)
            for name, share, told in (
                (NODE, rows, {}),
                (NODE_OURS, rows, {"OUR_MESSAGE": "1"}),
                (NODE_ROWS, rows // 8, {"PER_ROW": "1"}),
            )
            for n in (1, 2)
        ),
    ]


def install_node_peers() -> None:
    """Install the locked packages, once."""
    lock = (NODE_SOURCE / "package-lock.json").read_bytes()
    installed = NODE_PEERS / "package-lock.json"
    if installed.exists() and installed.read_bytes() == lock and (NODE_PEERS / "node_modules").exists():
        return
    NODE_PEERS.mkdir(parents=True, exist_ok=True)
    shutil.copy(NODE_SOURCE / "package.json", NODE_PEERS)
    installed.write_bytes(lock)
    # Not `npm ci`: it wants the optional packages of every other platform in the lock.
    command = ["npm", "install", "--no-save", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel", "error"]
    subprocess.run(command, cwd=NODE_PEERS, check=True, timeout=300)


def ours(processes: int) -> list[str]:
    """Return the command of the Procfile's notifications worker."""
    return _celery("workers.app", "notifications", processes)


def _celery(app: str, queue: str, processes: int) -> list[str]:
    options = ["-Q", queue, "--concurrency", str(processes), "--without-gossip", "--without-mingle"]
    return [sys.executable, "-m", "celery", "-A", app, "worker", *options]


def _nudge(field: Field, _rows: int) -> None:
    field.nudge()


def _a_task_a_row(field: Field, rows: int) -> None:
    _queue(field, "obvious.send", [(row,) for row in range(1, rows + 1)])


def _a_task_a_process(processes: int) -> Callable[[Field, int], None]:
    def queue(field: Field, _rows: int) -> None:
        _queue(field, "batches.drain", [()] * processes)

    return queue


def _a_task_a_batch(field: Field, rows: int) -> None:
    _queue(field, "django.send", [(first, min(first + BATCH - 1, rows)) for first in range(1, rows + 1, BATCH)])


def _queue(field: Field, task: str, arguments: list[tuple[int, ...]]) -> None:
    api = Celery(broker=field.stack.redis.url, set_as_current=False)
    with api.producer_pool.acquire(block=True) as producer:
        for args in arguments:
            api.send_task(task, args=args, queue=task.split(".")[0], ignore_result=True, producer=producer)


def _node(environment: dict[str, str], field: Field, rows: int) -> None:
    command = ["node", str(NODE_SOURCE / "worker.mjs"), "queue", str(rows)]
    subprocess.run(command, env={**os.environ, **field.environment, **environment}, check=True, timeout=120)
