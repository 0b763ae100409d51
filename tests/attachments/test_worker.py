"""A real Celery worker on the queue `attachments`, and a Redis that dies and forgets."""

import json
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery
from click.testing import CliRunner
from redis import Redis
from sqlalchemy import text

from devstack.stack import Stack
from tasks.attachments import run
from tasks.attachments.scannable import EICAR
from tests.processes import Process, Start
from tests.trickle import Trickler, trickling
from workers.cli import cli

from .conftest import Uploads
from .samples import PNG

pytestmark = pytest.mark.timeout(900)


@pytest.fixture
def trickler(uploads: Uploads, monkeypatch: pytest.MonkeyPatch) -> Iterator[Trickler]:
    """Uploads behind a server that begins each answer and ends none."""
    assert uploads
    with trickling("a header") as server:
        monkeypatch.setenv("ATTACHMENTS_URL", f"http://127.0.0.1:{server.address[1]}")
        yield server


@pytest.fixture
def worker(uploads: Uploads, redis: Redis, start: Start) -> Process:
    return start("celery -A workers.app worker -Q attachments -c 1", "worker")


@pytest.fixture
def producer(environment: dict[str, str]) -> Iterator["Celery[Any]"]:
    """The API's side: it knows names of tasks and queues, and no code."""
    with Celery(broker=environment["CELERY_BROKER_URL"], set_as_current=False) as app:
        yield app


def test_a_worker_scans_what_the_api_calls_for_and_survives_a_redis_that_forgets(
    uploads: Uploads, stack: Stack, worker: Process, producer: "Celery[Any]"
) -> None:
    clean, infected, forgotten = uploads.add(PNG), uploads.add(EICAR), uploads.add(b"hello")
    for attachment in (clean, infected):
        producer.send_task("tasks.attachments.scan", [attachment], queue="attachments")
    worker.wait_until(lambda: (uploads.flags(clean), uploads.flags(infected)) == ((1, 1), (1, 0)), "both had their verdicts")

    stack.redis.pause()
    time.sleep(0.2)
    stack.redis.kill()
    stack.redis.start()
    with Redis.from_url(stack.redis.url) as client:
        client.flushall()
    # The message for this one was lost.
    worker.wait_until(lambda: swept(uploads, producer, forgotten) == (1, 1), "a sweep had found the third", every=1)


def test_a_killed_child_in_mid_scan_ends_with_a_true_verdict(
    uploads: Uploads, scanners: Stack, worker: Process, producer: "Celery[Any]"
) -> None:
    warm = uploads.add(b"warm")
    producer.send_task("tasks.attachments.scan", [warm], queue="attachments")
    worker.wait_until(lambda: uploads.flags(warm) == (1, 1), "the worker was warm")
    scanners.clamd.pause()
    attachment = uploads.add(EICAR)
    producer.send_task("tasks.attachments.scan", [attachment], queue="attachments")
    worker.wait_until(lambda: _leased(uploads, attachment), "the scan was under way")
    assert worker.children
    for child in worker.children:
        os.kill(child, signal.SIGKILL)
    scanners.clamd.resume()

    worker.wait_until(lambda: swept(uploads, producer, attachment) == (1, 0), "it had its verdict", every=1)


def test_a_worker_that_stops_does_not_wait_for_a_storage_that_trickles_and_charges_no_file(
    uploads: Uploads, trickler: Trickler, worker: Process, producer: "Celery[Any]"
) -> None:
    attachment = uploads.add(None, file_url="/assets/1")
    producer.send_task("tasks.attachments.scan", [attachment], queue="attachments")
    assert trickler.begun.wait(90)
    assert worker.stop() == 0
    record = uploads.record(attachment)
    assert (record.lease, record.claims, record.attempts, record.verdict) == (None, 0, 0, "waiting")


def test_a_pause_holds_scans_on_every_worker_and_gives_back_what_is_not_begun(
    uploads: Uploads, trickler: Trickler, redis: Redis, start: Start, producer: "Celery[Any]"
) -> None:
    attachments = [uploads.add(None, file_url=f"/assets/{number}") for number in range(5)]
    worker = start("celery -A workers.app worker -Q attachments -c 1", "worker", ATTACHMENTS_CONNECTIONS="1")
    producer.send_task("tasks.attachments.sweep", queue="attachments")
    assert trickler.begun.wait(90)
    assert command("pause", "--why", "clamd is being moved") == {"paused": ["attachments"], "seconds": None}
    worker.wait_until(lambda: sum(_leased(uploads, each) for each in attachments) == 1, "what was not begun was given back")
    assert command("status")["scan_pauses"][0]["why"] == "clamd is being moved"
    assert worker.stop() == 0
    start("celery -A workers.app worker -Q attachments -c 1", "next").wait_ready()
    assert run.scan_one(attachments[-1]).verdicts == {}
    assert command("resume") == {"resumed": ["attachments"]}
    trickler.begun.clear()
    producer.send_task("tasks.attachments.sweep", queue="attachments")
    assert trickler.begun.wait(90)


def command(*words: str) -> Any:
    done = CliRunner().invoke(cli, ["attachments", *words, "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def swept(uploads: Uploads, producer: "Celery[Any]", attachment: int) -> tuple[int, int]:
    """Ask for a sweep as beat does again and again, with every lease and wait over; return the attachment's flags by then."""
    uploads.make_due()
    producer.send_task("tasks.attachments.sweep", queue="attachments")
    return uploads.flags(attachment)


def _leased(uploads: Uploads, attachment: int) -> bool:
    with uploads.engine.connect() as connection:
        query = text("SELECT COUNT(*) FROM worker_scans WHERE attachment_id = :id AND lease IS NOT NULL")
        return bool(connection.execute(query, {"id": attachment}).scalar_one())
